"""Histories shaped like a finished default run, for rules to judge and tests to spoil."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from logging_system.files.scalar_history import ScalarHistory

Curve = Mapping[int, float]
LAST_STEP = 1200
LAYERS = ("text.embedding", "unet.stem", "unet.middle", "unet.pixels")


def _learning_rate(step: int) -> float:
    if step <= 100:
        return 8e-4 * step / 100
    return 4e-5 + (8e-4 - 4e-5) * (1 + math.cos(math.pi * (step - 100) / 1100)) / 2


def _smooth_loss(step: int) -> float:
    return 0.048 + 0.6 * math.exp(-step / 180)


def _default_curves() -> dict[str, dict[int, float]]:
    """Every tag that a rule looks at, with about the values of a run of 1,200 steps with the constants as shipped."""
    log, validations, diagnostics = range(10, 1201, 10), range(100, 1201, 100), (1, 500, 1000, 1200)
    curves: dict[str, dict[int, float]] = {
        "08_Model_Architecture/Total_Parameters": {0: 3.9e6},
        "15_Configuration/Captions_Unread_Percent": {0: 0.0},
        "15_Configuration/Captions_Alike_Percent": {0: 0.0},
        "01_Training/Loss": {step: _smooth_loss(step) * (1 + 0.2 * math.sin(step)) for step in log},
        "01_Training/Loss_EMA": {step: _smooth_loss(step) for step in log},
        "01_Training/Learning_Rate": {step: _learning_rate(step) for step in log},
        "01_Training/Gradient_Norm": {
            step: (0.1 + 0.25 * math.exp(-step / 500)) * (1 + 0.4 * math.sin(step)) for step in log
        },
        "01_Training/Skipped_Steps": dict.fromkeys(log, 0.0),
        "02_Loss_Components/Unweighted_MSE": {step: _smooth_loss(step) for step in log},
        "02_Loss_Components/Predict_Zero_Baseline": {step: 0.67 + 0.01 * math.sin(step) for step in log},
        "01_Training/Validation_Loss": {step: 0.044 + 0.4 * math.exp(-step / 180) for step in validations},
        "02_Loss_Components/Validation/Loss": {step: 0.044 + 0.4 * math.exp(-step / 180) for step in validations},
        "02_Loss_Components/Validation/Predict_Zero_Baseline": dict.fromkeys(validations, 0.672),
        "02_Loss_Components/Validation/Text_Gap_Shuffled": {
            step: 0.036 * (1 - math.exp(-step / 400)) for step in validations
        },
        "05_Performance/Data_Wait_Percent": {step: 1 + 0.5 * math.sin(step) for step in log},
        "05_Performance/Logging_Overhead_Percent": {step: 0.3 + 38 / step for step in log},
        "11_Gradient_Stats/Zero_Percent": {1: 99.8, 500: 0.07, 1000: 0.06, 1200: 0.08},
        "11_Gradient_Stats/Non_Finite": dict.fromkeys(diagnostics, 0.0),
        "12_Generated_Samples/Text_Sensitivity": {300: 0.86, 600: 1.6, 900: 2.1, 1200: 2.1},
        "12_Generated_Samples/Motion_Energy_Ratio": {300: 11.4, 600: 4.2, 900: 2.9, 1200: 2.59},
        "12_Generated_Samples/Sharpness_Ratio": {300: 1.4, 600: 1.2, 900: 1.1, 1200: 1.1},
        "12_Generated_Samples/Nearest_Training_Distance": {300: 0.5, 600: 0.3, 900: 0.25, 1200: 0.2},
        "12_Generated_Samples/Nearest_Training_Distance_Real": dict.fromkeys((300, 600, 900, 1200), 0.21),
        "12_Generated_Samples/Letter_Error_Rate": {300: 0.4, 600: 0.1, 900: 0.03, 1200: 0.01},
        "12_Generated_Samples/Real_Ceiling": dict.fromkeys((300, 600, 900, 1200), 0.01),
        "12_Generated_Samples/Shuffled_Floor": dict.fromkeys((300, 600, 900, 1200), 1.05),
        "12_Generated_Samples/Retrieval_Top1": {300: 0.5, 600: 0.94, 900: 1.0, 1200: 1.0},
        "12_Generated_Samples/Retrieval_Real_Ceiling": dict.fromkeys((300, 600, 900, 1200), 1.0),
        "12_Generated_Samples/Retrieval_Shuffled_Floor": dict.fromkeys((300, 600, 900, 1200), 1 / 16),
        "12_Generated_Samples/Moving_Sharpness_Ratio": {300: 0.8, 600: 0.9, 900: 1.0, 1200: 1.0},
        "14_System/Process_RSS_GB": {step: 0.96 + 0.14 * (1 - math.exp(-step / 250)) for step in log},
        "14_System/Loader_RSS_GB": dict.fromkeys(log, 0.34),
        "14_System/Disk_Free_GB": dict.fromkeys(log, 74.0),
    }
    for number, layer in enumerate(LAYERS):
        small = 10.0**-number
        values = {
            f"11_Gradient_Stats/{layer}/Norm": (0.0, 0.05 * small, 0.05 * small, 0.05 * small),
            f"11_Gradient_Stats/{layer}/Mean": (0.0, 1e-6 * small, 1e-6 * small, 1e-6 * small),
            f"11_Gradient_Stats/{layer}/Std": (0.0, 2e-4 * small, 2e-4 * small, 2e-4 * small),
            f"09_Parameter_Stats/{layer}/Update_To_Weight_Ratio": (0.0, 2e-3, 4e-4, 2e-4),
        }
        curves |= {tag: dict(zip(diagnostics, each, strict=True)) for tag, each in values.items()}
    return curves


def _history(curves: Mapping[str, Curve]) -> ScalarHistory:
    history = ScalarHistory()
    for tag, curve in curves.items():
        for step, value in curve.items():
            history.add(tag, step, value)
    return history


@pytest.fixture
def config() -> dict[str, object]:
    """The constants of the run."""
    return {
        "LEARNING_RATE": 8e-4,
        "LR_WARMUP_STEPS": 100,
        "GRADIENT_CLIP_NORM": 1.0,
        "SAMPLE_PROMPTS": [],
        "SEED": None,
    }


@pytest.fixture
def curves() -> dict[str, dict[int, float]]:
    """The tags of the run: step to value."""
    return _default_curves()


@pytest.fixture
def history_of() -> Callable[[Mapping[str, Curve]], ScalarHistory]:
    """Make a history of curves."""
    return _history


@pytest.fixture
def history_with(curves: dict[str, dict[int, float]]) -> Callable[..., ScalarHistory]:
    """Make the history of the run with some tags replaced, or left out where the curve is None."""

    def build(changes: Mapping[str, Curve | None]) -> ScalarHistory:
        changed = {tag: changes.get(tag, curve) for tag, curve in {**curves, **changes}.items()}
        return _history({tag: curve for tag, curve in changed.items() if curve is not None})

    return build


@pytest.fixture
def write_run(tmp_path: Path, config: dict[str, object]) -> Callable[..., Path]:
    """Write curves to the files of a run, and return its folder."""

    def write(name: str, curves: Mapping[str, Curve]) -> Path:
        run = tmp_path / "logs" / name
        run.mkdir(parents=True)
        points = sorted((step, tag, value) for tag, curve in curves.items() for step, value in curve.items())
        lines = [json.dumps({"step": step, "tag": tag, "value": value}) + "\n" for step, tag, value in points]
        (run / "metrics.jsonl").write_text("".join(lines))
        (run / "config.json").write_text(json.dumps(config))
        (run / "events.out.tfevents.1.host.1").touch()
        return run

    return write
