"""The tags of the dashboard against a list written by hand: in the tables, in a real run, and in number."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from config import PRESETS, Config
from logging_system.categories.c08_model_architecture import parameters_by_block
from logging_system.statistics.layers import plan_layers
from models.build import build_model, build_tokenizer
from tests.dashboard_tags import TAG_TABLE

GOLDEN_FILE = Path(__file__).with_name("golden_tags.txt")
TAG_BUDGET = 1000  # of a run with the default PARAMETER_TRACKING_MAX_LAYERS; thousands make TensorBoard crawl
NOT_A_CATEGORY = ("_hparams_/", "custom_scalars")

# What the names in braces may be.
NAMES = {
    "layer": r"[a-z0-9_.]+",
    "number": r"[1-8]",
    "prompt": r"[1-9][0-9]*(_[A-Za-z0-9_]+)?",
    "block": r"[a-z0-9_]+",
    "key": r"[a-z_]+",
    "group": r"[a-z_]+",
    "measure": r"[A-Za-z0-9_]+",
}

PROMISED_TO_USERS = (
    "01_Training/Loss",
    "01_Training/Learning_Rate",
    "01_Training/Gradient_Norm",
    "03_Epoch_Summary/Average_Loss",
    "04_Learning_Rate/Current_LR",
    "05_Performance/Samples_Per_Second",
    "05_Performance/Steps_Per_Second",
    "06_Diffusion/Noise_Prediction_MSE",
    "06_Diffusion/Signal_to_Noise_Ratio",
    "11_Gradient_Stats/Total_Gradient_Norm",
)


@dataclass(frozen=True)
class GoldenTag:
    plugin: str
    reason_absent: str  # empty: a run on a CPU writes it


def read_golden() -> dict[str, GoldenTag]:
    tags: dict[str, GoldenTag] = {}
    for line in GOLDEN_FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            entry, _, reason = line.partition(" -- ")
            plugin, tag = entry.split()
            assert tag not in tags, f"{tag} stands in the list twice"
            tags[tag] = GoldenTag(plugin, reason)
    return tags


GOLDEN = read_golden()


def expression(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", pattern)
    return re.compile("".join(NAMES[piece] if odd % 2 else re.escape(piece) for odd, piece in enumerate(pieces)))


@pytest.fixture(scope="module")
def written(finished_run: Path) -> Mapping[str, set[str]]:
    """The plugins of every tag in the event files of a real run; the first value of a tag names its plugin."""
    plugins: dict[str, set[str]] = {}
    for path in finished_run.glob("*tfevents*"):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                if plugin or value.tag not in plugins:
                    plugins.setdefault(value.tag, set()).add(plugin)
    return plugins


def test_golden_list_and_tables_hold_the_same_tags() -> None:
    tables = set(TAG_TABLE)
    golden = {tag for tag in GOLDEN if not tag.startswith(NOT_A_CATEGORY)}
    assert sorted(golden - tables) == []
    assert sorted(tables - golden) == []


def test_what_a_cpu_run_lacks_is_what_its_table_says_may_be_absent() -> None:
    unexplained = [tag for tag, golden in GOLDEN.items() if golden.reason_absent and not TAG_TABLE[tag].absent_when]
    assert unexplained == []


def test_real_run_writes_every_golden_tag(written: Mapping[str, set[str]]) -> None:
    missing = [
        tag
        for tag, golden in GOLDEN.items()
        if not golden.reason_absent and not any(expression(tag).fullmatch(name) for name in written)
    ]
    assert missing == []


def test_real_run_writes_no_other_tag_and_each_for_one_plugin(written: Mapping[str, set[str]]) -> None:
    patterns = [(expression(tag), golden.plugin) for tag, golden in GOLDEN.items() if not golden.reason_absent]
    wrong = {
        name: plugins
        for name, plugins in written.items()
        if not any(pattern.fullmatch(name) and plugins == {plugin} for pattern, plugin in patterns)
    }
    assert wrong == {}


def test_every_layer_has_all_its_tags(written: Mapping[str, set[str]]) -> None:
    patterns = [tag for tag, golden in GOLDEN.items() if "{layer}" in tag and not golden.reason_absent]
    assert len(patterns) == 10
    prefix = "10_Parameter_Histograms/"
    layers = [name.removeprefix(prefix) for name in written if name.startswith(prefix)]
    assert 20 < len(layers) <= Config().PARAMETER_TRACKING_MAX_LAYERS
    expected = {pattern.format(layer=layer) for pattern in patterns for layer in layers}
    found = {name for name in written if any(expression(pattern).fullmatch(name) for pattern in patterns)}
    assert found == expected


def test_a_real_run_stays_within_the_budget(written: Mapping[str, set[str]]) -> None:
    assert len(written) <= TAG_BUDGET


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_stay_within_the_budget_of_tags(preset: str) -> None:
    config = Config.model_validate(PRESETS[preset])
    assert config.PARAMETER_TRACKING_MAX_LAYERS == 64
    with torch.device("meta"):
        model = build_model(config, build_tokenizer(config, None), torch.device("meta"))
    plan = plan_layers(model, config.PARAMETER_TRACKING_MAX_LAYERS)
    assert plan.modules > 100  # so many layers would each have their own tags without the budget
    names = {
        "layer": len(plan.layers),
        "number": 8,
        "prompt": max(len(config.SAMPLE_PROMPTS), 8),
        "block": len(parameters_by_block(model)),
        "group": 2,
        "key": 4,  # of the schedule with the most state, which follows the validation loss
        "measure": 8,
    }
    total = 0
    for tag in GOLDEN:
        placeholder = re.search(r"\{(\w+)\}", tag)
        total += names[placeholder[1]] if placeholder else 1
    assert 700 < total <= TAG_BUDGET


def test_names_promised_to_users_exist_verbatim(written: Mapping[str, set[str]]) -> None:
    assert [tag for tag in PROMISED_TO_USERS if tag not in written] == []
    assert "14_System/GPU_Memory_Allocated_GB" in TAG_TABLE  # no run on a CPU writes it


def test_tags_of_the_tables_never_mean_two_entries() -> None:
    """A tag that two patterns match would have two meanings."""
    expressions = {tag: expression(tag) for tag in GOLDEN}
    samples = {"layer": "up.0", "number": "3", "prompt": "1_A", "block": "unet", "key": "best", "group": "biases"}
    for tag in GOLDEN:
        name = tag.format(**samples, measure="Quality")
        assert [pattern for pattern, e in expressions.items() if e.fullmatch(name)] == [tag]
