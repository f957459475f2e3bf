"""Every constant refuses what it cannot be, every cross-field check speaks, every preset is valid."""

import functools
import inspect
import re
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from common.command_line import option_name
from common.errors import UserError
from common.field_types import ImageSize
from common.settings import CrossFieldCheck, config_as_json, config_from_json, load_settings
from config import ARCHITECTURE_FIELDS, PRESETS, Config

PROMISED_DEFAULTS = {
    "LOG_EVERY_EPOCHS": 1,
    "DIAGNOSTIC_LOG_EVERY_STEPS": 500,
    "TENSORBOARD_FLUSH_EVERY_STEPS": 500,
    "ENABLE_GRADIENT_HISTOGRAMS": True,
    "ENABLE_PARAMETER_TRACKING": True,
    "ENABLE_VIDEO_LOGGING": True,
    "ENABLE_NOISE_VISUALIZATION": True,
    "ENABLE_PERFORMANCE_PROFILING": True,
}

# (field, what is typed, part of the message)
REFUSED = [
    ("EXPERIMENT_NAME", "a/b", "cannot contain '/'"),
    ("EXPERIMENT_NAME", "a\\b", r"cannot contain '\\'"),
    ("EXPERIMENT_NAME", "..", "cannot begin with a dot"),
    ("EXPERIMENT_NAME", "a\nb", r"cannot contain '\n'"),
    ("EXPERIMENT_NAME", "x" * 101, "1 to 100 characters"),
    ("EXPERIMENT_NAME", "", "needs a value, not an empty text"),
    ("LOG_DIR", "", "needs a value, not an empty text"),
    ("CACHE_DIR", " ", "needs a value, not an empty text"),
    ("DATA_ROOT", "", "needs a value, not an empty text"),
    ("DATA_ALLOW", '["/mnt/clips", "clips"]', "item 2 write the whole path of the folder"),
    ("DATA_ALLOW", '["/mnt/clips", ""]', "item 2 write the whole path of the folder"),
    ("DATA_ALLOW", "~no such user/clips", "nobody of this name has a home folder"),
    ("DATA_FORMAT", "coco", "should be 'auto', 'folder', 'words', 'manifest', 'how2sign',"),
    ("CLIP_TIMING", "padded", "should be 'natural' or 'stretched'"),
    ("MIN_FRAMES", "6", "multiple of 4"),
    ("MAX_FRAMES", "18", "multiple of 4"),
    ("CLIP_FIT", "stretch", "should be 'crop', 'pad' or 'signer'"),
    ("SPLIT_BY", "random", "should be 'auto', 'signer' or 'caption'"),
    ("SIGNED_LANGUAGE", "", "should have at least 1 item"),
    ("TEXT_ENCODER", "", "needs a value, not an empty text"),
    ("DEVICE", "tpu", "should be 'auto', 'cpu', 'cuda' or 'mps'"),
    ("MIXED_PRECISION", "half", "should be 'auto', 'off', 'bfloat16' or 'float16'"),
    ("PATCH_SIZE", "3", "should be 1, 2 or 4"),
    ("IMAGE_SIZE", "33", "multiple of 2"),
    ("IMAGE_SIZE", "14", "item 1 should be greater than or equal to 16"),
    ("IMAGE_SIZE", "32,2050", "item 2 should be less than or equal to 2048"),
    ("IMAGE_SIZE", "32x16", "should be a valid integer"),
    ("IMAGE_SIZE", "32,16,3", "at most 2 items"),
    ("IMAGE_SIZE", "", "Field required"),
    ("NOISE_SCHEDULE", "sine", "should be 'linear', 'cosine', 'sigmoid' or 'quadratic'"),
    ("PREDICTION_TYPE", "x0", "should be 'v_prediction', 'epsilon' or 'sample'"),
    ("LOSS_WEIGHTING", "snr", "should be 'uniform', 'min_snr' or 'snr_plus_one'"),
    ("LR_SCHEDULE", "step", "'warm_restarts', 'exponential' or 'polynomial'"),
    ("SAMPLER", "DDIM", "should be 'ddim', 'ddpm', 'dpm_solver++', 'euler' or 'heun'"),
    ("MODEL_CHANNELS", "", "at least 1 item"),
    ("MODEL_CHANNELS", "64,0", "item 2 should be greater than or equal to 1"),
    ("MODEL_CHANNELS", "64,8200", "item 2 should be less than or equal to 8192"),
    ("MODEL_CHANNELS", "64,x", "item 2 should be a valid integer"),
    ("MODEL_CHANNELS", "[64,", "is not a JSON list"),
    ("MODEL_CHANNELS", "[true]", "True and False are for switches"),
    ("MODEL_CHANNELS", "8,8,8,8,8,8,8,8,8", "at most 8 items"),
    ("SPATIAL_ATTENTION_SIZES", "", "at least 1 item"),
    ("SPATIAL_ATTENTION_SIZES", "8,8", "each value may occur once; 8 occurs more often"),
    ("GUIDANCE_INTERVAL", "1,0", "the first number must be smaller than the second"),
    ("GUIDANCE_INTERVAL", "0.5,0.5", "the first number must be smaller than the second"),
    ("GUIDANCE_INTERVAL", "0,1.5", "item 2 should be less than or equal to 1"),
    ("GUIDANCE_INTERVAL", "0,nan", "item 2 should be a finite number"),
    ("GUIDANCE_INTERVAL", "0", "item 2 Field required"),
    ("PARALLELISM", "tensor", "should be 'ddp' or 'fsdp'"),
    ("CHECKPOINT_LAYOUT", "pickled", "should be 'whole' or 'sharded'"),
    ("SAMPLE_PROMPTS", '["A", " "]', "item 2 the text is empty"),
    ("SAMPLE_PROMPTS", "[1]", "item 1 should be a valid string"),
    ("LEARNING_RATE", "nan", "should be a finite number"),
    ("MAX_MINUTES", "inf", "should be a finite number"),
    ("MAX_STEPS", "1.5", "should be a valid integer"),
    ("BATCH_SIZE", "none", "should be a valid integer"),
    ("MAX_STEPS", "99999999999999999999999999", "should be less than or equal to"),
    ("KEEP_CHECKPOINT_EVERY_STEPS", "0", "should be greater than or equal to 1"),
]

# (what is typed, the constants that are named, part of the message)
CROSS_FIELD = [
    ("--max-steps none --max-minutes none", "NUM_EPOCHS MAX_STEPS MAX_MINUTES", "set at least one of the three"),
    ("--max-caption-length 5", "MAX_CAPTION_LENGTH MAX_WORD_LETTERS", "longest words would be cut off"),
    ("--frames-per-second 5", "CLIP_TIMING FRAMES_PER_SECOND", "raise FRAMES_PER_SECOND to 6"),
    ("--data-root clips --log-dir clips/logs", "DATA_ROOT LOG_DIR CACHE_DIR", "would lie among the clips"),
    ("--data-format wlasl", "DATA_ROOT DATA_FORMAT", "layout of DATA_ROOT, which is not set"),
    ("--compose-signs 3", "DATA_ROOT COMPOSE_SIGNS", "there are no clips of signs to join"),
    ("--text-encoder some/model", "DATA_ROOT TEXT_ENCODER", 'use "characters" or set DATA_ROOT'),
    ("--min-frames 36", "MIN_FRAMES MAX_FRAMES", "lower MIN_FRAMES or raise MAX_FRAMES"),
    ("--max-frames 4 --max-word-letters 5", "MAX_FRAMES MAX_WORD_LETTERS", "every letter needs at least one frame"),
    ("--image-size 36", "IMAGE_SIZE PATCH_SIZE MODEL_CHANNELS", "must be a multiple of 16 .*use 32 or 48"),
    ("--image-size 18", "IMAGE_SIZE PATCH_SIZE MODEL_CHANNELS", "for 18 use 16 or 32"),
    ("--image-size 36,50", "IMAGE_SIZE PATCH_SIZE MODEL_CHANNELS", "for 36 use 32 or 48, for 50 use 48 or 64"),
    ("--spatial-attention-sizes 8,12", "SPATIAL_ATTENTION_SIZES IMAGE_SIZE", "side length 12; choose from 16, 8, 4"),
    ("--image-size 64,32 --spatial-attention-sizes 16", "SPATIAL_ATTENTION_SIZES IMAGE_SIZE", "choose from 8, 4, 2"),
    ("--attention-head-channels 48", "MODEL_CHANNELS ATTENTION_HEAD_CHANNELS", "multiple of .*; 64, 128 is not"),
    ("--group-norm-groups 48", "MODEL_CHANNELS GROUP_NORM_GROUPS", "multiple of GROUP_NORM_GROUPS; 64, 128 is not"),
    ("--text-heads 3", "TEXT_CHANNELS TEXT_HEADS", "multiple of TEXT_HEADS; use 129"),
    (
        "--prediction-type epsilon --loss-weighting uniform",
        "PREDICTION_TYPE ZERO_TERMINAL_SNR",
        "set ZERO_TERMINAL_SNR to False",
    ),
    (
        "--prediction-type epsilon --no-zero-terminal-snr",
        "PREDICTION_TYPE LOSS_WEIGHTING",
        "set LOSS_WEIGHTING to uniform or min_snr",
    ),
    ("--caption-dropout 0", "GUIDANCE_SCALE CAPTION_DROPOUT", "raise CAPTION_DROPOUT or set GUIDANCE_SCALE to 1"),
    ("--sampling-steps 1001", "SAMPLING_STEPS NUM_TRAIN_TIMESTEPS", "lower SAMPLING_STEPS"),
    ("--checkpoint-layout sharded", "CHECKPOINT_LAYOUT PARALLELISM", "set CHECKPOINT_LAYOUT to whole or PARALLELISM"),
    ("--compile-model --parallelism fsdp", "COMPILE_MODEL PARALLELISM", "set COMPILE_MODEL to False or use ddp"),
    (
        "--keep-checkpoint-every-steps 600",
        "KEEP_CHECKPOINT_EVERY_STEPS SAVE_EVERY_STEPS",
        "use a multiple of SAVE_EVERY_STEPS",
    ),
    (
        "--max-caption-length 3 --sample-prompts ABC ABCD",
        "SAMPLE_PROMPTS MAX_CAPTION_LENGTH",
        "'ABCD' would be cut off",
    ),
]

ACCEPTED = [
    "--min-frames 32",
    "--clip-timing stretched --frames-per-second 1",
    "--data-root clips --frames-per-second 1",
    "--max-steps 1 --lr-warmup-steps 100000 --save-every-steps 100000 --validate-every-steps 100000",
    "--max-steps none --num-epochs 1",
    "--signed-language ase gsg,jos",
    "--max-steps none --lr-schedule constant",
    "--max-steps none --lr-schedule cosine",
    "--max-steps none --max-minutes none --num-epochs 2",
    "--prediction-type epsilon --no-zero-terminal-snr --loss-weighting uniform",
    "--caption-dropout 0 --guidance-scale 1",
    "--data-root clips --max-caption-length 2",
    '--data-root clips --data-allow ["/mnt/clips","~/clips"]',
    "--data-root clips --epoch-size 1",
    "--data-root clips --text-encoder some/model",
    "--image-size 48 --spatial-attention-sizes 12,6,3",
    "--image-size 32,2048 --spatial-attention-sizes 8,4,2",
    "--image-size 2048,32 --spatial-attention-sizes 8,4,2",
    "--lr-schedule plateau --max-steps none",
    "--keep-checkpoint-every-steps 1000",
]


def load(*arguments: str) -> Config:
    return load_settings(Config, PRESETS, arguments, program="main.py").config


def outcome(*arguments: str) -> Config | str:
    """Return the config, or the message that refuses it."""
    try:
        return load(*arguments)
    except UserError as error:
        return str(error)


def message_for(*arguments: str) -> str:
    message = outcome(*arguments)
    assert isinstance(message, str), "nothing was refused"
    return message


@pytest.mark.parametrize(("name", "typed", "part"), REFUSED)
def test_refused_value(name: str, typed: str, part: str) -> None:
    message = message_for(option_name(name), typed)
    assert part in message
    assert name in message or option_name(name) in message


def test_every_constant_that_is_no_number_or_switch_has_a_test() -> None:
    """Numbers have their ranges in test_config_ranges.py."""
    defaults = {name: field.default for name, field in Config.model_fields.items()}
    others = {name for name, default in defaults.items() if not isinstance(default, int | float)} - {"NUM_EPOCHS"}
    assert others | {"PATCH_SIZE"} <= {name for name, _, _ in REFUSED}


@pytest.mark.parametrize(("typed", "names", "part"), CROSS_FIELD)
def test_cross_field_check(typed: str, names: str, part: str) -> None:
    lines = [line for line in message_for(*typed.split()).splitlines() if re.search(part, line)]
    assert len(lines) == 1
    assert all(f"{name} = " in lines[0] for name in names.split())


def test_every_cross_field_check_has_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    spoke = set()

    def listen(check: CrossFieldCheck) -> CrossFieldCheck:
        @functools.wraps(check)
        def listening(**values: object) -> str | None:
            problem = check(**values)
            spoke.update([check] if problem else [])
            return problem

        return listening

    checks = Config.cross_field_checks
    monkeypatch.setattr(Config, "cross_field_checks", tuple(map(listen, checks)))
    for typed, _, _ in CROSS_FIELD:
        message_for(*typed.split())
    assert spoke == set(checks)


def test_cross_field_checks_name_real_constants() -> None:
    for check in Config.cross_field_checks:
        assert inspect.signature(check).parameters.keys() <= Config.model_fields.keys()


@pytest.mark.parametrize("typed", ACCEPTED)
def test_accepted(typed: str) -> None:
    assert load(*typed.split()) is not None


def test_the_class_checks_itself_too() -> None:
    with pytest.raises(ValidationError, match="lower SAMPLING_STEPS"):
        Config(SAMPLING_STEPS=2000)
    with pytest.raises(ValidationError, match="True and False are for switches"):
        Config(BATCH_SIZE=True)
    with pytest.raises(ValidationError, match="this is a switch"):
        Config(ENABLE_VIDEO_LOGGING=1)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Config(BATCHSIZE=1)
    with pytest.raises(ValidationError, match="frozen"):
        Config().BATCH_SIZE = 2


@pytest.mark.parametrize(("typed", "sides", "saved"), [("48", (48, 48), 48), ("64,48", (64, 48), [64, 48])])
def test_one_number_is_a_square_wherever_it_stands(typed: str, sides: tuple[int, int], saved: object) -> None:
    config = load(f"--image-size={typed}", "--spatial-attention-sizes=12")
    written = config_as_json(config)
    assert written["IMAGE_SIZE"] == saved  # one number for a square, as in the folders of older runs
    assert [each.IMAGE_SIZE for each in (config, config_from_json(Config, written))] == [sides, sides]


def test_one_number_in_the_file_is_a_square_too() -> None:
    class Edited(Config):
        IMAGE_SIZE: ImageSize = Field(64, validate_default=True)

    loaded = load_settings(Edited, {"tiny": {}}, [], program="main.py")
    assert Edited().IMAGE_SIZE == loaded.config.IMAGE_SIZE == (64, 64)
    assert loaded.file_values["IMAGE_SIZE"] == 64
    assert Config.model_fields["IMAGE_SIZE"].validate_default


def test_promised_constants_have_their_defaults() -> None:
    config = Config()
    assert {name: getattr(config, name) for name in PROMISED_DEFAULTS} == PROMISED_DEFAULTS


def test_file_alone_is_valid_and_is_tiny() -> None:
    assert load() == load("--preset", "tiny") == Config()
    assert next(iter(PRESETS)) == "tiny"


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_is_valid_and_restates_only_what_differs(preset: str) -> None:
    config = load("--preset", preset)
    for name, value in PRESETS[preset].items():
        assert value != Config.model_fields[name].default, f"{name} is what the class says anyway"
        assert getattr(config, name) == value
    for name in Config.model_fields.keys() - PRESETS[preset].keys():
        assert getattr(config, name) == Config.model_fields[name].default


def test_architecture_fields_exist() -> None:
    assert set(Config.model_fields) >= ARCHITECTURE_FIELDS
    assert {"MODEL_CHANNELS", "IMAGE_SIZE", "MAX_FRAMES", "NOISE_SCHEDULE"} <= ARCHITECTURE_FIELDS
    assert "LEARNING_RATE" not in ARCHITECTURE_FIELDS


def test_every_constant_is_described_and_in_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        load("--help")
    printed = capsys.readouterr().out
    assert exit_.value.code == 0
    for name, field in Config.model_fields.items():
        assert re.search(rf"^  (--no-)?{option_name(name)}\b", printed, re.MULTILINE), name
        assert field.description is not None
        assert field.description.split()[0] in printed
        assert field.description.endswith(".")
    for heading in ("Run:", "Data:", "Model:", "Logging:"):
        assert f"\n{heading}\n" in printed


@pytest.mark.parametrize("preset", PRESETS)
def test_config_survives_json(preset: str) -> None:
    config = load("--preset", preset, "--data-root", "some/clips", "--sample-prompts", "A", "B")
    saved = config_as_json(config)
    assert saved["DATA_ROOT"] == str(Path("some/clips"))
    assert saved["SAMPLE_PROMPTS"] == ["A", "B"]
    assert config_from_json(Config, saved) == config
