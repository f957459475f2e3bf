"""Real trainings on small replicas of every kind of data set, and what happens to one whose clips go missing."""

import functools
import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from data.formats.registry import FORMAT_NAMES, read_data_set
from data.shards import write_shards
from tests.data.formats import replicas
from tests.grids import mostly_slow
from tests.reliability.faults import kill_in_step, remove_after_step, slow_decoding, tell_steps
from tests.reliability.launch import launch, train, train_ranks
from tests.reliability.read_back import clips_of_steps, curve, largest_difference, newest, state_of

LEAN = ("--no-enable-video-logging", "--no-enable-noise-visualization")
# Format, what makes the replica, and how many clips are for training, validation and test.
REPLICAS: list[tuple[str, Callable[[Path], Path], tuple[int, int, int]]] = [
    ("folder", replicas.folder_replica, (5, 1, 0)),
    ("words", replicas.words_replica, (4, 1, 1)),
    ("manifest", replicas.manifest_replica, (4, 1, 1)),
    ("manifest", functools.partial(replicas.manifest_replica, extension=".tsv"), (4, 1, 1)),
    ("manifest", functools.partial(replicas.manifest_replica, extension=".jsonl"), (4, 1, 1)),
    ("how2sign", replicas.how2sign_replica, (4, 1, 1)),
    ("phoenix", replicas.phoenix_replica, (4, 1, 1)),
    ("wlasl", replicas.wlasl_replica, (4, 1, 1)),
    ("msasl", replicas.msasl_replica, (4, 1, 1)),
    ("pose_lexicon", replicas.pose_lexicon_replica, (5, 1, 0)),
    ("webdataset", replicas.webdataset_replica, (4, 1, 1)),
]
KNOWN_WORDS = ("words", "wlasl", "msasl")  # each of whose words several clips show


def test_every_format_has_a_replica() -> None:
    assert {name for name, _, _ in REPLICAS} == set(FORMAT_NAMES)


@pytest.mark.parametrize(("name", "make", "sizes"), mostly_slow(REPLICAS))
def test_every_format_trains(
    tmp_path: Path, name: str, make: Callable[[Path], Path], sizes: tuple[int, int, int]
) -> None:
    root = make(tmp_path / "data")
    run = train(tmp_path, *LEAN, f"--data-root={root}", "--max-steps=3", "--num-workers=1")
    split = json.loads((run.run / "split.json").read_text("utf-8"))
    assert split["data"] == name
    assert tuple(len(split[part]) for part in ("training", "validation", "test")) == sizes
    captions = {entry["caption"] for part in ("training", "validation", "test") for entry in split[part]}
    assert captions == {row.caption for row in read_data_set(root, "auto")[2].rows}
    losses = curve(run.run, "01_Training/Loss")
    assert set(losses) == {1, 2, 3}
    assert all(math.isfinite(loss) for loss in losses.values())
    assert math.isfinite(curve(run.run, "02_Loss_Components/Validation/Loss")[3])
    assert state_of(newest(run.run))["step"] == 3
    can_be_known = name in KNOWN_WORDS
    gaps = curve(run.run, "02_Loss_Components/Validation/Trained_Text_Gap_Shuffled")
    assert list(gaps) == ([] if can_be_known else [3])
    assert ("; of training clips " in run.said) != can_be_known


@pytest.mark.slow
def test_two_processes_gauge_training_clips_as_one_does(tmp_path: Path) -> None:
    root = replicas.pose_lexicon_replica(tmp_path / "data")
    options = (*LEAN, f"--data-root={root}", "--max-steps=2", "--validate-every-steps=1", "--mixed-precision=off")
    one = train(tmp_path / "one", *options, "--batch-size=2").run
    two = train_ranks(tmp_path / "two", 2, *options, "--batch-size=1")[0].run
    for tag in ("Trained_Loss", "Trained_Text_Gap_Shuffled"):
        expected = curve(one, f"02_Loss_Components/Validation/{tag}")
        assert list(expected) == [1, 2]
        assert curve(two, f"02_Loss_Components/Validation/{tag}") == pytest.approx(expected, abs=2e-5)


@pytest.mark.slow
def test_shards_are_gone_on_with_at_the_very_clip(tmp_path: Path) -> None:
    manifest = read_data_set(replicas.folder_replica(tmp_path / "clips", 12), "auto")[2]
    write_shards(manifest, tmp_path / "shards", shard_bytes=30_000, seed=0)
    assert len(list((tmp_path / "shards").glob("*.tar"))) > 2
    options = (*LEAN, f"--data-root={tmp_path / 'shards'}", "--save-every-steps=2", "--no-save-in-background")
    options = (*options, "--max-steps=8")
    straight = train(tmp_path / "straight", *options, "--num-workers=2", faults=[tell_steps])
    kill = functools.partial(kill_in_step, 6, 1)
    killed = launch(tmp_path / "killed", *options, "--num-workers=2", faults=[tell_steps, kill])
    assert killed.end() == -9, killed.said
    resumed = train(tmp_path / "killed", *options, "--num-workers=1", "--resume", faults=[tell_steps])
    assert "Going on from step 4: " in resumed.said
    assert largest_difference(newest(straight.run), newest(resumed.run)) == 0
    assert clips_of_steps(killed, resumed) == clips_of_steps(straight)


def test_a_clip_that_goes_missing_ends_the_run_with_its_name_and_a_checkpoint(tmp_path: Path) -> None:
    root = replicas.folder_replica(tmp_path / "clips", 12)
    options = (*LEAN, f"--data-root={root}")
    known = train(tmp_path / "known", *options, "--max-steps=1")
    gone = json.loads((known.run / "split.json").read_text())["training"][0]["clip"]
    remove = functools.partial(remove_after_step, 2, root / gone, tmp_path / "cache" / "clips-v1")
    ended = train(tmp_path, *options, "--max-steps=40", faults=[remove], exit_code=1)
    assert f"{gone} does not exist: put it back, or start again without it" in ended.said
    saved = ended.saved_steps[-1]
    assert saved >= 2
    assert state_of(newest(ended.run))["step"] == saved
    resumed = train(tmp_path, *options, f"--max-steps={saved + 3}", "--resume")
    assert f"Going on from step {saved}: " in resumed.said
    assert "data: 0 training clips are new or changed, 1 of the last launch is gone" in resumed.said


def test_a_clip_that_was_trained_on_does_not_count_as_held_out_after_a_resume(tmp_path: Path) -> None:
    root = replicas.folder_replica(tmp_path / "clips", 12)
    options = (*LEAN, f"--data-root={root}")
    first = train(tmp_path, *options, "--max-steps=2")
    held_out = json.loads((first.run / "split.json").read_text())["held_out_captions"]
    for caption in root.glob("*.txt"):
        if caption.read_text().strip() in held_out:
            caption.unlink()
    again = train(tmp_path, *options, "--max-steps=4", "--resume", exit_code=1)
    assert "would count as held out, but was trained on" in again.said
    assert state_of(newest(first.run))["step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
    ids=["SIGTERM", "SIGINT", "SIGKILL"],
)
def test_an_inspection_that_is_ended_goes_on_where_it_was(tmp_path: Path, number: int, exit_code: int) -> None:
    root = replicas.folder_replica(tmp_path / "clips", 24)
    options = (*LEAN, f"--data-root={root}", "--max-steps=1")
    gate, held_from = tmp_path / "gate", "carol_11.mp4"
    ended = launch(tmp_path, *options, faults=[functools.partial(slow_decoding, 0.5, held_from, gate)])
    ended.wait_for(f"decoding {held_from}")
    ended.send(number)
    gate.touch()
    assert ended.end() == exit_code, ended.said
    assert not ended.run.exists()
    first = ended.said.count("decoding")
    assert first < 20
    resumed = train(tmp_path, *options, faults=[functools.partial(slow_decoding, 0.0)])
    repeated = first + resumed.said.count("decoding") - 24
    assert 0 <= repeated <= (12 if number == signal.SIGKILL else 8)  # what was under way, or not yet written down
