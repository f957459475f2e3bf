"""What validation hands on, against a network that knows the captions of training clips alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from compute.device import ComputeDevice
from data.records import ClipRow, FixedClips
from diffusion.loss import DiffusionObjective
from diffusion.schedule import build_noise_schedule
from distributed.processes import Processes
from logging_system.records import ValidationRecord
from measures.text_use import GaugeClips
from models.text_encoder import START_SECONDS, CharacterEncoder
from training.validation import Validator, gauge_clips, median_error

CPU = ComputeDevice(torch.device("cpu"), autocast_dtype=None)
SCHEDULE = build_noise_schedule("cosine", num_timesteps=80, zero_terminal_snr=True)
TRAINED_TOKENS = torch.arange(2, 10)[:, None]
HELD_OUT_TOKENS = torch.arange(20, 28)[:, None]


class KnowsTrainedCaptions(nn.Module):
    """Predicts the clean clip, whose pixels are its token / 10, for tokens below 20, and 0 for others."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = CharacterEncoder(30, 8, 1, 1)  # which expects START_SECONDS of each character at first

    def forward(self, noisy: Tensor, timestep: Tensor, tokens: Tensor, drop: Tensor) -> Tensor:
        clean = (tokens[:, 0] / 10.0) * (tokens[:, 0] < 20) * ~drop
        return clean[:, None, None, None, None].expand_as(noisy)


def fixed(tokens: Tensor) -> FixedClips:
    """Return a black clip for each caption, of 4, 8 or 12 frames."""
    lengths = [4 + 4 * (index % 3) for index in range(len(tokens))]
    rows = tuple(
        ClipRow(str(token), str(token), frames, frames / 12)
        for token, frames in zip(tokens[:, 0].tolist(), lengths, strict=True)
    )
    pixels = tuple(torch.zeros(frames, 2, 2, 3, dtype=torch.uint8) for frames in lengths)
    return FixedClips(rows, pixels, tokens)


def gauge(tokens: Tensor, *, has_other_captions: bool = True) -> GaugeClips:
    clips = gauge_clips(fixed(tokens), tokens.roll(1, 0) if has_other_captions else None, CPU.device, 0, "noise")
    levels = (tokens[:, 0] / 10.0).tolist()
    return replace(
        clips, clips=tuple(torch.full_like(clip, level) for clip, level in zip(clips.clips, levels, strict=True))
    )


def validate(trained: GaugeClips | None) -> ValidationRecord:
    validator = Validator(
        clips=gauge(HELD_OUT_TOKENS),
        seconds=[row.seconds for row in fixed(HELD_OUT_TOKENS).rows],
        trained_clips=trained,
        objective=DiffusionObjective(SCHEDULE, "sample", "uniform", 5.0, 0.1, motion_weight=0.0),
        compute=CPU,
        processes=Processes(),
        most_frames=24,
        seed=0,
    )
    return validator.run(7, KnowsTrainedCaptions(), None)


def test_the_text_of_training_clips_is_gauged_beside_that_of_held_out_ones() -> None:
    record = validate(gauge(TRAINED_TOKENS))
    held_out = (HELD_OUT_TOKENS / 10.0).square().mean().item()
    assert record.loss == pytest.approx(held_out, rel=1e-5)
    assert record.loss_shuffled == record.loss  # no caption of theirs is known
    assert record.trained_loss == pytest.approx(0.0, abs=1e-12)
    wrong = ((TRAINED_TOKENS - TRAINED_TOKENS.roll(1, 0)) / 10.0).square().mean().item()
    assert record.trained_loss_shuffled == pytest.approx(wrong, rel=1e-5)
    assert record.best_loss == record.loss


def test_durations_are_those_that_the_text_encoder_expects() -> None:
    """Of captions of one character: 1/3 s, as long as a clip of 4 frames and 50 and 67 % off one of 8 and of 12."""
    assert pytest.approx(1 / 3) == START_SECONDS
    assert validate(None).duration_error == pytest.approx(0.5)


@pytest.mark.parametrize(("real", "error"), [([2.0], 0.5), ([2.0, 1.0], 0.25), ([1.0, 0.5, 4.0], 0.75)])
def test_the_error_of_durations_is_a_median_of_shares(real: list[float], error: float) -> None:
    assert median_error([1.0] * len(real), real) == pytest.approx(error)


def test_what_was_not_measured_is_absent() -> None:
    record = validate(None)
    assert (record.trained_loss, record.trained_loss_shuffled) == (None, None)
    alike = validate(gauge(TRAINED_TOKENS, has_other_captions=False))
    assert alike.trained_loss == pytest.approx(0.0, abs=1e-12)
    assert alike.trained_loss_shuffled is None


def test_noise_is_the_same_every_time_and_another_one_for_other_clips() -> None:
    first, again, other, seeded = (
        gauge_clips(fixed(TRAINED_TOKENS), None, CPU.device, seed, purpose)
        for seed, purpose in ((0, "one"), (0, "one"), (0, "two"), (1, "one"))
    )
    assert [tuple(noise.shape) for noise in first.noises] == [tuple(clip.shape) for clip in first.clips]
    assert [noise.shape[1] for noise in first.noises] == [4, 8, 12, 4, 8, 12, 4, 8]
    assert torch.equal(first.clips[1], torch.full((3, 8, 2, 2), -1.0))
    assert len({noise.flatten()[0].item() for noise in first.noises}) == 8  # each clip has a noise of its own
    assert all(torch.equal(*pair) for pair in zip(first.noises, again.noises, strict=True))
    for different in (other, seeded):
        assert not any(torch.equal(*pair) for pair in zip(first.noises, different.noises, strict=True))
