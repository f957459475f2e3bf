"""Code hidden in the files that we load is never run: each of them is replaced by pickles that would show it."""

import functools
import json
import math
import multiprocessing
import shutil
from pathlib import Path

import numpy
import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from common.video_encoding import encode_gif
from data.cache import ClipCache
from data.media.containers import VIDEO_EXTENSIONS
from tests.grids import mostly_slow
from tests.reliability.faults import poison, replace_part
from tests.reliability.launch import TINY, train
from tests.reliability.payloads import KINDS, Answer, open_carelessly, run_each, seal, with_checksum
from tests.reliability.read_back import newest
from training.loop import TrainingLoop

OPTIONS = (
    *("--recogniser-steps=1", "--no-enable-noise-visualization", "--no-enable-parameter-tracking"),
    "--validation-clips=8",  # which the cache keeps: at least one for each payload
)
CHECKPOINT = "checkpoints/step_00000002"
SKIPPED = "skipped_steps/step_00000001"
MAIN = ("main", "--resume", "--max-steps=3")
GENERATE = ("generate", "--text=A", "--output=clip.gif", "--device=cpu")
EVALUATE = ("evaluation.__main__", "--output=report.json", "--device=cpu")
REPLAY = ("training.replay", "--device=cpu")
DOCTOR = ("logging_system.doctor.__main__",)
NO_TENSORS = "is no safetensors file"
# The file, who reads it, and what is to be said of it.
REFUSED = [  # the first six are each program's, and one of each sort of file
    (f"{CHECKPOINT}/model.safetensors", MAIN, NO_TENSORS),
    (f"{CHECKPOINT}/state.json", GENERATE, "is no training state"),
    (f"{CHECKPOINT}/manifest.json", EVALUATE, "is damaged; restore one from a backup"),
    (f"{SKIPPED}/step.json", REPLAY, "cannot be read"),
    ("config.json", DOCTOR, "cannot be read"),
    ("metrics.jsonl", DOCTOR, "metrics.jsonl"),
    (f"{CHECKPOINT}/model.safetensors", (*GENERATE, "--raw-weights"), NO_TENSORS),
    (f"{CHECKPOINT}/ema.safetensors", MAIN, NO_TENSORS),
    (f"{CHECKPOINT}/ema.safetensors", GENERATE, NO_TENSORS),
    (f"{CHECKPOINT}/ema.safetensors", EVALUATE, NO_TENSORS),
    (f"{CHECKPOINT}/optimizer.safetensors", MAIN, NO_TENSORS),
    (f"{CHECKPOINT}/state.json", MAIN, "is no training state"),
    (f"{CHECKPOINT}/state.json", (*GENERATE, "--checkpoint=best"), "no checkpoint in"),
    (f"{CHECKPOINT}/state.json", EVALUATE, "is no training state"),
    (f"{CHECKPOINT}/manifest.json", MAIN, "is damaged; restore one from a backup"),
    (f"{CHECKPOINT}/manifest.json", GENERATE, "is damaged; restore one from a backup"),
    (f"{SKIPPED}/batch.safetensors", REPLAY, NO_TENSORS),
    (f"{SKIPPED}/model.safetensors", REPLAY, NO_TENSORS),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of logs and cache of a run with a skipped step, a recogniser, and a checkpoint of its second step."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, *OPTIONS, "--max-steps=2", faults=[functools.partial(poison, "loss", math.nan, [1])])
    return folder


@pytest.fixture
def markers(tmp_path: Path) -> Path:
    """Where each payload would make a folder."""
    (tmp_path / "markers").mkdir()
    return tmp_path / "markers"


def run_copies(trained: Path, tmp_path: Path, markers: Path) -> dict[str, tuple[Path, bytes]]:
    """Return a copy of the run and the payload to be put into it, for each kind."""
    return {
        kind: (shutil.copytree(trained / "logs" / "run", tmp_path / kind / "run"), make(markers / kind))
        for kind, make in KINDS.items()
    }


def command(program: tuple[str, ...], run: Path, cache: Path) -> list[str]:
    name, *options = program
    if name == "main":
        return [*TINY, *OPTIONS, *options, f"--log-dir={run.parent}", f"--cache-dir={cache}"]
    options = [each.replace("--output=", f"--output={run.parent}/") for each in options]
    return [str(run)] if program == DOCTOR else [f"--run={run}", *options]


def assert_none_ran(markers: Path, answers: list[Answer]) -> None:
    assert list(markers.iterdir()) == []
    assert [answer.said for answer in answers if "Traceback" in answer.said] == []


def _open_all_carelessly(payloads: dict[str, bytes]) -> None:
    for kind, content in payloads.items():
        open_carelessly(kind, content)


def test_each_payload_runs_where_it_is_loaded_carelessly(markers: Path) -> None:
    payloads = {kind: make(markers / kind) for kind, make in KINDS.items()}
    assert list(markers.iterdir()) == []
    scratch = multiprocessing.get_context("forkserver").Process(target=_open_all_carelessly, args=(payloads,))
    scratch.start()
    scratch.join(60)
    assert scratch.exitcode == 0
    assert {path.name for path in markers.iterdir()} == set(KINDS)


@pytest.mark.parametrize(
    ("file", "program", "told"),
    mostly_slow(REFUSED, fast=6),
    ids=[f"{file.split('/')[-1]}-{program[0]}" for file, program, _ in REFUSED],
)
def test_a_payload_in_place_of_a_file_without_which_it_cannot_go_on_is_named(
    trained: Path, tmp_path: Path, markers: Path, file: str, program: tuple[str, ...], told: str
) -> None:
    copies = run_copies(trained, tmp_path, markers)
    for run, payload in copies.values():
        (run / file).write_bytes(payload)
        if file.startswith(CHECKPOINT) and "manifest" not in file:
            seal(run / CHECKPOINT)
    commands = [command(program, run, trained / "cache") for run, _ in copies.values()]
    answers = run_each(tmp_path, program[0], commands)
    assert_none_ran(markers, answers)
    assert [answer.exit_code for answer in answers] == [1] * len(KINDS)
    assert [answer.said for answer in answers if told not in answer.said] == []
    assert [run for run, payload in copies.values() if (run / file).read_bytes() != payload] == []


@pytest.mark.slow
def test_payloads_in_place_of_files_that_a_resume_can_do_without_are_replaced(
    trained: Path, tmp_path: Path, markers: Path
) -> None:
    copies = run_copies(trained, tmp_path, markers)
    replaced = ("config.json", "split.json", "metrics.jsonl", "checkpoints/LATEST", "run.lock", "run.lock.json")
    for run, payload in copies.values():
        for path in (*(run / name for name in replaced), *run.glob("*tfevents*")):
            path.write_bytes(payload)
    lean = (*MAIN, "--no-enable-video-logging")
    answers = run_each(tmp_path, "main", [command(lean, run, trained / "cache") for run, _ in copies.values()])
    assert_none_ran(markers, answers)
    assert [answer.said for answer in answers if answer.exit_code != 0] == []
    for run, _ in copies.values():
        assert newest(run).name == (run / "checkpoints" / "LATEST").read_text().strip() == "step_00000003"
        assert json.loads((run / "config.json").read_text())["MAX_STEPS"] == 3
        assert json.loads((run / "split.json").read_text()) == json.loads((trained / "logs/run/split.json").read_text())
        assert {json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()} >= {3}
        steps = {event.step for path in run.glob("*tfevents*") for event in LegacyEventFileLoader(str(path)).Load()}
        assert 3 in steps


def test_payloads_in_the_clip_cache_with_the_right_checksum_are_made_anew(
    trained: Path, tmp_path: Path, markers: Path
) -> None:
    cache = shutil.copytree(trained / "cache", tmp_path / "cache")
    clips = {path: path.read_bytes() for path in sorted(cache.rglob("*.npy"))}
    assert len(clips) >= len(KINDS)
    for number, path in enumerate(clips):
        kind = list(KINDS)[number % len(KINDS)]
        path.write_bytes(with_checksum(KINDS[kind](markers / f"{kind}_{number}")))
    options = [*TINY, *OPTIONS, f"--log-dir={tmp_path / 'logs'}", f"--cache-dir={cache}", "--max-steps=2"]
    answers = run_each(tmp_path, "main", [options])
    assert_none_ran(markers, answers)
    assert answers[0].exit_code == 0, answers[0].said
    assert {path.name for path, content in clips.items() if path.read_bytes() != content} == set()


def test_a_cache_entry_that_only_begins_like_a_zip_file_is_made_anew(tmp_path: Path, markers: Path) -> None:
    """NumPy takes anything with these two letters in front for an .npz file."""
    cache, clip = ClipCache(tmp_path, 10**9), numpy.arange(12, dtype=numpy.uint8).reshape(1, 2, 2, 3)
    cache.get_or_make(("a clip",), lambda: clip)
    (entry,) = tmp_path.rglob("*.npy")
    entry.write_bytes(with_checksum(b"PK\x03\x04" + KINDS["pickle"](markers / "zip")))
    assert numpy.array_equal(cache.get_or_make(("a clip",), lambda: clip), clip)
    assert list(markers.iterdir()) == []


def build_only() -> None:
    """End a training where it would do its first step: all files but clips have been read by then."""
    replace_part(TrainingLoop, "run", lambda original: lambda self: 0)


@pytest.mark.slow
def test_payloads_in_place_of_the_recogniser_are_reported_and_it_is_trained_again(
    trained: Path, tmp_path: Path, markers: Path
) -> None:
    (stored,) = (trained / "cache" / "recognisers").iterdir()
    places, commands = [], []
    for kind, make in KINDS.items():
        place = tmp_path / kind / "cache" / "recognisers" / stored.name
        place.parent.mkdir(parents=True)
        place.write_bytes(make(markers / kind))
        places.append(place)
        folders = [f"--log-dir={tmp_path / kind / 'logs'}", f"--cache-dir={tmp_path / kind / 'cache'}"]
        commands.append([*TINY, *OPTIONS, *folders])
    answers = run_each(tmp_path, "main", commands, faults=[build_only])
    assert_none_ran(markers, answers)
    assert [answer.said for answer in answers if answer.exit_code != 0] == []
    for place, answer in zip(places, answers, strict=True):
        assert f"The stored recogniser {place} cannot be used and is trained again" in answer.said
        assert load_file(place).keys() == load_file(stored).keys()


def test_payloads_among_the_words_of_an_evaluation_are_named(trained: Path, tmp_path: Path, markers: Path) -> None:
    commands = []
    for kind, make in KINDS.items():
        (tmp_path / kind).write_bytes(make(markers / kind))
        options = [f"--output={tmp_path / 'report.json'}", "--device=cpu", f"--captions={tmp_path / kind}"]
        commands.append([f"--run={trained / 'logs' / 'run'}", *options])
    answers = run_each(tmp_path, "evaluation.__main__", commands)
    assert_none_ran(markers, answers)
    assert [answer.exit_code for answer in answers] == [1] * len(KINDS)
    for kind, answer in zip(KINDS, answers, strict=True):
        assert f"error: --captions {tmp_path / kind}" in answer.said


def test_payloads_in_place_of_clips_and_captions_are_left_out(tmp_path: Path, markers: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    hostile = {}
    for kind, make in KINDS.items():
        for extension in VIDEO_EXTENSIONS:
            hostile[f"{kind}{extension}"] = make(markers / f"{kind}{extension}")
            (data / f"{kind}{extension}").write_bytes(hostile[f"{kind}{extension}"])
        (data / f"{kind}.txt").write_text("a caption")
    moving = numpy.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), numpy.uint8)
    for number in range(len(hostile) + 2 * len(KINDS)):
        (data / f"good_{number}.gif").write_bytes(encode_gif(moving, 8))
        (data / f"good_{number}.txt").write_text(f"caption {number}")
    for number, (kind, make) in enumerate(KINDS.items()):
        (data / f"good_{number}.txt").write_bytes(make(markers / f"caption_{kind}"))
    folders = [f"--data-root={data}", f"--log-dir={tmp_path / 'logs'}", f"--cache-dir={tmp_path / 'cache'}"]
    (answer,) = run_each(tmp_path, "main", [[*TINY, *OPTIONS, *folders, "--max-steps=1"]])
    assert_none_ran(markers, [answer])
    assert answer.exit_code == 0, answer.said
    split = json.loads((tmp_path / "logs" / "run" / "split.json").read_text())
    skipped = {each["clip"] for each in split["skipped"]}
    as_text = list(KINDS).index("text_pickle")  # plain ASCII is a caption like any other, if an odd one
    assert skipped == {*hostile, *(f"good_{number}.gif" for number in range(len(KINDS)) if number != as_text)}
