"""PARALLELISM fsdp: real processes with parts of the model train, log and save what processes with all of it do."""

import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from checkpoints.checkpoint import list_checkpoints, read_checkpoint
from checkpoints.consolidate import consolidate
from tests.reliability.faults import kill_in_step, poison, tell_steps
from tests.reliability.launch import Launch, end_all, launch_ranks, train, train_ranks
from tests.reliability.read_back import curve, newest, state_of, steps_done
from tests.reliability.sharded_faults import fill_the_disk_under_shards, kill_after_its_shard
from training.replay import replay

pytestmark = pytest.mark.distributed

OPTIONS = (
    "--epoch-size=24",
    "--batch-size=2",
    "--max-steps=4",
    "--save-every-steps=2",
    "--validate-every-steps=2",
    "--diagnostic-log-every-steps=3",
    "--mixed-precision=off",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
)
FSDP, SHARDED = "--parallelism=fsdp", "--checkpoint-layout=sharded"
SHARDS = ["manifest.json", *(f"shard-0000{n}-model-00001-of-00001.safetensors" for n in (1, 2)), "state.json"]
WHOLE = ["ema.safetensors", "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
# The same numbers in other memory layouts, and gradients added in another order: rounding of float32, 6e-8 of the
# largest of a sum's terms. A few steps of AdamW make it more where a gradient is next to nothing.
WEIGHT_TOLERANCE = 1e-6
VALUE_TOLERANCE = 1e-5  # of losses and statistics, or
SMALL = 1e-6  # of differences between losses, such as Text_Gap
FOLLOWS_THE_CLOCK = ("05_Performance", "14_System", "03_Epoch_Summary/Epoch_Time")


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> None:
    yield
    end_all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Launch]:
    """Train with two processes, once for each set of options."""

    @functools.cache
    def make(*more: str) -> Launch:
        return train_ranks(tmp_path_factory.mktemp("run"), 2, *OPTIONS, *more)[0]

    return make


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(newest(run))
    return {f"{name}/{key}": tensor for name in ("model", "ema", "optimizer") for key, tensor in
            checkpoint.weights(name).items()}  # fmt: skip


def largest_difference(first: Path, second: Path) -> float:
    one, other = tensors_of(first), tensors_of(second)
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def points_of(run: Path) -> dict[tuple[str, int], float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        (line["tag"], line["step"]): line["value"] for line in lines if not line["tag"].startswith(FOLLOWS_THE_CLOCK)
    }


ACCUMULATE = ("--batch-size=1", "--gradient-accumulation-steps=2")
WITH_VIDEOS = ("--sample-every-steps=3", "--enable-video-logging", "--enable-noise-visualization")


@pytest.mark.slow
@pytest.mark.parametrize("more", [WITH_VIDEOS, pytest.param(ACCUMULATE, marks=pytest.mark.slow)])
def test_it_trains_logs_and_saves_what_ddp_does(trained: Callable[..., Launch], more: tuple[str, ...]) -> None:
    ddp, fsdp = trained(*more).run, trained(*more, FSDP).run
    assert largest_difference(ddp, fsdp) < WEIGHT_TOLERANCE
    assert sorted(file.name for file in newest(fsdp).iterdir()) == WHOLE
    expected, found = points_of(ddp), points_of(fsdp)
    assert {tag.split("/")[0][:2] for tag, _ in found} >= {"01", "02", "03", "06", "08", "09", "11"}
    assert found == pytest.approx(expected, rel=VALUE_TOLERANCE, abs=SMALL, nan_ok=True)
    videos = [sorted(file.name for file in (run / "samples").rglob("*.mp4")) for run in (ddp, fsdp)]
    assert videos[0] == videos[1]
    assert bool(videos[1]) == (more == WITH_VIDEOS)


@pytest.mark.slow
def test_parts_hold_what_the_whole_holds_and_become_it(trained: Callable[..., Launch]) -> None:
    whole, sharded = trained(*WITH_VIDEOS, FSDP).run, trained(*WITH_VIDEOS, FSDP, SHARDED).run
    parts = newest(sharded)
    assert sorted(file.name for file in parts.iterdir()) == SHARDS
    assert largest_difference(whole, sharded) == 0
    assert consolidate(sharded, "2").endswith("whole files now")
    folder = list_checkpoints(sharded / "checkpoints")[1]
    assert sorted(file.name for file in folder.iterdir()) == WHOLE
    for name in ("model", "ema", "optimizer"):
        written = (whole / "checkpoints" / folder.name / f"{name}.safetensors").read_bytes()
        assert (folder / f"{name}.safetensors").read_bytes() == written
    assert newest(sharded) == parts  # the one after it is as it was
    assert consolidate(sharded, "2").endswith("whole files already")


@pytest.mark.slow
def test_a_killed_run_goes_on_with_any_number_of_processes_and_either_parallelism(
    tmp_path: Path, trained: Callable[..., Launch]
) -> None:
    kill = functools.partial(kill_in_step, 4, 1)
    ranks = launch_ranks(tmp_path, 2, *OPTIONS, FSDP, SHARDED, faults={1: [kill]})
    assert ranks[1].end() == -signal.SIGKILL
    assert ranks[0].end() == 1
    assert "another process of this run has ended" in ranks[0].said
    assert "The last checkpoint is of step 2." in ranks[0].said  # what the other one had is lost with it
    assert "Traceback" not in ranks[0].said
    run = ranks[0].run
    assert [folder.name for folder in list_checkpoints(run / "checkpoints")] == ["step_00000002"]

    again = ("--resume", "--save-every-steps=1")
    train(tmp_path, *OPTIONS, *again, "--batch-size=4", "--max-steps=3")
    assert sorted(file.name for file in newest(run).iterdir()) == WHOLE
    four = train_ranks(tmp_path, 4, *OPTIONS, *again, FSDP, SHARDED, "--batch-size=1")
    assert "Going on from step 3" in four[0].said
    assert "and took" not in four[0].said  # as many clips a step as before
    undisturbed = trained(*WITH_VIDEOS).run
    assert largest_difference(undisturbed, run) < WEIGHT_TOLERANCE
    tag = "01_Training/Loss"
    assert curve(run, tag) == pytest.approx(curve(undisturbed, tag), rel=VALUE_TOLERANCE)
    assert state_of(newest(run))["world_size"] == 4


@pytest.mark.slow
def test_no_process_waits_for_one_whose_disk_is_full(tmp_path: Path) -> None:
    fault = functools.partial(fill_the_disk_under_shards, [1, 3])
    ranks = launch_ranks(
        tmp_path, 2, *OPTIONS, FSDP, SHARDED, "--save-every-steps=1", "--max-steps=3", faults={1: [fault]}
    )
    assert [each.end() for each in ranks] == [1, 1]
    failure = "the checkpoint of step {} cannot be written: rank 1: [Errno 28] No space left on device"
    assert f"warning: {failure.format(1)}; training goes on" in ranks[0].said
    said = "".join(each.said for each in ranks)
    assert said.count("error: ") == 1  # both know it, and one says it
    assert f"{failure.format(3)}. The last checkpoint is of step 2." in said
    checkpoints = ranks[0].run / "checkpoints"
    assert sorted(each.name for each in checkpoints.iterdir()) == ["LATEST", "step_00000002"]


@pytest.mark.slow
def test_a_kill_while_parts_are_written_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    fault = functools.partial(kill_after_its_shard, 2)
    ranks = launch_ranks(
        tmp_path, 2, *OPTIONS, FSDP, SHARDED, "--save-every-steps=1", "--max-steps=3", faults={0: [fault]}
    )
    assert [each.end() for each in ranks] == [-signal.SIGKILL, 1]
    run = ranks[0].run
    assert [each.name for each in list_checkpoints(run / "checkpoints")] == ["step_00000001"]
    assert read_checkpoint(newest(run)).state.step == 1


@pytest.mark.slow
def test_a_signal_to_one_ends_all_with_a_checkpoint_of_the_same_step(tmp_path: Path) -> None:
    options = (*OPTIONS, FSDP, SHARDED, "--max-steps=100000", "--save-every-steps=100000")
    ranks = launch_ranks(tmp_path, 2, *options, faults={0: [tell_steps], 1: [tell_steps]})
    ranks[0].wait_for("done 3")
    ranks[1].send(signal.SIGTERM)
    assert [each.end() for each in ranks] == [143, 143]
    last = steps_done(ranks[0])[-1]
    assert steps_done(ranks[1])[-1] == last
    assert read_checkpoint(newest(ranks[0].run)).state.step == last


@pytest.mark.slow
def test_a_skipped_step_is_replayed_with_the_weights_of_the_checkpoint_before(tmp_path: Path) -> None:
    fault = functools.partial(poison, "video", float("nan"), [1, 3])
    ranks = train_ranks(tmp_path, 2, *OPTIONS, FSDP, SHARDED, faults={1: [fault]})
    run = ranks[0].run
    assert sorted(each.name for each in (run / "skipped_steps" / "step_00000003").iterdir()) == [
        "batch.safetensors",
        "step.json",
    ]
    lines = "\n".join(replay(run, 3, "cpu"))
    assert f"These are the weights of {run / 'checkpoints' / 'step_00000002'}." in lines
    assert "It would be skipped again." not in lines  # the fault was not in the clips
    assert "these are the weights that SEED starts with" in "\n".join(replay(run, 1, "cpu"))


def test_one_process_alone_is_told_that_it_saves_no_memory(tmp_path: Path) -> None:
    refused = train(tmp_path, *OPTIONS, FSDP, exit_code=1)
    assert "error: PARALLELISM is 'fsdp', which divides the model over several processes" in refused.said
    assert not refused.run.exists()
