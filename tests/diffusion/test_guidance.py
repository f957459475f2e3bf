from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffusion.guidance import Guidance, guided_prediction, rescale_guidance

MakeVideo = Callable[..., Tensor]


class RecordingNetwork:
    """A prediction that depends on every input, with its calls written down."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        self.calls.append((x, timestep_B, tokens_BL, drop_caption_B))
        caption = torch.where(drop_caption_B, torch.zeros(len(x)), tokens_BL.float().mean(1))
        return torch.sin(x) * (1 + caption.reshape(-1, 1, 1, 1, 1)) + timestep_B.reshape(-1, 1, 1, 1, 1) / 100


TOKENS = torch.tensor([[1, 2, 3], [4, 5, 9]])
TIMESTEP = torch.tensor([40, 40])
KEEP, DROP = torch.tensor([False, False]), torch.tensor([True, True])


def test_the_guided_prediction_is_the_extrapolation_from_one_call(random_video: MakeVideo) -> None:
    network, x = RecordingNetwork(), random_video(0)
    guided = guided_prediction(network, Guidance(scale=3.0), TOKENS, 100)(x, 40)
    assert len(network.calls) == 1
    seen_x, seen_timestep, seen_tokens, seen_drop = network.calls[0]
    assert torch.equal(seen_x, torch.cat([x, x]))
    assert seen_timestep.dtype == torch.int64
    assert seen_timestep.tolist() == [40] * 4
    assert torch.equal(seen_tokens, torch.cat([TOKENS, TOKENS]))
    assert seen_drop.tolist() == [False, False, True, True]
    with_caption, without = network(x, TIMESTEP, TOKENS, KEEP), network(x, TIMESTEP, TOKENS, DROP)
    torch.testing.assert_close(guided, 3 * with_caption - 2 * without)


def test_scale_one_is_the_network_itself(random_video: MakeVideo) -> None:
    network, x = RecordingNetwork(), random_video(0)
    guided = guided_prediction(network, Guidance(scale=1.0, rescale=0.7), TOKENS, 100)(x, 40)
    assert len(network.calls) == 1
    assert len(network.calls[0][0]) == 2
    assert torch.equal(guided, network(x, TIMESTEP, TOKENS, KEEP))


def test_scale_zero_ignores_the_caption(random_video: MakeVideo) -> None:
    network, x = RecordingNetwork(), random_video(0)
    guided = guided_prediction(network, Guidance(scale=0.0), TOKENS, 100)(x, 40)
    torch.testing.assert_close(guided, network(x, TIMESTEP, TOKENS, DROP))


@pytest.mark.parametrize(("timestep", "acts"), [(19, False), (20, True), (50, True), (80, True), (81, False)])
def test_outside_the_interval_there_is_a_conditional_call_alone(
    random_video: MakeVideo, timestep: int, acts: bool
) -> None:
    network, x = RecordingNetwork(), random_video(0)
    denoise = guided_prediction(network, Guidance(scale=3.0, interval=(0.2, 0.8)), TOKENS, 101)
    result = denoise(x, timestep)
    assert [len(call[0]) for call in network.calls] == [4 if acts else 2]
    everywhere = guided_prediction(network, Guidance(scale=3.0), TOKENS, 101)(x, timestep)
    assert torch.equal(result, everywhere if acts else network(x, torch.tensor([timestep] * 2), TOKENS, KEEP))


def test_rescaling_is_the_published_formula(random_video: MakeVideo) -> None:
    network, x = RecordingNetwork(), random_video(0)
    guided = guided_prediction(network, Guidance(scale=6.0, rescale=0.7), TOKENS, 100)(x, 40)
    with_caption, without = network(x, TIMESTEP, TOKENS, KEEP), network(x, TIMESTEP, TOKENS, DROP)
    for clip in range(2):
        plain = without[clip] + 6 * (with_caption[clip] - without[clip])
        matched = plain * with_caption[clip].std() / plain.std()
        torch.testing.assert_close(guided[clip], 0.7 * matched + 0.3 * plain)


def test_full_rescaling_restores_the_deviation_of_each_clip(random_video: MakeVideo) -> None:
    conditional = random_video(1)
    rescaled = rescale_guidance(7 * random_video(0) + 3, conditional, 1.0)
    torch.testing.assert_close(rescaled.flatten(1).std(1), conditional.flatten(1).std(1))


def test_a_network_that_says_zero_stays_zero() -> None:
    zeros = torch.zeros(2, 3, 2, 4, 4)
    assert torch.equal(rescale_guidance(zeros, zeros, 0.7), zeros)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -1.0}, "scale must be a finite number of at least 0, not -1.0"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": 2.0, "rescale": 1.5}, "rescale must be between 0 and 1, not 1.5"),
        ({"scale": 2.0, "interval": (0.8, 0.2)}, "interval must satisfy"),
        ({"scale": 2.0, "interval": (0.0, 1.2)}, "interval must satisfy"),
    ],
)
def test_values_out_of_range_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Guidance(**arguments)
