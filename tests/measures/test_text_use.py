"""The gauge against networks whose use of the text is known."""

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from data.order import Part
from diffusion.loss import DiffusionObjective
from diffusion.schedule import build_noise_schedule, evenly_spaced_timesteps
from measures.bootstrap import Interval
from measures.text_use import GaugeClips, measure_text_use, other_captions, sensitivity_interval, text_sensitivity

SCHEDULE = build_noise_schedule("cosine", num_timesteps=80, zero_terminal_snr=True)
CLEAN_VIDEO = DiffusionObjective(SCHEDULE, "sample", "uniform", 5.0, 0.1, motion_weight=0.0)
VELOCITY = DiffusionObjective(SCHEDULE, "v_prediction", "uniform", 5.0, 0.1, motion_weight=0.0)


def clips(count: int = 16, lengths: Sequence[int] = (4,)) -> GaugeClips:
    """Clips whose every pixel is their token / 10, of the lengths in turn."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.arange(2, 2 + count)[:, None]
    shapes = [(3, lengths[index % len(lengths)], 2, 2) for index in range(count)]
    videos = tuple(torch.full(shape, token / 10) for token, shape in zip(tokens[:, 0].tolist(), shapes, strict=True))
    noises = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    return GaugeClips(videos, noises, tokens, tokens.roll(1, 0))


def knows_its_caption(noisy: Tensor, timestep: Tensor, tokens: Tensor, drop: Tensor) -> Tensor:
    """Predicts the clean clip from the caption alone, and 0 without it."""
    clean = (tokens[:, 0] / 10.0) * ~drop
    return clean[:, None, None, None, None].expand_as(noisy)


def ignores_its_caption(noisy: Tensor, timestep: Tensor, tokens: Tensor, drop: Tensor) -> Tensor:
    return 0.5 * noisy


@pytest.mark.parametrize("most_frames", [1, 20, 64])
@pytest.mark.parametrize("lengths", [(4,), (4, 12, 8)])
def test_a_network_that_reads_shows_the_gaps_that_its_mistakes_have(lengths: Sequence[int], most_frames: int) -> None:
    given = clips(lengths=lengths)
    use = measure_text_use(knows_its_caption, CLEAN_VIDEO, given, most_frames, seed=0)
    own, wrong = given.tokens_BL[:, 0] / 10.0, given.shuffled_tokens_BL[:, 0] / 10.0
    assert use.correct == pytest.approx(0.0, abs=1e-12)
    assert use.shuffled == pytest.approx((own - wrong).square().mean().item(), rel=1e-5)
    assert use.null == pytest.approx(own.square().mean().item(), rel=1e-5)
    assert use.predict_zero == pytest.approx(own.square().mean().item(), rel=1e-5)
    gaps = (own - wrong).square()
    assert use.shuffled_gap is not None
    assert use.shuffled_gap.value == pytest.approx(gaps.mean().item(), rel=1e-5)
    # Of the 16 gaps one is 2.25, the others 0.01. A resample holds the large one Binomial(16, 1/16) times, whose 2.5 %
    # and 97.5 % quantiles are 0 and 3.
    assert (use.shuffled_gap.low, use.shuffled_gap.high) == pytest.approx((0.01, (3 * 2.25 + 13 * 0.01) / 16))
    for index, gap in enumerate(use.shuffled_gap_by_bin):  # clip i is in bin i modulo 8
        assert gap == pytest.approx((own - wrong)[index::8].square().mean().item(), rel=1e-5)


def test_a_network_that_ignores_its_text_shows_exactly_no_gap() -> None:
    use = measure_text_use(ignores_its_caption, VELOCITY, clips(), 16, seed=0)
    assert use.shuffled == use.correct == use.null
    assert use.shuffled_gap == Interval(0.0, 0.0, 0.0)
    assert use.shuffled_gap_by_bin == (0.0,) * 8


def test_clips_that_are_used_again_do_not_make_the_interval_narrower() -> None:
    tokens, wrong = torch.tensor([[2], [9]]), torch.tensor([[3], [19]])  # 0.1 and 1 off
    videos = (torch.full((3, 4, 2, 2), 0.2), torch.full((3, 8, 2, 2), 0.9))
    given = GaugeClips(videos, tuple(map(torch.zeros_like, videos)), tokens, wrong)
    use = measure_text_use(knows_its_caption, CLEAN_VIDEO, given, 32, seed=0)
    assert use.shuffled_gap is not None
    assert use.shuffled_gap.value == pytest.approx((0.01 + 1.0) / 2)
    assert (use.shuffled_gap.low, use.shuffled_gap.high) == pytest.approx((0.01, 1.0))


def test_bins_go_from_little_noise_to_much() -> None:
    """Predicting the noisy clip itself as the clean one is right where there is little noise."""
    use = measure_text_use(lambda noisy, *_: noisy, CLEAN_VIDEO, clips(), 16, seed=0)
    assert list(use.correct_by_bin) == sorted(use.correct_by_bin)


def test_without_another_caption_the_shuffled_figures_are_absent_and_not_zero() -> None:
    given = dataclasses.replace(clips(3), shuffled_tokens_BL=None)
    use = measure_text_use(knows_its_caption, CLEAN_VIDEO, given, 8, seed=0)
    assert use.shuffled is None
    assert use.shuffled_gap is None
    assert use.shuffled_gap_by_bin == ()


def test_without_captions_is_measured_only_if_asked_for() -> None:
    whole = measure_text_use(knows_its_caption, CLEAN_VIDEO, clips(), 16, seed=0)
    asked: list[bool] = []

    def predict(noisy: Tensor, timestep: Tensor, tokens: Tensor, drop: Tensor) -> Tensor:
        asked.extend(drop.tolist())
        return knows_its_caption(noisy, timestep, tokens, drop)

    use = measure_text_use(predict, CLEAN_VIDEO, clips(), 16, seed=0, without_caption=False)
    assert use == dataclasses.replace(whole, null=None)
    assert asked == [False] * 32  # sixteen clips with the right caption, and with another one


@pytest.mark.parametrize("count", [1, 3, 12])
def test_few_clips_cover_every_bin_too(count: int) -> None:
    given = clips(count)
    use = measure_text_use(lambda noisy, *_: noisy, CLEAN_VIDEO, given, 20, seed=0)
    assert len(use.correct_by_bin) == 8
    assert use.correct_by_bin[7] > 30 * use.correct_by_bin[0]
    assert use.correct == pytest.approx(sum(use.correct_by_bin) / 8, rel=1e-5)


@pytest.mark.parametrize("most_frames", [1, 24, 1000])
def test_clips_of_mixed_lengths_count_as_each_length_measured_alone(most_frames: int) -> None:
    """Eight clips of each of two lengths, in turn: each length has four of the bins, twice each."""
    given = clips(16, lengths=(4, 12))
    use = measure_text_use(mistaken, VELOCITY, given, most_frames, seed=0)
    expected = [clip_errors(given, index) for index in range(16)]
    assert use.correct == pytest.approx(sum(correct for correct, _ in expected) / 16, rel=1e-5)
    assert use.shuffled == pytest.approx(sum(shuffled for _, shuffled in expected) / 16, rel=1e-5)
    for index in range(8):
        of_bin = expected[index::8]
        assert use.correct_by_bin[index] == pytest.approx(sum(correct for correct, _ in of_bin) / 2, rel=1e-5)
        gap = sum(shuffled - correct for correct, shuffled in of_bin) / 2
        assert use.shuffled_gap_by_bin[index] == pytest.approx(gap, rel=1e-4, abs=1e-6)


def mistaken(noisy: Tensor, timestep: Tensor, tokens: Tensor, drop: Tensor) -> Tensor:
    """Depends on everything, on how long the clip is too."""
    text = (tokens[:, 0] / 10.0 * ~drop + timestep / 100 + noisy.shape[2] / 10)[:, None, None, None, None]
    return 0.3 * noisy + text


def clip_errors(given: GaugeClips, index: int) -> tuple[float, float]:
    """Return the errors of one clip with its own and with the wrong caption, computed from their definition."""
    timestep = evenly_spaced_timesteps(8, SCHEDULE.num_timesteps)[index % 8]
    alpha = SCHEDULE.alphas_cumprod[int(timestep)]
    signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
    noisy = signal * given.clips[index] + noise * given.noises[index]
    target = signal * given.noises[index] - noise * given.clips[index]
    errors = []
    assert given.shuffled_tokens_BL is not None
    for tokens in (given.tokens_BL, given.shuffled_tokens_BL):
        prediction = mistaken(noisy[None], timestep[None], tokens[index : index + 1], torch.zeros(1, dtype=torch.bool))
        errors.append((prediction[0] - target).square().mean().item())
    return errors[0], errors[1]


def test_processes_together_measure_what_one_measures() -> None:
    """Clips of mixed lengths fall into other groups in each process; the figures belong to the clips."""
    given = clips(13, lengths=(4, 12, 8))
    alone = measure_text_use(mistaken, VELOCITY, given, 24, seed=0)
    parts: list[Tensor] = []

    def remember(errors_KB: Tensor, count: int) -> Tensor:
        parts.append(errors_KB)
        return errors_KB.repeat(1, 3)

    def joined(errors_KB: Tensor, count: int) -> Tensor:
        return torch.stack(parts, dim=2).flatten(1)[:, :count]

    for rank in range(3):
        measure_text_use(mistaken, VELOCITY, given, 24, 0, Part(rank, 3), remember)
    together = measure_text_use(mistaken, VELOCITY, given, 24, 0, Part(0, 3), joined)
    assert together.correct_by_bin == pytest.approx(alone.correct_by_bin, rel=1e-5)
    assert together.shuffled_gap_by_bin == pytest.approx(alone.shuffled_gap_by_bin, rel=1e-4, abs=1e-6)
    assert together.null == pytest.approx(alone.null, rel=1e-5)


def test_other_captions_are_always_wrong_and_come_from_elsewhere_only_when_they_must() -> None:
    assert other_captions(["A", "A", "B"]) == ["B", "B", "A"]
    assert other_captions(["A"], iter(["A", "C", "D"])) == ["C"]
    assert other_captions(["A", "A"], ["A"]) is None


def test_text_sensitivity_is_the_ratio_of_distances() -> None:
    base = torch.zeros(3, 1, 1, 1, 2)
    prompts = base.clone()
    prompts[1, ..., 0], prompts[2, ..., 1] = 3.0, 4.0  # pairwise distances 3, 4 and 5
    repeated = prompts[:2] + torch.tensor([0.0, 2.0])
    assert text_sensitivity(prompts, repeated) == pytest.approx(4.0 / 2.0)
    assert text_sensitivity(base, repeated) == pytest.approx(0.0)  # one clip for all prompts
    # Shown twice as slowly, a clip is the same clip.
    slow = [prompts[0], prompts[1].repeat_interleave(2, dim=1), prompts[2]]
    assert text_sensitivity(slow, repeated) == pytest.approx(4.0 / 2.0)


def test_text_sensitivity_is_absent_where_nothing_can_be_compared() -> None:
    one = torch.ones(1, 1, 1, 1, 2)
    assert text_sensitivity(one, one) is None
    assert text_sensitivity(torch.ones(2, 1, 1, 1, 2), torch.ones(0, 1, 1, 1, 2)) is None
    assert text_sensitivity(torch.rand(2, 1, 1, 1, 2), torch.rand(2, 1, 1, 1, 2)[:0]) is None


def test_sensitivity_of_clips_that_are_prompt_plus_noise() -> None:
    prompt = torch.tensor([0.0, 3.0, 6.0])[:, None]
    noise = torch.tensor([0.0, 1.0])[None, :]
    clips = (prompt + noise)[:, :, None, None, None, None].expand(3, 2, 3, 4, 2, 2)
    interval = sensitivity_interval(clips, seed=0)
    assert interval is not None
    # Prompts are 3, 3 and 6 apart, noises 1.
    assert interval.value == pytest.approx(4.0, rel=1e-4)
    assert interval.low == pytest.approx(3.0, rel=1e-4)
    assert interval.high == pytest.approx(6.0, rel=1e-4)


def test_sensitivity_is_0_without_text_and_none_without_noise() -> None:
    noise = torch.randn(1, 2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    ignoring = sensitivity_interval(noise.expand(5, 2, 3, 4, 2, 2), seed=0)
    assert ignoring is not None
    assert ignoring.value == pytest.approx(0.0, abs=1e-3)
    assert sensitivity_interval(noise[:, :1].expand(5, 2, 3, 4, 2, 2), seed=0) is None
