"""Several processes whose network is compiled train what they train without a compiler."""

import re
from pathlib import Path

import pytest

from tests.reliability.faults import count_reductions, tell_graphs
from tests.reliability.launch import Launch, launch_ranks
from tests.reliability.read_back import curve

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

OPTIONS = (
    "--epoch-size=16",
    "--max-steps=4",
    "--batch-size=2",
    "--gradient-accumulation-steps=2",
    "--mixed-precision=off",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
)
TOLERANCE = 1e-4  # of one number: the compiler adds up in another order
COMPILING_SECONDS = 900.0


def train(folder: Path, *options: str) -> list[Launch]:
    faults = {rank: [count_reductions, tell_graphs] for rank in range(2)}
    ranks = launch_ranks(folder, 2, *OPTIONS, *options, faults=faults)
    assert [each.end(COMPILING_SECONDS) for each in ranks] == [0, 0], "\n".join(each.said for each in ranks)
    return ranks


def graphs(launch: Launch) -> list[int]:
    """Return how many graphs were compiled by the end of each step."""
    return [int(count) for count in re.findall(r"graphs (\d+)", launch.said)]


def sent(launch: Launch) -> list[int]:
    """Return how many buckets of gradients travelled in each step but the first, whose buckets DDP may change."""
    return [int(count) for count in re.findall(r"sent (\d+)", launch.said)][1:]


def test_compiled_processes_train_as_others_do_and_send_gradients_once_a_step(tmp_path: Path) -> None:
    eager, compiled = train(tmp_path / "eager"), train(tmp_path / "compiled", "--compile-model")
    for tag in ("01_Training/Loss", "01_Training/Gradient_Norm"):
        expected = curve(eager[0].run, tag)
        assert len(expected) == 4
        assert curve(compiled[0].run, tag) == pytest.approx(expected, rel=TOLERANCE), tag
    for before, after in zip(eager, compiled, strict=True):
        assert sent(before) == sent(after) == [1] * 3  # so small a network is one bucket
        assert graphs(before) == [0] * 4
        assert graphs(after)[0] > 0
        assert len(set(graphs(after)[1:])) == 1  # what happens within a step and at its end is known by the second one
