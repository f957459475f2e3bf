"""A trained network as benchmarks.sampling uses it: from noise to clips, and from noised real clips back to clean."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from common.randomness import torch_generator
from compute.device import ComputeDevice, DeviceName
from config import Config
from data.batches import load_batch
from data.build import build_data
from data.records import Batch
from diffusion.guidance import Guidance
from diffusion.prediction import add_noise, predicted_video
from diffusion.samplers import SamplerName
from diffusion.schedule import NoiseSchedule
from models.tokens import Tokenizer
from models.unet3d import TextToVideoModel
from sampling.sampler import ClipSampler, SamplingSettings
from sampling.trained_run import SamplingRequest, open_trained_run

START_SHARE = 0.8  # of the timesteps: how far real clips are noised before the samplers clean them again
NO_GUIDANCE = Guidance(1.0)


@dataclass(frozen=True)
class Cell:
    """One way to sample."""

    sampler: SamplerName
    steps: int

    def __str__(self) -> str:
        return f"{self.sampler}, {self.steps} steps"


@dataclass(frozen=True)
class SampledRun:
    """The averaged weights of a run's newest checkpoint, with held-out clips of its data."""

    config: Config
    model: TextToVideoModel  # in evaluation mode
    tokenizer: Tokenizer
    settings: SamplingSettings  # what the run's own config says about sampling
    clips: Batch
    compute: ComputeDevice
    step: int  # of the checkpoint

    @property
    def default(self) -> Cell:
        return Cell(self.settings.sampler, self.settings.num_steps)

    @property
    def start_timestep(self) -> int:
        """The timestep that real clips are noised to."""
        return int(START_SHARE * self.settings.schedule.num_timesteps) - 1

    def generate(self, cell: Cell, guidance: Guidance, first: int, count: int) -> Tensor:
        """Sample clips from pure noise: [count, 3, T, H, W] float32 on the CPU.

        Clip number `first` and those after it have noises of their own, and the captions of the held-out clips in turn.
        """
        settings = replace(self.settings, sampler=cell.sampler, num_steps=cell.steps, guidance=guidance)
        sampler = ClipSampler(settings, self.tokenizer, self.compute)
        captions = [self.clips.captions[index] for index in self.real_indices(first, count)]
        noise = torch.stack([sampler.initial_noise(0, index) for index in range(first, first + count)])
        return sampler.sample(self.model, captions, noise, seed=first)

    def real_indices(self, first: int, count: int) -> list[int]:
        """Return which held-out clips have the captions of the generated ones."""
        return [index % len(self.clips.captions) for index in range(first, first + count)]

    def noised(self, timestep: int) -> Tensor:
        """Return the held-out clips, noised to a timestep with noise that depends on nothing: [B, 3, T, H, W]."""
        video = self.clips.video_BCTHW
        noise = torch.randn(video.shape, generator=torch_generator(0, "benchmark_noise"))
        timestep_B = torch.full((video.shape[0],), timestep, dtype=torch.int64)
        schedule = self.settings.schedule.to("cpu")
        return add_noise(schedule, self.settings.prediction_type, video, noise, timestep_B).noisy_video

    def denoise(self, cell: Cell, guidance: Guidance) -> Tensor:
        """Take the held-out clips from `start_timestep` to clean, with their captions: [B, 3, T, H, W] on the CPU.

        The schedule is cut off after that timestep, so that a sampler spreads its steps over what is left of it.
        """
        full = self.settings.schedule
        schedule = truncated(full, self.start_timestep + 1)
        settings = replace(
            self.settings,
            schedule=schedule,
            sampler=cell.sampler,
            num_steps=cell.steps,
            guidance=_on_truncated(guidance, (full.num_timesteps - 1) / (schedule.num_timesteps - 1)),
        )
        sampler, size = ClipSampler(settings, self.tokenizer, self.compute), self.config.BATCH_SIZE
        noisy = self.noised(self.start_timestep)
        return torch.cat(
            [
                sampler.sample(
                    self.model, self.clips.captions[start : start + size], noisy[start : start + size], start
                )
                for start in range(0, noisy.shape[0], size)
            ]
        )

    @torch.no_grad()
    def estimate(self, timestep: int) -> Tensor:
        """Return the network's one-shot clean estimate of the held-out clips, noised to a timestep, clipped."""
        device, parts = self.compute.device, []
        noisy_BCTHW, tokens_BL = self.noised(timestep), self.clips.tokens_BL
        for noisy, tokens in zip(
            *(t.to(device).split(self.config.BATCH_SIZE) for t in (noisy_BCTHW, tokens_BL)), strict=True
        ):
            timestep_B = torch.full((noisy.shape[0],), timestep, dtype=torch.int64, device=device)
            with self.compute.autocast():
                prediction = self.model(noisy, timestep_B, tokens, torch.zeros_like(timestep_B, dtype=torch.bool))
            settings = self.settings
            video = predicted_video(settings.schedule, settings.prediction_type, prediction, noisy, timestep_B)
            parts.append(video.clamp(-1, 1).cpu())
        return torch.cat(parts)


def open_run(folder: Path, device: DeviceName, held_out_clips: int) -> SampledRun:
    """Load a run, with as many of its held-out clips as asked for, or all where it has fewer.

    Raises:
        UserError: no such run, no usable checkpoint, or its data has gone.
    """
    run = open_trained_run(SamplingRequest(run=folder, device=device))
    validation = build_data(run.config).validation
    rows = [validation.row(0, index) for index in range(min(held_out_clips, len(validation)))]
    return SampledRun(
        config=run.config,
        model=run.model,
        tokenizer=run.tokenizer,
        settings=run.sampler.settings,
        clips=load_batch(validation, rows, run.tokenizer),
        compute=run.compute,
        step=run.step,
    )


def truncated(schedule: NoiseSchedule, timesteps: int) -> NoiseSchedule:
    """Return the first, less noisy timesteps of a schedule; each keeps its number and its noise."""
    return replace(
        schedule,
        alphas_cumprod=schedule.alphas_cumprod[:timesteps],
        has_zero_terminal_snr=schedule.alphas_cumprod[timesteps - 1] == 0,
        betas_N=schedule.betas_N[:timesteps],
        alphas_cumprod_N=schedule.alphas_cumprod_N[:timesteps],
        sqrt_alphas_cumprod_N=schedule.sqrt_alphas_cumprod_N[:timesteps],
        sqrt_one_minus_alphas_cumprod_N=schedule.sqrt_one_minus_alphas_cumprod_N[:timesteps],
    )


def _on_truncated(guidance: Guidance, stretch: float) -> Guidance:
    """Keep the timesteps that guidance acts in, which it counts as a share of the schedule's."""
    low, high = (min(1.0, bound * stretch) for bound in guidance.interval)
    return replace(guidance, interval=(low, high))
