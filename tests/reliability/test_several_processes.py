"""Two and four real processes with gloo between them train what one process trains, and end together."""

import functools
import json
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.grids import mostly_slow
from tests.reliability.faults import (
    add_option,
    count_reductions,
    kill_in_step,
    never_end,
    poison,
    see_other_clips,
    tell_steps,
    tell_weights,
    train_by_plain_gradient_descent,
    work_by_a_held_clock,
)
from tests.reliability.launch import Launch, launch_ranks, new_store, train, train_ranks
from tests.reliability.read_back import (
    clips_of_steps,
    curve,
    largest_difference,
    newest,
    state_of,
    steps_done,
    tensors_of,
)
from training.replay import replay

pytestmark = pytest.mark.distributed

GLOBAL_BATCH = 4  # of the longest clips; of 16 frames, five, which no number of processes shares evenly
STEPS = 7  # two epochs of 24 clips and a part of the third
OPTIONS = (
    "--epoch-size=24",
    "--max-frames=20",
    "--max-word-letters=5",
    f"--max-steps={STEPS}",
    "--save-every-steps=3",
    "--validate-every-steps=3",
    "--mixed-precision=off",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
)
# The same sums in another order: of the products of a batch, and of the processes' gradients. In float32 that is about
# 1e-7 of a number, and some layers and steps make it more.
LOSS_TOLERANCE = 2e-5
WEIGHT_TOLERANCE = 1e-6
EQUAL_TAGS = (
    "01_Training/Loss",
    "01_Training/Gradient_Norm",
    "01_Training/Validation_Loss",
    "02_Loss_Components/Unweighted_MSE",
    "02_Loss_Components/Validation/Loss_Shuffled",
    "03_Epoch_Summary/Average_Loss",
    "06_Diffusion/Noise_Prediction_MSE",
    "06_Diffusion/Signal_to_Noise_Ratio",
    "11_Gradient_Stats/Total_Gradient_Norm",
)


def batch_of(world_size: int, accumulation: int = 1) -> tuple[str, ...]:
    """Divide the global batch among processes and micro-batches."""
    size = GLOBAL_BATCH // (world_size * accumulation)
    return f"--batch-size={size}", f"--gradient-accumulation-steps={accumulation}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """One process with the same global batch."""
    return train(tmp_path_factory.mktemp("alone"), *OPTIONS, *batch_of(1), faults=[tell_steps])


def assert_same_stream(run: Path, other: Path) -> None:
    for tag in EQUAL_TAGS:
        expected, found = curve(other, tag), curve(run, tag)
        assert expected
        assert found == pytest.approx(expected, rel=LOSS_TOLERANCE), tag


@pytest.mark.parametrize(("world_size", "accumulation"), mostly_slow([(2, 1), (2, 2), (4, 1)]))
def test_several_processes_train_what_one_trains(
    tmp_path: Path, alone: Launch, world_size: int, accumulation: int
) -> None:
    faults = {rank: [tell_steps, tell_weights] for rank in range(world_size)}
    ranks = train_ranks(tmp_path, world_size, *OPTIONS, *batch_of(world_size, accumulation), faults=faults)
    assert_same_stream(ranks[0].run, alone.run)

    # The very clips of each step, every one with one process, in the order of the one process's batch.
    clips = [clips_of_steps(each) for each in ranks]
    for step, expected in clips_of_steps(alone).items():
        assert [of_rank[step] for of_rank in clips] == [expected[rank::world_size] for rank in range(world_size)]
    counts = [len(of_step) for of_step in clips_of_steps(alone).values()]
    assert any(count % world_size for count in counts)
    assert state_of(newest(ranks[0].run))["samples_seen"] == sum(counts)
    shown = Counter(clip for of_rank in clips for of_step in of_rank.values() for clip in of_step)
    assert set(shown.values()) == {1}

    # Every process has the same weights after every step, to the last bit.
    hashes = [re.findall(r"weights (\d+) (\w+)", each.said) for each in ranks]
    assert len(hashes[0]) == STEPS
    assert all(each == hashes[0] for each in hashes)

    # One dashboard, one checkpoint and one voice.
    assert len(list((tmp_path / "logs").glob("**/*tfevents*"))) == 1
    assert "Stopped at step 7" in ranks[0].said
    told = [re.sub(r"^(begins|done|weights) .*$", "", each.said, flags=re.MULTILINE).strip() for each in ranks[1:]]
    assert told == [""] * (world_size - 1)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_plain_gradient_descent_ends_with_the_same_weights(tmp_path: Path, world_size: int) -> None:
    faults, rate = [train_by_plain_gradient_descent], ("--learning-rate=0.5", "--lr-warmup-steps=0")
    one = train(tmp_path / "one", *OPTIONS, *rate, *batch_of(1), faults=faults)
    ranks = train_ranks(
        tmp_path / "several",
        world_size,
        *OPTIONS,
        *rate,
        *batch_of(world_size),
        faults=dict.fromkeys(range(world_size), faults),
    )
    assert largest_difference(newest(one.run), newest(ranks[0].run)) < WEIGHT_TOLERANCE
    start = train(tmp_path / "start", *OPTIONS, *batch_of(1), "--max-steps=1", "--learning-rate=1e-12", faults=faults)
    assert largest_difference(newest(one.run), newest(start.run)) > 100 * WEIGHT_TOLERANCE  # they have moved


@pytest.mark.slow
def test_gradients_travel_once_a_step_however_many_micro_batches_it_has(tmp_path: Path) -> None:
    faults = {0: [count_reductions], 1: [count_reductions]}
    counts = []
    for accumulation in (1, 2):
        options = (*batch_of(2, accumulation), "--max-steps=3")
        ranks = train_ranks(tmp_path / str(accumulation), 2, *OPTIONS, *options, faults=faults)
        # The first step of DDP may use other buckets than those that follow.
        counts.append([int(count) for count in re.findall(r"sent (\d+)", ranks[1].said)][1:])
    assert counts[0] == counts[1]
    assert min(counts[0]) > 0


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, alone: Launch) -> None:
    steps = []
    for world_size, last in ((2, 2), (1, 4), (4, STEPS)):
        options = (*OPTIONS, *batch_of(world_size), f"--max-steps={last}", *(["--resume"] if steps else []))
        if world_size == 1:
            launches = [train(tmp_path, *options, faults=[tell_steps])]
        else:
            faults = {rank: [tell_steps] for rank in range(world_size)}
            launches = train_ranks(tmp_path, world_size, *options, faults=faults)
        steps += steps_done(launches[0])
    assert steps == list(range(1, STEPS + 1))
    expected, found = curve(alone.run, "01_Training/Loss"), curve(launches[0].run, "01_Training/Loss")
    assert found == pytest.approx(expected, rel=LOSS_TOLERANCE)
    # AdamW divides by the size of a gradient, so what is rounding in the smallest ones is a whole step of the rate.
    rate = max(curve(alone.run, "01_Training/Learning_Rate").values())
    before, after = (tensors_of(newest(run)) for run in (alone.run, launches[0].run))
    far = sum(int(((before[name] - after[name]).abs() > 1e-3 * rate).sum()) for name in before if "model/" in name)
    assert far <= 1e-3 * sum(before[name].numel() for name in before if "model/" in name)


@pytest.mark.parametrize("killed", mostly_slow([1, 0]))
def test_the_others_end_with_a_message_when_one_is_killed(tmp_path: Path, killed: int) -> None:
    ranks = launch_ranks(tmp_path, 2, *OPTIONS, *batch_of(2), faults={killed: [functools.partial(kill_in_step, 5, 1)]})
    assert ranks[killed].end() == -signal.SIGKILL
    other = ranks[1 - killed]
    assert other.end() == 1
    assert "another process of this run has ended, so this one cannot go on (" in other.said
    assert "Traceback" not in other.said
    if killed == 1:  # the main process has all weights, and saves the steps since the last checkpoint
        assert "error: rank 0 on " in other.said
        assert "The last checkpoint is of step 4." in other.said
        assert state_of(newest(other.run))["step"] == 4


@pytest.mark.parametrize("world_size", mostly_slow([2, 4]))
def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path: Path, world_size: int) -> None:
    faults = {rank: [tell_steps] for rank in range(world_size)}
    ranks = launch_ranks(tmp_path, world_size, *OPTIONS, *batch_of(world_size), "--max-steps=100000", faults=faults)
    ranks[0].wait_for("done 4")
    ranks[-1].send(signal.SIGTERM)
    assert [each.end() for each in ranks] == [143] * world_size
    last = [steps_done(each)[-1] for each in ranks]
    assert len(set(last)) == 1
    assert state_of(newest(ranks[0].run))["step"] == last[0]
    assert f"Stopped at step {last[0]}: SIGTERM asked for it" in ranks[0].said


@pytest.mark.slow
def test_time_runs_out_for_all_at_once(tmp_path: Path) -> None:
    faults = {0: [tell_steps], 1: [tell_steps]}
    options = (*OPTIONS, *batch_of(2), "--max-steps=100000", "--max-minutes=0.02")
    ranks = train_ranks(tmp_path, 2, *options, faults=faults)
    assert steps_done(ranks[0]) == steps_done(ranks[1])
    assert "MAX_MINUTES (0.02, of each launch) is over" in ranks[0].said


@pytest.mark.slow
def test_all_get_the_plan_of_the_main_process(tmp_path: Path) -> None:
    faults = {0: [tell_steps], 1: [tell_steps]}
    options = (
        *OPTIONS,
        *batch_of(2),
        "--max-steps=none",
        "--max-minutes=0.05",
        "--lr-schedule=cosine",
        "--lr-warmup-steps=2",
    )
    ranks = train_ranks(tmp_path, 2, *options, faults=faults)
    assert steps_done(ranks[0]) == steps_done(ranks[1])
    assert "Step 2: MAX_MINUTES has room for " in ranks[0].said
    assert "has room" not in ranks[1].said
    assert state_of(newest(ranks[0].run))["schedule"]["planned_steps"] >= steps_done(ranks[0])[-1]


@pytest.mark.slow
@pytest.mark.parametrize("place", mostly_slow(["loss", "video", "gradient"]))
def test_what_one_process_cannot_compute_no_process_learns_from(tmp_path: Path, place: str) -> None:
    faults = {0: [tell_weights], 1: [tell_weights, functools.partial(poison, place, float("nan"), [3])]}
    ranks = train_ranks(tmp_path, 2, *OPTIONS, *batch_of(2), "--max-steps=4", faults=faults)
    of_steps = [dict(re.findall(r"weights (\d+) (\w+)", each.said)) for each in ranks]
    assert of_steps[0] == of_steps[1]
    assert of_steps[0]["2"] == of_steps[0]["3"] != of_steps[0]["4"]
    assert state_of(newest(ranks[0].run))["skipped_steps"] == 1
    # A loss tells whose it is; a gradient is everybody's, and the main process keeps its own clips.
    keeper = 0 if place == "gradient" else 1
    assert ["was skipped" in each.said for each in ranks] == [rank == keeper for rank in (0, 1)]
    kept = json.loads((ranks[0].run / "skipped_steps" / "step_00000003" / "step.json").read_text())
    assert (kept["rank"], kept["world_size"]) == (keeper, 2)
    assert "It would be skipped again." not in replay(ranks[0].run, 3, "cpu")  # no fault was in what is kept


@pytest.mark.parametrize("option", mostly_slow(["--learning-rate=0.01", "--validate-every-steps=100000", "--resume"]))
def test_processes_that_are_not_set_alike_do_not_train(tmp_path: Path, option: str) -> None:
    faults = {1: [functools.partial(add_option, option)]}
    ranks = launch_ranks(tmp_path, 2, *OPTIONS, *batch_of(2), faults=faults)
    assert [each.end() for each in ranks] == [1, 1]
    said = "".join(each.said for each in ranks)
    assert said.count("error: ") == 1
    name = option.removeprefix("--").split("=")[0].replace("-", "_").upper()
    assert f"not set alike: {'--resume' if option == '--resume' else name} is " in said
    assert not ranks[0].run.exists()


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2])
def test_a_signal_while_building_is_no_failure(tmp_path: Path, world_size: int) -> None:
    faults = {0: [functools.partial(never_end, "building the view")]}
    ranks = launch_ranks(tmp_path, world_size, *OPTIONS, *batch_of(world_size), "--enable-video-logging", faults=faults)
    ranks[0].wait_for("in building the view")
    for each in ranks:
        each.send(signal.SIGTERM)
    assert [each.end() for each in ranks] == [143] * world_size
    assert "error: " not in "".join(each.said for each in ranks)


def test_processes_that_see_other_clips_do_not_train(tmp_path: Path) -> None:
    ranks = launch_ranks(tmp_path, 2, *OPTIONS, *batch_of(2), faults={1: [see_other_clips]})
    assert [each.end() for each in ranks] == [1, 1]
    said = "".join(each.said for each in ranks)
    assert said.count("error: ") == 1  # they all know it, and one says it
    assert "do not see the same clips: rank 0 has 24 to train on, rank 1 24. DATA_ROOT must be" in said
    assert not ranks[0].run.exists()


@pytest.mark.parametrize("option", mostly_slow(["--batch-size=0", "--max-caption-length=1"]))
def test_what_all_processes_find_wrong_is_said_once(tmp_path: Path, option: str) -> None:
    ranks = launch_ranks(tmp_path, 2, *OPTIONS, *batch_of(2), option)
    assert [each.end() for each in ranks] == [1, 1]
    assert "".join(each.said for each in ranks).count("error: ") == 1


@pytest.mark.slow
def test_the_slowest_process_is_named(tmp_path: Path) -> None:
    seconds = {0: 0.25, 1: 0.25, 2: 1.0}
    faults = {rank: [functools.partial(work_by_a_held_clock, each)] for rank, each in seconds.items()}
    ranks = train_ranks(tmp_path, 3, *OPTIONS, "--batch-size=2", "--max-steps=4", faults=faults)
    names = ("Slowest_Rank", "Rank_Seconds_Slowest", "Rank_Seconds_Fastest", "Rank_Spread_Percent")
    curves = [curve(ranks[0].run, f"05_Performance/{name}") for name in names]
    for step in range(1, 5):
        rank, slowest, fastest, spread = (each[step] for each in curves)
        assert rank == 2
        assert (slowest, fastest) == (1.0, 0.25)
        assert spread > 30


@pytest.mark.slow
def test_processes_that_torchrun_starts_anew_go_on_with_their_run(tmp_path: Path, alone: Launch) -> None:
    """Without --resume and with an automatic name: another run of the folder, newer by then, is none of theirs."""
    store, options = new_store(), (*OPTIONS, *batch_of(2), "--experiment-name=auto")
    kill = functools.partial(kill_in_step, 5, 1)
    first = launch_ranks(tmp_path, 2, *options, faults={1: [kill]}, store=store)
    assert [each.end() for each in first] == [1, -signal.SIGKILL]
    [run] = (tmp_path / "logs").iterdir()
    train(tmp_path, *OPTIONS, "--experiment-name=other", "--max-steps=1")
    again = train_ranks(tmp_path, 2, *options, store=store)
    assert f"Run: {run}" in again[0].said
    assert "Going on from step 4" in again[0].said
    assert curve(run, "01_Training/Loss") == pytest.approx(curve(alone.run, "01_Training/Loss"), rel=LOSS_TOLERANCE)
    assert {each.name for each in (tmp_path / "logs").iterdir()} == {run.name, "other"}
