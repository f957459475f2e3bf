"""SIGKILL at random moments, many times, also while a checkpoint is being written: nothing committed is ever lost."""

import functools
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pytest

from checkpoints.checkpoint import list_checkpoints, load_newest
from common.files import UNFINISHED
from tests.reliability.faults import stretch_saves
from tests.reliability.launch import launch, train
from tests.reliability.read_back import largest_difference, newest

OPTIONS = (
    "--save-every-steps=1",
    "--keep-checkpoints=2",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
    "--learning-rate=1e-4",
)
STRETCH_SECONDS = 0.04  # for each of a checkpoint's five files, its two folders, and LATEST: about 0.3 s a save
LONGEST_LIFE = 2.0  # seconds after its first sign of life


@dataclass
class Campaign:
    """What the kills came to."""

    kills: int = 0
    before_training: int = 0  # while the process was still building, or reading the checkpoint
    during_a_save: int = 0
    steps: list[int] = field(default_factory=list)  # that each resume went on from


def kill_again_and_again(folder: Path, *, kills: int, during_a_save: int, workers: int) -> Campaign:
    """Start, kill at a random moment and look, until there were enough kills, and enough of them during a save."""
    generator = numpy.random.default_rng(workers)
    campaign = Campaign()
    run = folder / "logs" / "run"
    options = (*OPTIONS, f"--num-workers={workers}")
    committed = 0
    while campaign.kills < kills or campaign.during_a_save < during_a_save:
        launched = launch(folder, *options, "--resume", faults=[functools.partial(stretch_saves, STRETCH_SECONDS)])
        # Every other one gets as far as its first step for certain, which on a busy machine takes a while.
        launched.wait_for("Run: " if campaign.kills % 2 else ": loss ")
        time.sleep(generator.uniform(0, LONGEST_LIFE))
        launched.send(9)
        assert launched.end() == -9, launched.said
        campaign.kills += 1
        campaign.during_a_save += any((run / "checkpoints").glob(f"{UNFINISHED}*"))
        campaign.before_training += not launched.saved_steps

        went_on_from = re.search(r"Going on from step (\d+)", launched.said)
        assert (int(went_on_from[1]) if went_on_from else 0) == committed, launched.said
        assert "damaged" not in launched.said
        # Whatever has its name was committed: it is whole, and no older one may be taken in its place.
        names = [folder.name for folder in list_checkpoints(run / "checkpoints")]
        found = load_newest(run / "checkpoints")
        assert (found is None) == (not names)
        if found is not None:
            assert found.folder.name == names[0]
            assert found.state.step >= max([committed, *launched.saved_steps])
            committed = found.state.step
        campaign.steps.append(committed)
    return campaign


def check_what_is_left(folder: Path, campaign: Campaign, workers: int) -> None:
    """Go on undisturbed, and compare with a run that was never killed."""
    target = campaign.steps[-1] + 2
    options = (*OPTIONS, f"--num-workers={workers}", f"--max-steps={target}")
    survivor = train(folder, *options, "--resume")
    assert f"Going on from step {target - 2}: " in survivor.said
    assert not list(survivor.run.rglob(f"{UNFINISHED}*"))
    undisturbed = train(folder / "undisturbed", *options)
    assert largest_difference(newest(survivor.run), newest(undisturbed.run)) == 0
    lines = [json.loads(line) for line in (survivor.run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["tag"] == "01_Training/Loss"] == list(range(1, target + 1))


def report(campaign: Campaign) -> None:
    print(
        f"\n{campaign.kills} kills, {campaign.during_a_save} of them during a save, {campaign.before_training} before "
        f"the first save of their launch; {campaign.kills} of {campaign.kills} resumed at or after the last committed "
        f"step; step {campaign.steps[-1]} at the end, weights equal to those of a run that was never killed"
    )


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    campaign = kill_again_and_again(tmp_path, kills=20, during_a_save=3, workers=0)
    assert campaign.kills >= 10
    assert campaign.during_a_save >= 3
    check_what_is_left(tmp_path, campaign, workers=0)
    report(campaign)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_two_hundred_kills_lose_nothing(tmp_path: Path, workers: int) -> None:
    campaign = kill_again_and_again(tmp_path, kills=200, during_a_save=50, workers=workers)
    assert campaign.kills >= 200
    assert campaign.during_a_save >= 50
    check_what_is_left(tmp_path, campaign, workers=workers)
    report(campaign)
