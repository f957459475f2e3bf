"""From constants to the tokenizer, the network and what it learns."""

import torch

from common.errors import UserError
from common.field_types import language_mark
from common.randomness import derive_seed
from config import Config
from diffusion.loss import DiffusionObjective
from diffusion.schedule import NoiseSchedule, build_noise_schedule
from models.pretrained_text import PretrainedEmbedding, PretrainedTokenizer, load_language_model
from models.text_encoder import CharacterEncoder, LanguageEmbedding, TextEncoder
from models.tokens import FIRST_TOKEN, TEXT_SYMBOLS, CharacterTokenizer, Tokenizer
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification

CHARACTERS = "characters"  # the TEXT_ENCODER that is trained from scratch


def build_tokenizer(config: Config, symbols: tuple[str, ...] | None) -> Tokenizer:
    """Build the tokenizer for the data set's symbols; where it names none, for Latin, Greek and Cyrillic letters.

    Raises:
        UserError: a pretrained TEXT_ENCODER cannot be loaded.
    """
    if config.TEXT_ENCODER != CHARACTERS:
        try:
            return PretrainedTokenizer(load_language_model(config.TEXT_ENCODER), config.MAX_CAPTION_LENGTH)
        except ValueError as error:
            raise UserError(str(error)) from error
    return CharacterTokenizer(symbols if symbols is not None else TEXT_SYMBOLS, config.MAX_CAPTION_LENGTH)


def build_model(config: Config, tokenizer: Tokenizer, device: torch.device) -> TextToVideoModel:
    """Build the network with weights that depend only on SEED, and move it to the device.

    Raises:
        UserError: the constants do not fit together.
    """
    specification = UNet3DSpecification(
        image_size=config.IMAGE_SIZE,
        num_timesteps=config.NUM_TRAIN_TIMESTEPS,
        channels=config.MODEL_CHANNELS,
        blocks_per_level=config.BLOCKS_PER_LEVEL,
        patch_size=config.PATCH_SIZE,
        spatial_attention_sizes=config.SPATIAL_ATTENTION_SIZES,
        head_channels=config.ATTENTION_HEAD_CHANNELS,
        groups=config.GROUP_NORM_GROUPS,
        text_channels=config.TEXT_CHANNELS,
    )
    # PyTorch's initialisers draw from the global generator: lend it a seed, then give it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.SEED, "initial_weights"))
        try:
            unet = UNet3D(specification, checkpoint_activations=config.ACTIVATION_CHECKPOINTING)
            model = TextToVideoModel(_text_encoder(config, tokenizer), unet)
        except ValueError as error:
            raise UserError(f"the model cannot be built from config.py: {error}") from error
    return model.to(device)


def _text_encoder(config: Config, tokenizer: Tokenizer) -> TextEncoder:
    size = (config.TEXT_CHANNELS, config.TEXT_LAYERS, config.TEXT_HEADS)
    if config.TEXT_ENCODER == CHARACTERS and any(map(language_mark, tokenizer.symbols)):
        return TextEncoder(LanguageEmbedding(tokenizer.symbols, config.TEXT_CHANNELS), *size)
    if config.TEXT_ENCODER == CHARACTERS:
        return CharacterEncoder(FIRST_TOKEN + len(tokenizer.symbols), *size)
    return TextEncoder(PretrainedEmbedding(load_language_model(config.TEXT_ENCODER), config.TEXT_CHANNELS), *size)


def build_schedule(config: Config, device: torch.device) -> NoiseSchedule:
    """Build the noise schedule on the device."""
    return build_noise_schedule(
        config.NOISE_SCHEDULE,
        num_timesteps=config.NUM_TRAIN_TIMESTEPS,
        zero_terminal_snr=config.ZERO_TERMINAL_SNR,
        shift=config.NOISE_SCHEDULE_SHIFT,
    ).to(device)


def build_objective(config: Config, device: torch.device) -> DiffusionObjective:
    """Build what the constants under "Diffusion" ask the network to learn."""
    return DiffusionObjective(
        schedule=build_schedule(config, device),
        prediction_type=config.PREDICTION_TYPE,
        weighting=config.LOSS_WEIGHTING,
        min_snr_gamma=config.MIN_SNR_GAMMA,
        caption_dropout=config.CAPTION_DROPOUT,
        motion_weight=config.MOTION_WEIGHT,
    )
