"""The sampling benchmark runs, and its errors are those of networks whose answers are known."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from benchmarks import sampling
from benchmarks.sampling_measures import CLIPS_AT_ONCE, Denoising, Generation, measure_denoising, measure_one_shot
from benchmarks.sampling_plot import plot_sampling
from benchmarks.sampling_run import NO_GUIDANCE, Cell, SampledRun, open_run, truncated
from benchmarks.spread import spread_of
from diffusion.guidance import Guidance
from diffusion.samplers import SamplerName
from diffusion.schedule import build_noise_schedule


@pytest.fixture(scope="module")
def trained(finished_run: Path) -> SampledRun:
    return open_run(finished_run, "cpu", held_out_clips=3)


class Oracle(nn.Module):
    """Knows the clip behind every noisy one, and says the velocity; notes what it is asked."""

    def __init__(self, run: SampledRun) -> None:
        super().__init__()
        self.real_of_tokens = dict(zip(map(str, run.clips.tokens_BL.tolist()), run.clips.video_BCTHW, strict=True))
        self.schedule = run.settings.schedule
        self.asked: list[tuple[int, int]] = []

    def forward(self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        self.asked.append((int(timestep_B[0]), len(timestep_B)))
        width = max(map(len, map(json.loads, self.real_of_tokens)))
        padded = nn.functional.pad(tokens_BL, (0, width - tokens_BL.shape[1])).tolist()
        real = torch.stack([self.real_of_tokens[str(row)] for row in padded])
        signal = self.schedule.sqrt_alphas_cumprod_N[timestep_B].view(-1, 1, 1, 1, 1)
        noise = self.schedule.sqrt_one_minus_alphas_cumprod_N[timestep_B].view(-1, 1, 1, 1, 1)
        return signal * (video_BCTHW - signal * real) / noise - noise * real


def test_a_small_measurement_from_end_to_end(finished_run, trained, tmp_path, capsys):
    path, picture = tmp_path / "figures.json", tmp_path / "figures.png"
    arguments = ["--quick", f"--run={finished_run}", f"--json={path}", f"--plot={picture}", "--device=cpu"]
    assert sampling.main(arguments) == 0
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.splitlines()[0] == figures["machine"]
    cells = [{"sampler": sampler, "steps": steps} for sampler in get_args(SamplerName) for steps in (2, 4)]
    assert [generation["cell"] for generation in figures["generations"]] == cells
    assert [denoising["cell"] for denoising in figures["denoisings"]] == cells
    default = figures["generations"][cells.index({"sampler": "dpm_solver++", "steps": 4})]
    for generation in figures["generations"]:
        assert len(generation["seconds"]) == 2
        assert min(generation["seconds"]) > 0
        ratios = [mine / own for mine, own in zip(generation["seconds"], default["seconds"], strict=True)]
        assert generation["ratio_to_default"]["median"] == pytest.approx(statistics.median(ratios))
        assert generation["ratio_to_default"]["largest"] == pytest.approx(max(ratios))
        assert generation["seconds_spread"]["median"] == pytest.approx(statistics.median(generation["seconds"]))
        sampler, steps = generation["cell"]["sampler"], generation["cell"]["steps"]
        # Heun's corrects each step but the last, and the first, which leaves pure noise.
        calls = {2: 2, 4: 6}[steps] if sampler == "heun" else steps
        row = f"| {sampler} | {steps} | {calls} | "
        assert f"{row}{1000 * generation['seconds_spread']['median']:.0f} (" in printed
    assert default["ratio_to_default"] == {"median": 1, "smallest": 1, "largest": 1, "repeats": 2}
    assert [estimate["timestep"] for estimate in figures["one_shot"]] == [62, 187, 312, 437, 562, 687, 812, 937, 799]
    assert f"{figures['guidance']['ratio']['median']:.2f} (" in printed
    precision = "float32" if trained.compute.autocast_dtype is None else "bfloat16"
    assert f", {precision}, 2 clips at once, 2 alternations." in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_picture_shows_the_errors_of_what_was_timed_and_names_the_guidance(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "benchmarks.sampling_plot.Axes.plot", lambda axes, x, y, **options: drawn.append((x, y, options["marker"]))
    )
    monkeypatch.setattr("benchmarks.sampling_plot.Axes.legend", lambda axes: None)
    cell, seconds = Cell("heun", 4), spread_of([2.0])
    generation = Generation(cell, 6, (2.0,), seconds, spread_of([1.0]), 0.9, 0.8)
    path = tmp_path / "curves.svg"
    plot_sampling([generation], [Denoising(cell, 0.125, 0.25, 0.0)], cell, 3.0, path)
    assert [entry for entry in drawn if entry[0]] == [
        ([2.0], [0.8], "."),
        ([2.0], [0.8], "*"),
        ([2.0], [0.25], "."),
        ([2.0], [0.25], "*"),
    ]
    text = path.read_text()
    for label in ("seconds a clip with guidance 3", "x0 mean squared error, from noised real clips"):
        assert label in text


def test_with_a_network_that_knows_the_clips_every_sampler_gives_them_back(trained):
    run = dataclasses.replace(trained, model=Oracle(trained).eval())
    cells = [Cell(sampler, 3) for sampler in get_args(SamplerName)]
    for denoising in measure_denoising(run, cells):
        assert denoising.x0_mse == pytest.approx(0, abs=1e-6)
        assert denoising.x0_mse_guided == pytest.approx(0, abs=1e-6)
        assert denoising.distance_to_reference == pytest.approx(0, abs=1e-6)
    assert [estimate.x0_mse for estimate in measure_one_shot(run)] == pytest.approx([0] * 9, abs=1e-6)
    asked = [timestep for timestep, _ in run.model.asked]
    assert max(asked[: asked.index(62)]) == 799  # nothing noisier, up to the one-shot estimates


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_one_step_is_the_one_shot_estimate(trained, sampler):
    denoised = trained.denoise(Cell(sampler, 1), NO_GUIDANCE)
    torch.testing.assert_close(denoised, trained.estimate(trained.start_timestep))
    assert (denoised - trained.clips.video_BCTHW).abs().mean() > 0.01  # this network knows nothing


def test_guidance_acts_at_the_timesteps_that_the_run_says_also_on_the_rest_of_the_schedule(trained):
    run = dataclasses.replace(trained, model=Oracle(trained).eval())
    run.denoise(Cell("ddim", 8), Guidance(3.0, interval=(0.25, 0.6)))  # of 999: 250 to 599
    guided = {timestep for timestep, size in run.model.asked if size == 6}
    assert {timestep for timestep, _ in run.model.asked} == {99, 199, 299, 399, 499, 599, 699, 799}
    assert guided == {299, 399, 499, 599}


def test_generated_clips_have_captions_in_turn_and_noises_of_their_own(trained):
    together = trained.generate(trained.default, NO_GUIDANCE, 0, 2)
    other = trained.generate(trained.default, NO_GUIDANCE, 3, 1)  # three captions: the first one again
    assert trained.real_indices(0, 2 * CLIPS_AT_ONCE) == [0, 1, 2, 0]
    torch.testing.assert_close(together[:1], trained.generate(trained.default, NO_GUIDANCE, 0, 1), atol=1e-3, rtol=0)
    assert (other - together[:1]).abs().mean() > 0.05


def test_a_truncated_schedule_keeps_number_and_noise_of_its_timesteps():
    full = build_noise_schedule("cosine", num_timesteps=100, zero_terminal_snr=True)
    part = truncated(full, 80)
    assert part.num_timesteps == len(part.betas_N) == len(part.sqrt_alphas_cumprod_N) == 80
    assert part.alphas_cumprod[79] == full.alphas_cumprod[79]
    assert torch.equal(part.sqrt_one_minus_alphas_cumprod_N, full.sqrt_one_minus_alphas_cumprod_N[:80])
    assert full.has_zero_terminal_snr
    assert not part.has_zero_terminal_snr


def test_what_cannot_be_measured_is_an_error_that_says_what_to_do(finished_run, tmp_path, capsys):
    assert sampling.main([]) == 1
    assert "train one with `python main.py" in capsys.readouterr().err
    assert sampling.main([f"--run={tmp_path / 'none'}"]) == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert sampling.main([f"--run={finished_run}", "--steps", "4", "801"]) == 1
    assert "--steps 801: at most 800" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--steps=0", "--alternations=0", "--clips=none", "--json=/none/x.json", "--plot=x"])
def test_bad_options_end_with_the_usage(option, capsys):
    with pytest.raises(SystemExit) as ended:
        sampling.main([option])
    assert ended.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err
