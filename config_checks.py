"""What has to hold between the constants of config.py.

The parameters of a check are the constants that it compares; it returns what is wrong and what to do, or None.
"""

from collections.abc import Sequence
from pathlib import Path

from common.field_types import LETTERS_A_SECOND, SMALLEST_SIDE
from common.settings import CrossFieldCheck

FRAMES_A_LETTER = 2  # at least, of finger-spelling at normal speed


def a_run_must_end(NUM_EPOCHS: int | None, MAX_STEPS: int | None, MAX_MINUTES: float | None) -> str | None:
    if NUM_EPOCHS is None and MAX_STEPS is None and MAX_MINUTES is None:
        return "the run would never end; set at least one of the three"
    return None


def a_format_needs_data(DATA_ROOT: Path | None, DATA_FORMAT: str) -> str | None:
    if DATA_ROOT is None and DATA_FORMAT != "auto":
        return "this is the layout of DATA_ROOT, which is not set; give the path of your clips, or leave it auto"
    return None


def sentences_need_signs(DATA_ROOT: Path | None, COMPOSE_SIGNS: int) -> str | None:
    if DATA_ROOT is None and COMPOSE_SIGNS > 1:
        return "there are no clips of signs to join; set DATA_ROOT, or COMPOSE_SIGNS to 1"
    return None


def outputs_stay_out_of_the_clips(DATA_ROOT: Path | None, LOG_DIR: Path, CACHE_DIR: Path) -> str | None:
    if DATA_ROOT is None:
        return None
    root = DATA_ROOT.absolute()
    within = [str(path) for path in (LOG_DIR, CACHE_DIR) if path.absolute().is_relative_to(root)]
    if within:
        return f"{' and '.join(within)} would lie among the clips, and sample videos count as clips; write elsewhere"
    return None


def captions_hold_a_word(DATA_ROOT: Path | None, MAX_CAPTION_LENGTH: int, MAX_WORD_LETTERS: int) -> str | None:
    longest = MAX_WORD_LETTERS + (MAX_WORD_LETTERS > 1)  # and a space
    if DATA_ROOT is None and longest > MAX_CAPTION_LENGTH:
        return "the longest words would be cut off; raise MAX_CAPTION_LENGTH or lower MAX_WORD_LETTERS"
    return None


def the_shortest_is_no_longer_than_the_longest(MIN_FRAMES: int, MAX_FRAMES: int) -> str | None:
    if MIN_FRAMES > MAX_FRAMES:
        return "the shortest clips would be longer than the longest; lower MIN_FRAMES or raise MAX_FRAMES"
    return None


def a_letter_needs_a_frame(DATA_ROOT: Path | None, MAX_FRAMES: int, MAX_WORD_LETTERS: int) -> str | None:
    if DATA_ROOT is None and MAX_FRAMES < MAX_WORD_LETTERS:
        return "every letter needs at least one frame; raise MAX_FRAMES or lower MAX_WORD_LETTERS"
    return None


def letters_are_slower_than_frames(DATA_ROOT: Path | None, CLIP_TIMING: str, FRAMES_PER_SECOND: float) -> str | None:
    if DATA_ROOT is None and CLIP_TIMING == "natural" and FRAMES_PER_SECOND < FRAMES_A_LETTER * LETTERS_A_SECOND:
        return (
            f"finger-spelling shows {LETTERS_A_SECOND} letters a second, and fast words would have letters without a "
            f"frame; raise FRAMES_PER_SECOND to {FRAMES_A_LETTER * LETTERS_A_SECOND} or set CLIP_TIMING to stretched"
        )
    return None


def levels_fit_the_image(IMAGE_SIZE: tuple[int, int], PATCH_SIZE: int, MODEL_CHANNELS: tuple[int, ...]) -> str | None:
    divisor = side_divisor(PATCH_SIZE, MODEL_CHANNELS)
    remedies = []
    for side in dict.fromkeys(IMAGE_SIZE):
        if side % divisor != 0:
            below, above = side // divisor * divisor, (side // divisor + 1) * divisor
            remedies.append(f"for {side} use {f'{below} or {above}' if below >= SMALLEST_SIDE else above}")
    if not remedies:
        return None
    rule = f"each side of IMAGE_SIZE must be a multiple of {divisor} (PATCH_SIZE, doubled at each further level)"
    return f"{rule}; {', '.join(remedies)}"


def side_divisor(patch_size: int, channels: Sequence[int]) -> int:
    """Return what a side must be a multiple of, so that it can be folded into patches and halved for each level."""
    return int(patch_size * 2 ** (len(channels) - 1))


def attention_sizes_are_levels(
    SPATIAL_ATTENTION_SIZES: tuple[int, ...],
    IMAGE_SIZE: tuple[int, int],
    PATCH_SIZE: int,
    MODEL_CHANNELS: tuple[int, ...],
) -> str | None:
    if levels_fit_the_image(IMAGE_SIZE, PATCH_SIZE, MODEL_CHANNELS) is not None:
        return None  # the levels have no sizes to compare with, and that is reported
    sides = [min(IMAGE_SIZE) // (PATCH_SIZE * 2**level) for level in range(len(MODEL_CHANNELS))]
    unknown = [str(size) for size in SPATIAL_ATTENTION_SIZES if size not in sides]
    if unknown:
        return f"no level has the shorter side length {', '.join(unknown)}; choose from {', '.join(map(str, sides))}"
    return None


def heads_divide_channels(MODEL_CHANNELS: tuple[int, ...], ATTENTION_HEAD_CHANNELS: int) -> str | None:
    return _indivisible(MODEL_CHANNELS, ATTENTION_HEAD_CHANNELS, "ATTENTION_HEAD_CHANNELS")


def groups_divide_channels(MODEL_CHANNELS: tuple[int, ...], GROUP_NORM_GROUPS: int) -> str | None:
    return _indivisible(MODEL_CHANNELS, GROUP_NORM_GROUPS, "GROUP_NORM_GROUPS")


def _indivisible(channels: tuple[int, ...], divisor: int, name: str) -> str | None:
    uneven = [str(each) for each in channels if each % divisor != 0]
    if uneven:
        return f"every level's channels must be a multiple of {name}; {', '.join(uneven)} is not"
    return None


def text_heads_divide_channels(TEXT_CHANNELS: int, TEXT_HEADS: int) -> str | None:
    if TEXT_CHANNELS % TEXT_HEADS != 0:
        return f"TEXT_CHANNELS must be a multiple of TEXT_HEADS; use {(TEXT_CHANNELS // TEXT_HEADS + 1) * TEXT_HEADS}"
    return None


def epsilon_needs_a_signal(PREDICTION_TYPE: str, ZERO_TERMINAL_SNR: bool) -> str | None:
    if PREDICTION_TYPE == "epsilon" and ZERO_TERMINAL_SNR:
        return (
            "at the last timestep noise is all there is, and predicting it says nothing about the clip; "
            "set ZERO_TERMINAL_SNR to False or PREDICTION_TYPE to v_prediction"
        )
    return None


def epsilon_has_no_bound(PREDICTION_TYPE: str, LOSS_WEIGHTING: str) -> str | None:
    if PREDICTION_TYPE == "epsilon" and LOSS_WEIGHTING == "snr_plus_one":
        return (
            "where a clip is nearly noise, the loss would weigh the error of the noise without bound; "
            "set LOSS_WEIGHTING to uniform or min_snr, or PREDICTION_TYPE to sample"
        )
    return None


def guidance_needs_dropout(GUIDANCE_SCALE: float, CAPTION_DROPOUT: float) -> str | None:
    if GUIDANCE_SCALE != 1 and CAPTION_DROPOUT == 0:
        return (
            "guidance needs a model that also learnt without captions; raise CAPTION_DROPOUT or set GUIDANCE_SCALE to 1"
        )
    return None


def sampler_fits_the_timesteps(SAMPLING_STEPS: int, NUM_TRAIN_TIMESTEPS: int) -> str | None:
    if SAMPLING_STEPS > NUM_TRAIN_TIMESTEPS:
        return "a sampler cannot take more steps than the model was trained on; lower SAMPLING_STEPS"
    return None


def kept_checkpoints_are_saved(KEEP_CHECKPOINT_EVERY_STEPS: int | None, SAVE_EVERY_STEPS: int) -> str | None:
    if KEEP_CHECKPOINT_EVERY_STEPS is not None and KEEP_CHECKPOINT_EVERY_STEPS % SAVE_EVERY_STEPS != 0:
        return "no checkpoint would be written at most of these steps; use a multiple of SAVE_EVERY_STEPS"
    return None


def sharded_checkpoints_need_fsdp(CHECKPOINT_LAYOUT: str, PARALLELISM: str) -> str | None:
    if CHECKPOINT_LAYOUT == "sharded" and PARALLELISM != "fsdp":
        return "with ddp every process has all of the model; set CHECKPOINT_LAYOUT to whole or PARALLELISM to fsdp"
    return None


def only_undivided_models_compile(COMPILE_MODEL: bool, PARALLELISM: str) -> str | None:
    if COMPILE_MODEL and PARALLELISM == "fsdp":
        return "PyTorch's compiler fails on a model in parts (tried with 2.13); set COMPILE_MODEL to False or use ddp"
    return None


def prompts_fit_the_captions(SAMPLE_PROMPTS: tuple[str, ...], MAX_CAPTION_LENGTH: int) -> str | None:
    too_long = [repr(prompt) for prompt in SAMPLE_PROMPTS if len(prompt) > MAX_CAPTION_LENGTH]
    if too_long:
        return f"{', '.join(too_long)} would be cut off; shorten it or raise MAX_CAPTION_LENGTH"
    return None


def spelling_needs_letters(DATA_ROOT: Path | None, TEXT_ENCODER: str) -> str | None:
    if DATA_ROOT is None and TEXT_ENCODER != "characters":
        return 'finger-spelling needs letters, which pretrained encoders do not see; use "characters" or set DATA_ROOT'
    return None


CROSS_FIELD_CHECKS: tuple[CrossFieldCheck, ...] = (
    a_run_must_end,
    a_format_needs_data,
    sentences_need_signs,
    outputs_stay_out_of_the_clips,
    captions_hold_a_word,
    spelling_needs_letters,
    the_shortest_is_no_longer_than_the_longest,
    a_letter_needs_a_frame,
    letters_are_slower_than_frames,
    levels_fit_the_image,
    attention_sizes_are_levels,
    heads_divide_channels,
    groups_divide_channels,
    text_heads_divide_channels,
    epsilon_needs_a_signal,
    epsilon_has_no_bound,
    guidance_needs_dropout,
    sampler_fits_the_timesteps,
    prompts_fit_the_captions,
    kept_checkpoints_are_saved,
    sharded_checkpoints_need_fsdp,
    only_undivided_models_compile,
)
