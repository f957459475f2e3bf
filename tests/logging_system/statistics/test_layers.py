"""Grouping parameters within a budget."""

import pytest
import torch
from torch import nn

from logging_system.statistics.layers import plan_layers


def _nested() -> nn.Module:
    """Ten modules with parameters: eight at depth 3, two at depth 1."""
    blocks = [nn.Sequential(nn.Linear(width, width), nn.Linear(width, width)) for width in (2, 8, 4, 16)]
    return nn.ModuleDict({"entry": nn.Linear(2, 2), "body": nn.ModuleList(blocks), "exit": nn.Linear(2, 2)})


def test_weight_and_bias_belong_together_in_the_networks_order() -> None:
    plan = plan_layers(_nested(), 64)
    assert [layer.name for layer in plan.layers][:3] == ["entry", "body.0.0", "body.0.1"]
    assert [len(layer.parameters) for layer in plan.layers] == [2] * 10
    assert plan.modules == 10
    assert plan.explanation(64) is None


def test_smallest_of_the_deepest_are_merged_first() -> None:
    plan = plan_layers(_nested(), 8)
    names = [layer.name for layer in plan.layers]
    assert names == ["entry", "body.0", "body.1.0", "body.1.1", "body.2", "body.3.0", "body.3.1", "exit"]
    explanation = plan.explanation(8)
    assert explanation is not None
    assert "10 modules" in explanation
    assert "leaves 8 layers" in explanation


@pytest.mark.parametrize("maximum", range(1, 12))
def test_budget_is_kept_and_no_parameter_lost(maximum: int) -> None:
    model = _nested()
    plan = plan_layers(model, maximum)
    assert len(plan.layers) <= maximum
    reported = [id(parameter) for layer in plan.layers for parameter in layer.parameters]
    assert sorted(reported) == sorted(id(parameter) for parameter in model.parameters())


def test_a_wide_top_level_keeps_its_largest_parts() -> None:
    model = nn.Sequential(*[nn.Sequential(nn.Linear(width, width)) for width in (3, 9, 5, 7, 2)])
    plan = plan_layers(model, 3)
    assert {layer.name: layer.size for layer in plan.layers} == {"model": 12 + 30 + 6, "1": 90, "3": 56}


def test_shared_and_own_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model.register_parameter("scale", nn.Parameter(torch.ones(3)))
    plan = plan_layers(model, 64)
    assert {layer.name: layer.size for layer in plan.layers} == {"model": 3, "0": 6, "1": 2}


def test_budget_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        plan_layers(nn.Linear(2, 2), 0)
