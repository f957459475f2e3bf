"""The networks that are compared: same inputs, same size, operations counted."""

import pytest
import torch
from torch import nn

from benchmarks.network_worker import NetworkExercise, count_flops
from benchmarks.networks import NETWORK_NAMES, VOCABULARY, build_network, count_parameters
from tests.grids import mostly_slow


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_every_network_takes_the_same_inputs_and_hears_the_caption(name):
    torch.manual_seed(0)
    network = build_network(name, image_size=(16, 16), parameters=300_000).eval()
    for parameter in network.parameters():  # layers that start at zero would hide everything behind them
        nn.init.normal_(parameter, std=0.05)
    video, timestep = torch.randn(2, 3, 4, 16, 16), torch.tensor([3, 900])
    first, second = torch.tensor([[2, 3, 4, 0], [5, 6, 0, 0]]), torch.tensor([[9, 8, 7, 0], [5, 6, 0, 0]])
    keep, drop = torch.tensor([False, False]), torch.tensor([True, False])
    with torch.no_grad():
        outputs = [network(video, timestep, tokens, dropped) for tokens in (first, second) for dropped in (keep, drop)]
    assert all(output.shape == video.shape for output in outputs)
    kept_first, dropped_first, kept_second, dropped_second = outputs
    assert not torch.allclose(kept_first[0], kept_second[0])
    assert not torch.allclose(kept_first[0], dropped_first[0])
    torch.testing.assert_close(dropped_first, dropped_second)
    torch.testing.assert_close(kept_first[1], kept_second[1])


@pytest.mark.parametrize("parameters", [5_000_000, 20_000_000])
@pytest.mark.parametrize("name", mostly_slow(NETWORK_NAMES))
def test_networks_have_about_the_parameters_asked_for(name, parameters):
    with torch.device("meta"):
        network = build_network(name, image_size=(32, 32), parameters=parameters)
    assert count_parameters(network) == pytest.approx(parameters, rel=0.2)
    assert network.text_encoder.embedding.weight.shape == (VOCABULARY, 128)


class Attention(nn.Module):
    """One linear layer on the pixels of each frame, then PyTorch's attention between them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, video_BCTHW, timestep_B, tokens_BL, drop_caption_B):
        pixels = self.linear(video_BCTHW.permute(0, 2, 3, 4, 1).flatten(2, 3))  # [B, T, pixels, 3]
        attended = nn.functional.scaled_dot_product_attention(pixels, pixels, pixels)
        return attended.unflatten(2, video_BCTHW.shape[3:]).permute(0, 4, 1, 2, 3)


def test_attention_on_a_cpu_counts_among_the_operations():
    frames, side = 5, 8
    counted = count_flops(Attention(), frames=frames, image_size=side)
    pixels = side * side
    linear, product = 2 * frames * pixels * 3 * 3, 2 * frames * pixels * pixels * 3
    forward = linear + 2 * product
    # Backward: the linear layer's weight (its input needs none), and five products, the logits once more among them.
    assert counted == forward + linear + 5 * product


def test_a_training_step_changes_the_weights_and_a_forward_does_not():
    torch.manual_seed(0)
    network = Attention()
    exercise = NetworkExercise(network, batch_size=2, frames=4, image_size=8)
    before = network.linear.weight.detach().clone()
    exercise.forward()
    count_flops(network, frames=4, image_size=8)
    assert torch.equal(network.linear.weight, before)
    exercise.step()
    assert not torch.equal(network.linear.weight, before)
    assert network.linear.weight.grad is None
