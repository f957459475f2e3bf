"""Taking back points after a resume, checked with TensorBoard's own readers."""

import contextlib
import json
import urllib.error
import urllib.request

import pytest

from logging_system.dashboard_server import tensorboard_server
from logging_system.files.rewind import rewind
from logging_system.files.writer import Writer
from tests.ports import free_port
from tests.waiting import wait_until


def launch(folder, steps, *, start_step=0, epoch_length=4, partial_at_end=False):
    """Log as a run does: opening points, a scalar a step, and an epoch summary every `epoch_length` steps."""
    writer = Writer(folder, first_new_step=start_step + 1 if start_step else 0)
    writer.text("15_Configuration/Config", f"from {start_step}", start_step, "The configuration.")
    writer.scalar("08_Model_Architecture/Total", start_step, start_step, "Parameters.")
    writer.hparams_start({"START": float(start_step)}, ["01_Training/Loss"])
    writer.custom_scalars_layout({"a": {"b": ["01_Training/Loss"]}})
    for step in steps:
        writer.scalar("01_Training/Loss", step + start_step / 1000, step, "Loss.")
        if step % 3 == 0:
            writer.scalar("06_Diffusion/Diagnostic", step, step)
        is_partial = partial_at_end and step == steps[-1]
        if step % epoch_length == 0 or is_partial:
            writer.mark_epoch(step, is_partial=is_partial)
            epoch = -(-step // epoch_length)
            writer.scalar("03_Epoch_Summary/Average_Loss", step, epoch, "Epoch loss.")
    writer.close()


@pytest.fixture
def points(read_events, read_metrics):
    """Return a tag's (step, value) in the event files, having checked that metrics.jsonl says the same.

    Record by record: EventAccumulator would itself hide points that a later launch takes back.
    """

    def get(folder, tag):
        values = [(event.step, value) for event in read_events(folder) for value in event.summary.value]
        found = [(step, value.simple_value) for step, value in values if value.tag == tag]
        twin = [(step, value) for line_tag, step, value in read_metrics(folder) if line_tag == tag]
        assert [(step, pytest.approx(value)) for step, value in twin] == found
        return found

    return get


@pytest.fixture
def texts(read_events):
    """Return every version of the configuration text."""

    def get(folder):
        values = [value for event in read_events(folder) for value in event.summary.value]
        return [value.tensor.string_val[0].decode() for value in values if value.tag == "15_Configuration/Config"]

    return get


def test_nothing_at_or_beyond_the_step_survives_and_nothing_below_is_lost(tmp_path, points, accumulate, texts):
    launch(tmp_path, range(1, 11))
    rewound = rewind(tmp_path, 7)
    assert points(tmp_path, "01_Training/Loss") == [(step, step) for step in range(1, 7)]
    assert points(tmp_path, "03_Epoch_Summary/Average_Loss") == [(1, 4)]  # epoch 2 ended at step 8
    assert rewound.lines == 4 + 1 + 1
    assert accumulate(tmp_path).SummaryMetadata("01_Training/Loss").summary_description == "Loss."
    assert texts(tmp_path) == ["from 0"]


def test_epochs_are_judged_by_the_step_at_which_they_ended(tmp_path, points):
    launch(tmp_path, range(1, 41), epoch_length=10)
    rewind(tmp_path, 31)  # the epoch numbers 1 to 4 are all below 31
    assert points(tmp_path, "03_Epoch_Summary/Average_Loss") == [(1, 10), (2, 20), (3, 30)]


def test_summary_of_an_unfinished_epoch_gives_way_to_the_whole_one(tmp_path, points):
    launch(tmp_path, range(1, 7), partial_at_end=True)
    assert points(tmp_path, "03_Epoch_Summary/Average_Loss") == [(1, 4), (2, 6)]
    rewind(tmp_path, 7)
    assert points(tmp_path, "03_Epoch_Summary/Average_Loss") == [(1, 4)]
    launch(tmp_path, range(7, 9), start_step=6)
    assert points(tmp_path, "03_Epoch_Summary/Average_Loss") == [(1, 4), (2, 8)]


def test_resumed_twice_from_one_checkpoint_every_step_appears_once(tmp_path, points, texts):
    launch(tmp_path, range(1, 11))
    for attempt in (1, 2):
        rewind(tmp_path, 7)
        launch(tmp_path, range(7, 9 + attempt), start_step=6)
    values = points(tmp_path, "01_Training/Loss")
    assert [step for step, _ in values] == list(range(1, 11))
    assert values[6] == (7, pytest.approx(7.006))
    assert points(tmp_path, "08_Model_Architecture/Total") == [(0, 0), (6, 6)]
    assert texts(tmp_path) == ["from 0", "from 6"]


def test_earlier_launches_are_cut_too(tmp_path, points):
    launch(tmp_path, range(1, 7))
    launch(tmp_path, range(7, 11), start_step=6)
    rewind(tmp_path, 4)  # the newest checkpoints were damaged
    assert points(tmp_path, "01_Training/Loss") == [(1, 1), (2, 2), (3, 3)]


def test_run_that_starts_over_keeps_nothing(tmp_path, read_events):
    launch(tmp_path, range(1, 5))
    rewind(tmp_path, 0)
    assert [event.file_version for event in read_events(tmp_path)] == ["brain.Event:2"]
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_of_files_without_points_the_newest_alone_stays(tmp_path, points):
    for _ in range(3):  # each launch dies before its first checkpoint
        launch(tmp_path, range(1, 5))
        rewind(tmp_path, 0)
        assert len(list(tmp_path.glob("*tfevents*"))) == 1
    launch(tmp_path, range(1, 3))
    rewind(tmp_path, 3)  # the empty file in front of the newest goes
    assert len(list(tmp_path.glob("*tfevents*"))) == 1
    assert points(tmp_path, "01_Training/Loss") == [(1, 1), (2, 2)]


def test_hparams_and_layout_are_those_of_the_last_launch(tmp_path, read_events):
    launch(tmp_path, range(1, 5))
    rewind(tmp_path, 5)
    launch(tmp_path, range(5, 7), start_step=4)
    tags = [value.tag for event in read_events(tmp_path) for value in event.summary.value]
    for tag in ("_hparams_/session_start_info", "_hparams_/experiment", "custom_scalars__config__"):
        assert tags.count(tag) == 1


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_torn_end_is_dropped(tmp_path, points, cut):
    launch(tmp_path, range(1, 6))
    (path,) = tmp_path.glob("*tfevents*")
    path.write_bytes(path.read_bytes()[:-cut])
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(lines[: lines.rindex(b"{") + 9])
    rewound = rewind(tmp_path, 6)
    assert rewound.lines == 1
    assert points(tmp_path, "01_Training/Loss") == [(step, step) for step in range(1, 5)]


def test_zeros_after_a_power_cut_are_dropped(tmp_path, points):
    launch(tmp_path, range(1, 6))
    (path,) = tmp_path.glob("*tfevents*")
    path.write_bytes(path.read_bytes() + bytes(100))
    rewind(tmp_path, 6)
    assert points(tmp_path, "01_Training/Loss")[-1] == (5, 5)
    assert not path.read_bytes().endswith(bytes(8))


def test_points_of_the_resumed_step_itself_agree_in_both_files(tmp_path, points):
    launch(tmp_path, range(1, 7))
    rewind(tmp_path, 7)
    assert points(tmp_path, "01_Training/Loss")[-1] == (6, 6)


def test_what_was_taken_out_is_kept_where_tensorboard_does_not_look(tmp_path):
    launch(tmp_path, range(1, 9))
    first = rewind(tmp_path, 5).backup_folder
    launch(tmp_path, range(5, 7), start_step=4)
    second = rewind(tmp_path, 5).backup_folder
    assert (first, second) == (tmp_path / "rewound" / "from_step_5_1", tmp_path / "rewound" / "from_step_5_2")
    assert not [path for path in (tmp_path / "rewound").rglob("*") if "tfevents" in path.name]
    lost = (first / "metrics.jsonl").read_text()
    assert [f'"step": {step}' in lost for step in range(1, 9)] == [False, True] + [False] * 2 + [True] * 4
    (backup,) = first.glob("events*")
    assert backup.stat().st_size > 200


def test_rewinding_again_changes_nothing(tmp_path):
    launch(tmp_path, range(1, 9))
    rewind(tmp_path, 5)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert rewind(tmp_path, 5).backup_folder is None
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_folder_without_a_run_is_left_alone(tmp_path):
    assert rewind(tmp_path / "missing", 5).backup_folder is None
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("fast", ["true", "false"])
def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path, fast):
    run = tmp_path / "run"
    launch(run, range(1, 11))
    rewind(run, 7)
    launch(run, range(7, 9), start_step=6)
    port = free_port()
    with tensorboard_server(tmp_path, "127.0.0.1", port, ("--load_fast", fast)):
        expected = {
            "01_Training/Loss": list(range(1, 9)),
            "03_Epoch_Summary/Average_Loss": [1, 2],
            "06_Diffusion/Diagnostic": [3, 6],  # the second launch has not reached step 9
        }
        urls = {}
        for tag, steps in expected.items():
            url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=run&tag={tag}"
            wait_until(lambda url=url, steps=steps: steps_shown(url) == steps, lambda url=url: steps_shown(url))
            urls[url] = steps
        assert {url: steps_shown(url) for url in urls} == urls  # and they stay so


def steps_shown(url):
    """Return the steps of a tag as a server shows them; None while it has not read of it."""
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url, timeout=100) as answer:
        return [step for _, step, _ in json.load(answer)]
