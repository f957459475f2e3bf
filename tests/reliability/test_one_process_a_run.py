"""A run folder belongs to one training at a time, and to nobody when that one has died."""

import functools
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from checkpoints import run_folder
from common import files
from tests.grids import mostly_slow
from tests.reliability.faults import never_end, replace_part, say
from tests.reliability.launch import Launch, launch, train
from tests.reliability.read_back import largest_difference, newest
from tests.waiting import wait_until
from training import build

ROUNDS = 2
AT_ONCE = 5
SAVED_THEN_HANGING = (
    "--save-every-steps=2",
    "--no-save-in-background",
    "--validate-every-steps=3",
    "--system-sample-seconds=86400",
)
LEAN = ("--no-enable-video-logging", "--no-enable-noise-visualization")
hang_in_validation = functools.partial(never_end, "validating")
GARBAGE = {
    "nothing": b"",
    "no text": b"\x80\x05\xff\x00\xfe",
    "cut off": b'{"process": 12, "host',
    "a number": b"7",
    "a list": b'["process"]',
    "no host": b'{"process": 12}',
}


def wait_for_gate(gate: Path, owner: ModuleType, name: str) -> None:
    """Say "ready" where a function of a module is about to be called, and go on when the file is there."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*arguments: Any, **options: Any) -> Any:
            say("ready")
            while not gate.exists():
                time.sleep(0.0005)
            return original(*arguments, **options)

        return wait

    replace_part(owner, name, make)


def wait_before_the_folder_is_opened(gate: Path) -> None:
    wait_for_gate(gate, build, "open_run_folder")


def wait_before_the_folder_is_locked(gate: Path) -> None:
    wait_for_gate(gate, run_folder, "lock_run")


def die_while_it_writes_its_first_file() -> None:
    """SIGKILL itself before the note about the holder has its name."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        return lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)

    replace_part(files.os, "fsync", make)


def tree(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the content of every file, and when it was written; opening the lock may count as writing."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            0 if path.name == "run.lock" else path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def end_at_once(launched: Launch) -> None:
    """Kill a training, and wait until it is gone."""
    launched.send(signal.SIGKILL)
    assert launched.end() == -signal.SIGKILL


def assert_refused(launched: Launch, holder: str) -> None:
    assert launched.end() == 1, launched.said  # a lock that is waited for would never be free
    assert f"error: {launched.run} is in use by {holder}" in launched.said
    assert "Wait for it or stop it, or choose another --experiment-name." in launched.said
    assert "Traceback" not in launched.said


@pytest.fixture(autouse=True)
def nothing_outlives_its_test() -> Iterator[None]:
    """Where a test fails, what should have been refused may be training: without end, and Python would wait for it."""
    before = set(multiprocessing.active_children())
    yield
    for process in set(multiprocessing.active_children()) - before:
        process.kill()


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """A training that stays where it validates its third step; its checkpoint is of the second."""
    folder = tmp_path_factory.mktemp("held")
    holder = launch(folder, *SAVED_THEN_HANGING, faults=[hang_in_validation])
    holder.wait_for("in validating")
    older = folder / "logs" / "older"
    older.mkdir()
    (older / "config.json").write_text("{}")
    os.utime(older / "config.json", (1e9, 1e9))
    yield holder
    end_at_once(holder)


def folder_of(launched: Launch) -> Path:
    return launched.output.parent


@pytest.mark.parametrize("arguments", [["--resume"], ["--experiment-name=auto", "--resume"]], ids=["named", "newest"])
def test_a_second_training_is_refused_and_told_who_is_there_and_changes_nothing(
    held: Launch, arguments: list[str]
) -> None:
    before = tree(folder_of(held) / "logs")
    second = launch(folder_of(held), *arguments)
    assert_refused(second, f"process {held.process.pid} on {socket.gethostname()}, which started at 20")
    assert second.process.pid != held.process.pid
    assert tree(folder_of(held) / "logs") == before
    assert held.process.is_alive()


def test_a_lock_that_somebody_has_deleted_still_holds_while_its_process_lives(held: Launch) -> None:
    lock = held.run / "run.lock"
    aside = lock.with_name("run.lock.aside")
    lock.rename(aside)
    try:
        assert_refused(launch(folder_of(held), "--resume"), f"process {held.process.pid} on {socket.gethostname()}")
    finally:
        aside.rename(lock)
    assert held.process.is_alive()


def test_without_resume_it_is_told_that_there_is_a_run(held: Launch) -> None:
    before = tree(held.run)
    second = launch(folder_of(held))
    assert second.end() == 1
    assert f"error: {held.run} already holds a run. Add --resume" in second.said
    assert tree(held.run) == before


@pytest.mark.parametrize("content", mostly_slow(GARBAGE.values(), fast=2), ids=GARBAGE.keys())
def test_where_the_note_about_the_holder_is_garbage_the_refusal_says_another_process(
    held: Launch, content: bytes
) -> None:
    note = held.run / "run.lock.json"
    written = note.read_bytes()
    assert json.loads(written)["process"] == held.process.pid
    try:
        note.write_bytes(content)
        assert_refused(launch(folder_of(held), "--resume"), "another process. Wait")
        assert note.read_bytes() == content
    finally:
        note.write_bytes(written)


def test_a_training_beside_it_under_another_name_is_not_disturbed_and_does_not_disturb(held: Launch) -> None:
    before = tree(held.run)
    other = train(folder_of(held), *LEAN, "--experiment-name=other", "--max-steps=2")
    assert other.saved_steps == [2]
    assert tree(held.run) == before
    assert not (held.run.parent / "other" / "run.lock.json").exists()


def test_after_a_kill_the_next_one_takes_over_at_once_even_while_loader_workers_live(tmp_path: Path) -> None:
    first = launch(tmp_path, *SAVED_THEN_HANGING, "--num-workers=2", faults=[hang_in_validation])
    first.wait_for("in validating")
    loaders = psutil.Process(first.process.pid).children(recursive=True)
    assert len(loaders) == 2
    try:
        for loader in loaders:
            loader.suspend()  # or they would end themselves when they find the main process gone
        end_at_once(first)
        assert json.loads((first.run / "run.lock.json").read_text())["process"] == first.process.pid
        third = train(tmp_path, *LEAN, "--resume", "--max-steps=3")
        assert [loader.status() for loader in loaders] == [psutil.STATUS_STOPPED] * 2
    finally:
        for loader in loaders:
            loader.kill()
    assert f"Going on from step 2: {first.run / 'checkpoints' / 'step_00000002'}" in third.said
    assert third.saved_steps == [3]
    assert not (first.run / "run.lock.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--resume"]], ids=["fresh", "resume"])
def test_of_many_that_start_at_the_same_moment_exactly_one_trains(tmp_path: Path, arguments: list[str]) -> None:
    for number in range(ROUNDS):
        folder, gate = tmp_path / str(number), tmp_path / f"gate_{number}"
        faults = [hang_in_validation, functools.partial(wait_before_the_folder_is_opened, gate)]
        started = [launch(folder, "--validate-every-steps=1", *arguments, faults=faults) for _ in range(AT_ONCE)]
        for each in started:
            each.wait_for("ready")
        gate.touch()
        winner = the_one_that_stays(started)
        winner.wait_for("in validating")
        assert [each.end() for each in started if each is not winner] == [1] * (AT_ONCE - 1)
        for loser in started:
            is_told = f"error: {loser.run} is in use by" in loser.said or "already holds a run" in loser.said
            assert is_told == (loser is not winner), loser.said
            assert "Traceback" not in loser.said
        assert json.loads((winner.run / "run.lock.json").read_text())["process"] == winner.process.pid
        assert len(list(winner.run.glob("*tfevents*"))) == 1
        end_at_once(winner)


@pytest.mark.slow
def test_one_that_was_slow_to_lock_does_not_train_over_what_another_has_finished_meanwhile(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow = launch(tmp_path, "--max-steps=1", faults=[functools.partial(wait_before_the_folder_is_locked, gate)])
    slow.wait_for("ready")
    quick = train(tmp_path, *LEAN, "--max-steps=2")
    assert quick.saved_steps == [2]
    before = tree(quick.run)
    gate.touch()
    assert slow.end() == 1
    assert f"error: {slow.run} already holds a run. Add --resume" in slow.said
    assert tree(quick.run) == before


def the_one_that_stays(started: list[Launch]) -> Launch:
    """Wait until all but one have ended, and return that one."""

    def alive() -> list[Launch]:
        return [each for each in started if each.process.is_alive()]

    wait_until(lambda: len(alive()) < 2, lambda: [each.said for each in alive()])
    assert alive(), [each.said for each in started]
    return alive()[0]


@pytest.mark.slow
def test_two_at_once_with_one_cache_end_with_the_weights_that_each_would_have_alone(
    tmp_path: Path, held: Launch
) -> None:
    names = ("one", "two")
    gate = tmp_path / "gate"
    both = [
        launch(
            tmp_path,
            *LEAN,
            "--max-steps=2",
            f"--experiment-name={name}",
            faults=[functools.partial(wait_before_the_folder_is_opened, gate)],
        )
        for name in names
    ]
    for each in both:
        each.wait_for("ready")
    gate.touch()
    assert [each.end() for each in both] == [0, 0]
    for name in names:
        assert newest(tmp_path / "logs" / name).name == "step_00000002"
        assert largest_difference(newest(tmp_path / "logs" / name), newest(held.run)) == 0


def test_lock_files_that_a_dead_process_left_are_no_obstacle_to_a_new_run(tmp_path: Path) -> None:
    run = tmp_path / "logs" / "run"
    run.mkdir(parents=True)
    (run / "run.lock").write_bytes(b"left behind")
    (run / "run.lock.json").write_bytes(GARBAGE["no text"])
    assert train(tmp_path, *LEAN, "--max-steps=1").saved_steps == [1]
    assert not (run / "run.lock.json").exists()


def test_a_kill_while_the_lock_is_noted_down_leaves_a_folder_that_a_new_run_can_have(tmp_path: Path) -> None:
    killed = train(tmp_path, faults=[die_while_it_writes_its_first_file], exit_code=-signal.SIGKILL)
    left = {path.name.split("-")[1] for path in killed.run.iterdir() if path.name.startswith(files.UNFINISHED)}
    assert left == {"run.lock.json"}
    assert train(tmp_path, *LEAN, "--max-steps=1").saved_steps == [1]
    assert not list(killed.run.glob(f"{files.UNFINISHED}*"))
