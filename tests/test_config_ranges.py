"""Every number in config.py has bounds that hold, and that its message names."""

import re

import pytest

from common.command_line import option_name
from common.errors import UserError
from common.settings import load_settings
from config import PRESETS, Config

BILLION = 10**9

# field: (refused below, smallest accepted, largest accepted, refused above)
RANGES = {
    "CACHE_LIMIT_GB": (0, 0.1, 1e6, 1.1e6),
    "SEED": (-1, 0, 2**63 - 1, 2**63),
    "NUM_EPOCHS": (0, 1, BILLION, BILLION + 1),
    "MAX_STEPS": (0, 1, BILLION, BILLION + 1),
    "MAX_MINUTES": (0, 0.01, 1e7, 1.1e7),
    "MAX_WORD_LETTERS": (0, 1, 12, 13),
    "COMPOSE_SIGNS": (0, 1, 8, 9),
    "EPOCH_SIZE": (0, 1, BILLION, BILLION + 1),
    "HELD_OUT_WORD_FRACTION": (-0.1, 0, 0.9, 0.91),
    "HELD_OUT_BIGRAM_FRACTION": (-0.1, 0, 0.9, 0.91),
    "VALIDATION_FRACTION": (0, 0.01, 0.9, 0.91),
    "VALIDATION_CLIPS": (1, 2, 100_000, 100_001),
    "FRAMES_PER_SECOND": (0.05, 0.1, 60, 61),
    "MIN_FRAMES": (0, 4, 1024, 1028),
    "MAX_FRAMES": (0, 4, 1024, 1028),
    "NUM_WORKERS": (-1, 0, 256, 257),
    "BATCH_SIZE": (0, 1, 65536, 65537),
    "GRADIENT_ACCUMULATION_STEPS": (0, 1, 65536, 65537),
    "BLOCKS_PER_LEVEL": (0, 1, 16, 17),
    "ATTENTION_HEAD_CHANNELS": (0, 1, 1024, 1025),
    "GROUP_NORM_GROUPS": (0, 1, 1024, 1025),
    "TEXT_CHANNELS": (0, 1, 8192, 8193),
    "TEXT_LAYERS": (0, 1, 48, 49),
    "TEXT_HEADS": (0, 1, 128, 129),
    "MAX_CAPTION_LENGTH": (0, 1, 4096, 4097),
    "NUM_TRAIN_TIMESTEPS": (9, 10, 100_000, 100_001),
    "NOISE_SCHEDULE_SHIFT": (0, 0.01, 100, 101),
    "MIN_SNR_GAMMA": (0, 0.1, 1e6, 1.1e6),
    "MOTION_WEIGHT": (-0.1, 0, 100, 101),
    "CAPTION_DROPOUT": (-0.1, 0, 1, 1.1),
    "LEARNING_RATE": (0, 1e-9, 1, 1.1),
    "WEIGHT_DECAY": (-0.1, 0, 1, 1.1),
    "ADAM_BETA_1": (-0.1, 0, 0.9999, 1),
    "ADAM_BETA_2": (-0.1, 0, 0.9999, 1),
    "GRADIENT_CLIP_NORM": (0, 0.1, 1e9, 1.1e9),
    "EMA_DECAY": (-0.1, 0, 0.9999, 1),
    "MAX_SKIPPED_STEPS_IN_A_ROW": (0, 1, BILLION, BILLION + 1),
    "LR_WARMUP_STEPS": (-1, 0, BILLION, BILLION + 1),
    "LR_FINAL_FRACTION": (-0.1, 0, 1, 1.1),
    "LR_RESTART_EVERY_STEPS": (0, 1, BILLION, BILLION + 1),
    "LR_EXPONENTIAL_DECAY": (0, 0.1, 1, 1.1),
    "LR_POLYNOMIAL_POWER": (0, 0.1, 100, 101),
    "LR_PLATEAU_PATIENCE": (-1, 0, BILLION, BILLION + 1),
    "LR_PLATEAU_FACTOR": (0, 0.1, 0.99, 1),
    "SAMPLING_STEPS": (0, 1, 100_000, 100_001),
    "RECOGNISER_STEPS": (-1, 0, 1_000_000, 1_000_001),
    "GUIDANCE_SCALE": (-0.1, 0, 100, 101),
    "GUIDANCE_RESCALE": (-0.1, 0, 1, 1.1),
    "SAMPLE_EVERY_STEPS": (0, 1, BILLION, BILLION + 1),
    "VALIDATE_EVERY_STEPS": (0, 1, BILLION, BILLION + 1),
    "SAVE_EVERY_STEPS": (0, 1, BILLION, BILLION + 1),
    "KEEP_CHECKPOINTS": (0, 1, 10**6, 10**6 + 1),
    "LOG_EVERY_EPOCHS": (0, 1, BILLION, BILLION + 1),
    "DIAGNOSTIC_LOG_EVERY_STEPS": (0, 1, BILLION, BILLION + 1),
    "TENSORBOARD_FLUSH_EVERY_STEPS": (0, 1, BILLION, BILLION + 1),
    "LOG_EVERY_STEPS": (0, 1, BILLION, BILLION + 1),
    "SYSTEM_SAMPLE_SECONDS": (0.01, 0.1, 86_400, 86_401),
    "PARAMETER_TRACKING_MAX_LAYERS": (0, 1, 10_000, 10_001),
    "HISTOGRAM_BINS": (1, 2, 64, 65),
}


def load(*arguments: str) -> Config:
    return load_settings(Config, PRESETS, arguments, program="main.py").config


def outcome(*arguments: str) -> Config | str:
    """Return the config, or the message that refuses it."""
    try:
        return load(*arguments)
    except UserError as error:
        return str(error)


def test_every_number_has_a_range_in_the_table() -> None:
    numbers = {name for name in Config.model_fields if isinstance(getattr(Config(), name), int | float)}
    switches = {name for name, field in Config.model_fields.items() if field.annotation is bool}
    assert set(RANGES) == numbers - switches - {"PATCH_SIZE"} | {"NUM_EPOCHS"}


@pytest.mark.parametrize("name", RANGES)
def test_range(name: str) -> None:
    too_low, lowest, highest, too_high = RANGES[name]
    low, high = (str(outcome(f"{option_name(name)}={value}")) for value in (too_low, too_high))
    origin = re.escape(f"(command line {option_name(name)})")
    assert re.search(rf"^  - {name} = {too_low} {origin}: should be greater than", low, re.MULTILINE)
    assert re.search(rf"^  - {name} = {re.escape(str(too_high))} {origin}: should be less than", high, re.MULTILINE)
    for value in (lowest, highest):
        result = outcome(f"{option_name(name)}={value}")
        if isinstance(result, str):  # another constant does not go with it, but the value itself is fine
            assert f"{name} = {value} (" not in result
        else:
            assert getattr(result, name) == value
