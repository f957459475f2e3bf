"""The sampling benchmark runs, and its errors are those of networks whose answers are known."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import get_args

import pytest
import torch

from benchmarks import sampling
from benchmarks.sampling import CLIPS_AT_ONCE, Cell, SampledRun, open_run
from diffusion.samplers import SamplerName


@pytest.fixture(scope="module")
def trained(finished_run: Path) -> SampledRun:
    return open_run(finished_run, "cpu", held_out_clips=3)


@pytest.mark.slow
def test_a_small_measurement_from_end_to_end(finished_run, trained, tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["--quick", f"--run={finished_run}", f"--json={path}", "--device=cpu"]
    assert sampling.main(arguments) == 0
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.splitlines()[0] == figures["machine"]
    cells = [
        {"sampler": sampler, "steps": steps, "is_guided": True} for sampler in get_args(SamplerName) for steps in (2, 4)
    ]
    cells.append({"sampler": "dpm_solver++", "steps": 4, "is_guided": False})
    assert [generation["cell"] for generation in figures["generations"]] == cells
    default = next(found for found in figures["generations"] if found["cell"] == cells[-1] | {"is_guided": True})
    for generation in figures["generations"]:
        assert len(generation["seconds"]) == 2
        assert min(generation["seconds"]) > 0
        ratios = [mine / own for mine, own in zip(generation["seconds"], default["seconds"], strict=True)]
        sampler, steps = generation["cell"]["sampler"], generation["cell"]["steps"]
        # Heun's corrects each step but the last, and the first, which leaves pure noise.
        calls = {2: 2, 4: 6}[steps] if sampler == "heun" else steps
        guided = "yes" if generation["cell"]["is_guided"] else "no"
        (row,) = [
            line for line in printed.splitlines() if line.startswith(f"| {sampler} | {steps} | {guided} | {calls} |")
        ]
        assert f"| {1000 * statistics.median(generation['seconds']):.0f} (" in row
        assert f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |" in row
    precision = "float32" if trained.trained.compute.autocast_dtype is None else "bfloat16"
    assert f", {precision}, 2 clips at once, 2 alternations." in printed


@pytest.mark.slow
def test_generated_clips_have_captions_in_turn_and_noises_of_their_own(trained):
    unguided = dataclasses.replace(trained.default, is_guided=False)
    together = trained.generate(unguided, 0, 2)
    other = trained.generate(unguided, 3, 1)  # three captions: the first one again
    assert trained.default == Cell("dpm_solver++", 4)
    assert trained.real_indices(0, 2 * CLIPS_AT_ONCE) == [0, 1, 2, 0]
    torch.testing.assert_close(together[:1], trained.generate(unguided, 0, 1), atol=1e-3, rtol=0)
    assert (other[0] - together[0]).abs().mean() > 0.05


@pytest.mark.slow
def test_what_cannot_be_measured_is_an_error_that_says_what_to_do(finished_run, tmp_path, capsys):
    assert sampling.main([f"--run={tmp_path / 'none'}"]) == 1
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--steps=0", "--alternations=0", "--json=/none/x.json", "--device=x"])
def test_bad_options_end_with_the_usage(option, capsys):
    with pytest.raises(SystemExit) as ended:
        sampling.main(["--run=x", option])
    assert ended.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err
