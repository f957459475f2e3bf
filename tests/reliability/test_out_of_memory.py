"""Allocations that fail for real, in every part of a step: a clean end, nothing lost, and advice."""

import functools
from pathlib import Path

import pytest

from tests.grids import mostly_slow
from tests.reliability.faults import ask_for_too_much_memory
from tests.reliability.launch import train
from tests.reliability.read_back import largest_difference, newest, state_of

OPTIONS = (
    "--gradient-accumulation-steps=2",
    "--save-every-steps=2",
    "--validate-every-steps=4",
    "--sample-every-steps=3",
    "--max-steps=6",
)
ADVICE = ("BATCH_SIZE", "GRADIENT_ACCUMULATION_STEPS", "MAX_FRAMES", "IMAGE_SIZE", "MODEL_CHANNELS", "--resume")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return newest(train(tmp_path_factory.mktemp("undisturbed"), *OPTIONS).run)


# Which call fails, and the step whose state is the last one on the disk.
@pytest.mark.parametrize(
    ("place", "call", "step"),
    mostly_slow([("forward", 6, 2), ("forward", 5, 2), ("backward", 6, 2), ("backward", 7, 3), ("validating", 1, 4)]),
)
def test_what_was_done_is_saved_and_advice_given(
    tmp_path: Path, undisturbed: Path, place: str, call: int, step: int
) -> None:
    # Passes 5 and 6 are the two micro-batches of step 3.
    fault = functools.partial(ask_for_too_much_memory, place, call)
    ended = train(tmp_path, *OPTIONS, faults=[fault], exit_code=1)
    assert "the memory is too small" in ended.said
    assert "can't allocate memory" in ended.said  # the allocator's own words
    assert "Traceback" not in ended.said
    assert all(constant in ended.said for constant in ADVICE)
    assert state_of(newest(ended.run))["step"] == step
    assert state_of(newest(ended.run))["validation_is_due"] == (place == "validating")
    resumed = train(tmp_path, *OPTIONS, "--resume")
    assert largest_difference(newest(resumed.run), undisturbed) == 0


@pytest.mark.slow
def test_weights_that_are_half_way_through_an_update_are_not_saved(tmp_path: Path, undisturbed: Path) -> None:
    fault = functools.partial(ask_for_too_much_memory, "update", 4)
    ended = train(tmp_path, *OPTIONS, faults=[fault], exit_code=1)
    assert "The last checkpoint is of step 2." in ended.said
    assert state_of(newest(ended.run))["step"] == 2  # of step 4 the optimizer's part was done, the average's was not
    resumed = train(tmp_path, *OPTIONS, "--resume")
    assert largest_difference(newest(resumed.run), undisturbed) == 0


@pytest.mark.slow
def test_samples_that_do_not_fit_cost_no_step(tmp_path: Path, undisturbed: Path) -> None:
    fault = functools.partial(ask_for_too_much_memory, "sampling", 1)
    finished = train(tmp_path, *OPTIONS, faults=[fault])
    assert "12_Generated_Samples failed in on_samples (RuntimeError:" in finished.said
    assert largest_difference(newest(finished.run), undisturbed) == 0
