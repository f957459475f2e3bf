"""The averaged weights, and the update that a non-finite loss must not make."""

import copy

import pytest
import torch
from torch import nn

from config import Config
from training.optimizer import (
    ExponentialMovingAverage,
    build_adamw,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
    step_unless,
)

NEVER, ALWAYS = torch.tensor(False), torch.tensor(True)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))


def backward(model: nn.Module, seed: int) -> None:
    model.zero_grad()
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    model(inputs).square().mean().backward()


def test_average_follows_the_recursion_with_its_warm_up() -> None:
    model = network()
    average = ExponentialMovingAverage(model, decay=0.4)
    expected = [parameter.detach().clone() for parameter in model.parameters()]
    for update in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        average.update(update, NEVER)
        decay = min(0.4, (1 + update) / (10 + update))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, model.parameters(), strict=True)]
    for actual, wanted in zip(average.model.parameters(), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_skipped_step_leaves_the_average_bit_equal() -> None:
    model = network()
    average = ExponentialMovingAverage(model, decay=0.9)
    before = copy.deepcopy(average.model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update(3, ALWAYS)
    assert all(torch.equal(before[name], value) for name, value in average.model.state_dict().items())


def test_a_model_with_buffers_is_refused() -> None:
    with pytest.raises(ValueError, match="state besides them"):
        ExponentialMovingAverage(nn.BatchNorm1d(3), decay=0.9)


def test_a_skipped_step_leaves_weights_and_moments_bit_equal() -> None:
    model = network()
    optimizer = build_adamw(Config(LEARNING_RATE=0.1, WEIGHT_DECAY=0.5), model)
    backward(model, 1)
    step_unless(optimizer, NEVER)
    before = copy.deepcopy((model.state_dict(), optimizer_tensors(optimizer, model)))
    backward(model, 2)
    for parameter in model.parameters():
        parameter.grad.fill_(float("nan"))
    step_unless(optimizer, ALWAYS)
    for old, new in zip(before, (model.state_dict(), optimizer_tensors(optimizer, model)), strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_updates_equal_plain_adamw_with_decay_on_matrices_only() -> None:
    ours, plain = network(), network()
    optimizer = build_adamw(Config(LEARNING_RATE=0.5, WEIGHT_DECAY=0.3), ours)
    set_learning_rate(optimizer, 0.1)
    matrices = [parameter for parameter in plain.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in plain.parameters() if parameter.ndim == 1]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}], lr=0.1, betas=(0.9, 0.99)
    )
    for step in range(4):
        for model in (ours, plain):
            backward(model, step)
        step_unless(optimizer, NEVER)
        reference.step()
    for actual, wanted in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(actual, wanted)


def test_optimizer_state_survives_a_round_trip_exactly() -> None:
    first = network()
    optimizer = build_adamw(Config(LEARNING_RATE=0.1, WEIGHT_DECAY=0.1), first)
    for step in range(3):
        backward(first, step)
        step_unless(optimizer, NEVER)
    second = copy.deepcopy(first)
    restored = build_adamw(Config(LEARNING_RATE=0.1, WEIGHT_DECAY=0.1), second)
    load_optimizer_tensors(restored, second, copy.deepcopy(optimizer_tensors(optimizer, first)))
    for model, its_optimizer in ((first, optimizer), (second, restored)):
        backward(model, 7)
        step_unless(its_optimizer, NEVER)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
