"""What the counter of operators counts, and what the network may take."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.operators import _backward, _Counter, count_pass, main
from config import PRESETS, Config

pytestmark = pytest.mark.usefixtures("cuda_can_be_named")


def test_operators_and_bytes_of_a_matrix_product() -> None:
    x, weight = torch.ones(3, 5), torch.ones(5, 7, dtype=torch.bfloat16)
    with _Counter() as counter:
        x.t().t().mm(weight.float())
    assert counter.operators == {"_to_copy": 1, "mm": 1}
    assert counter.bytes == {"_to_copy": 35 * (2 + 4), "mm": 4 * (15 + 35 + 21)}


def test_the_backward_pass_is_that_of_autograd() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2, bias=False), nn.LayerNorm(2))
    result = network(torch.ones(5, 3)).square().mean()
    with _Counter() as expected:
        result.backward(retain_graph=True)
    with _Counter() as actual:
        _backward(result)
    assert actual.operators == expected.operators


def test_tiny_stays_in_channels_last_and_needs_few_operators() -> None:
    count = count_pass(Config())
    assert count.operators["copy of layout"] <= 2  # of the gradients that the mean square and the filter give
    assert count.operators.total() <= 880
    assert count.traffic <= 1.75e9
    assert count.activation_bytes <= 0.24e9


@pytest.mark.slow
def test_base_has_the_figures_that_its_documentation_names() -> None:
    count = count_pass(Config(**PRESETS["base"]))
    assert count.operators.total() <= 1_600
    assert count.traffic <= 120e9
    assert count.activation_bytes <= 22e9


def test_the_command_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "--image-size=16",
        "--patch-size=2",
        "--max-frames=8",
        "--model-channels=32,64",
        "--spatial-attention-sizes=4",
    ]
    assert main([*small, "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert sum(figures["times"].values()) == figures["operators"] > 100
    assert f"{figures['operators']:,} operators" in capsys.readouterr().out
