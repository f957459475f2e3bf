"""benchmarks.recipe, with a network of a few thousand weights."""

import json
from pathlib import Path

import pytest

from benchmarks import recipe
from benchmarks.recipe import DEFAULT, VARIANTS, read_figures
from common.settings import load_settings
from config import PRESETS, Config

SMALL = (
    "--image-size=16",
    "--patch-size=2",
    "--max-frames=4",
    "--max-word-letters=3",
    "--model-channels=16",
    "--spatial-attention-sizes=8",
    "--attention-head-channels=16",
    "--text-channels=16",
    "--text-layers=1",
    "--text-heads=1",
    "--batch-size=2",
    "--epoch-size=4",
    "--validation-clips=2",
    "--sampling-steps=1",
    "--recogniser-steps=1",
    "--num-workers=0",
    "--device=cpu",
)


def test_every_variant_is_a_config_that_loads() -> None:

    plain = load_settings(Config, PRESETS, [], program="main.py").config
    for name, changes in VARIANTS.items():
        config = load_settings(Config, PRESETS, list(changes), program="main.py").config
        assert (config == plain) is (name == DEFAULT), name


@pytest.mark.slow
def test_variants_are_trained_and_read_and_a_failing_one_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    # The small network has a single level, 8 pixels wide, so that attention at 4 cannot be built.
    chosen = ("min-SNR weighting", "attention at 4")
    options = ["--steps=1", f"--json={figures}", f"--folder={tmp_path / 'runs'}", *SMALL]
    assert recipe.main([*options, "--only", *chosen]) == 1
    found = json.loads(figures.read_text())
    assert list(found["rows"]) == ["default", "min-SNR weighting"]
    assert list(found["failures"]) == ["attention at 4"]
    for row in found["rows"].values():
        low, high = row["words"][1:]
        assert low <= row["words"][0] <= high
        assert row["parameters"] > 0
    printed = capsys.readouterr().out
    assert "| min-SNR weighting |" in printed
    assert "| attention at 4 | failed: " in printed


def test_figures_are_those_of_the_newest_point(tmp_path: Path) -> None:
    tags = {
        "08_Model_Architecture/Total_Parameters": [10],
        "05_Performance/Step_Time_Seconds": [9.0, 2.0, 3.0],
        "02_Loss_Components/Validation/Loss": [0.9, 0.1],
        "02_Loss_Components/Validation/Text_Gap_Shuffled": [0.0, 0.05],
    }
    lines = [
        json.dumps({"step": step, "tag": tag, "value": value})
        for tag, values in tags.items()
        for step, value in enumerate(values)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    group = {"letter_error_rate": 0.2, "real_ceiling": 0.01, "text_sensitivity": 4.0}
    group["intervals"] = {name: [value / 2, value * 2] for name, value in group.items()}
    report = {
        "groups": {"letters": group, "words not in training": group},
        "letters": {"A": {"read": 1.0}, "J": {"read": 0.4}},
    }
    read = read_figures(tmp_path, report)
    assert read == {
        "parameters": 10,
        "step_seconds": 3.0,
        "validation_loss": 0.1,
        "text_gap": 0.05,
        "letters": (0.2, 0.1, 0.4),
        "words": (0.2, 0.1, 0.4),
        "real_words": 0.01,
        "text_sensitivity": 4.0,
        "worst_letters": ["J"],
    }
