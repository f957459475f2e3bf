"""A run that was killed and resumed is the run that was never stopped: to the last bit, and clip by clip."""

import functools
from collections import Counter
from pathlib import Path

import pytest

from tests.grids import mostly_slow
from tests.reliability.faults import kill_in_step, tell_steps
from tests.reliability.launch import launch, train
from tests.reliability.read_back import clips_of_steps, curve, largest_difference, newest, state_of

STEPS = 8
LOSS_TAGS = ("01_Training/Loss", "01_Training/Gradient_Norm", "02_Loss_Components/Validation/Loss")
OPTIONS = (
    # Of 14 clips of 4, 8 and 12 frames in steps of 48 frames: epochs end with steps 1, 3, 6 and 9, and clips wait.
    "--epoch-size=14",
    "--max-frames=12",
    "--max-word-letters=3",
    "--gradient-accumulation-steps=2",
    "--save-every-steps=2",
    "--validate-every-steps=2",
    f"--max-steps={STEPS}",
    "--lr-schedule=plateau",  # it has a state of its own
    "--lr-plateau-patience=0",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
)
# Step and micro-batch at which it is killed, and the step that the resume goes on from.
KILLS = {"mid-epoch": (6, 1, 4), "mid-accumulation": (4, 2, 2), "epoch end": (7, 1, 6)}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[int, object]:
    """The same run, never stopped, by number of workers."""
    return {
        workers: train(
            tmp_path_factory.mktemp(f"straight_{workers}"), *OPTIONS, f"--num-workers={workers}", faults=[tell_steps]
        )
        for workers in (0, 2)
    }


@pytest.mark.parametrize("workers", mostly_slow([0, 2]))
@pytest.mark.parametrize("place", mostly_slow(KILLS))
def test_straight_equals_killed_and_resumed(tmp_path: Path, straight: dict, place: str, workers: int) -> None:
    step, micro_batch, last_saved = KILLS[place]
    options = (*OPTIONS, f"--num-workers={workers}", "--no-save-in-background")  # what is saved by then is known
    kill = functools.partial(kill_in_step, step, micro_batch)
    killed = launch(tmp_path, *options, faults=[tell_steps, kill])
    assert killed.end() == -9, killed.said
    resumed = train(tmp_path, *options, "--resume", faults=[tell_steps])
    assert f"Going on from step {last_saved}: " in resumed.said

    whole = straight[workers]
    assert largest_difference(newest(whole.run), newest(resumed.run)) == 0
    for tag in LOSS_TAGS:
        assert curve(resumed.run, tag) == curve(whole.run, tag)
    assert set(curve(resumed.run, "01_Training/Loss")) == set(range(1, STEPS + 1))
    clips = clips_of_steps(killed, resumed)
    assert clips == clips_of_steps(whole)
    assert set(Counter(clip for of_step in clips.values() for clip in of_step).values()) == {1}
    assert {len(of_step) for of_step in clips.values()} == {12, 6, 4}
    assert set(curve(resumed.run, "03_Epoch_Summary/Frames")) == {1, 2, 3, 4}
    states = [state_of(newest(run.run)) for run in (whole, resumed)]
    for state in states:
        del state["config"]["SAVE_IN_BACKGROUND"], state["config"]["LOG_DIR"], state["config"]["CACHE_DIR"]
    assert states[0] == states[1]
