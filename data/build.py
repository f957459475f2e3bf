"""From constants to the data set."""

from config import Config
from data.cache import ClipCache
from data.clip_reader import ClipReader
from data.clip_set import SplitRule, inspect_data, open_clip_set
from data.fingerspelling import open_fingerspelling
from data.formats.data_format import ReadingOptions
from data.inspection import Inspection
from data.media.resample import ClipShape
from data.records import DataSplits


def build_data(config: Config) -> DataSplits:
    """Open the clips of DATA_ROOT, or compose finger-spelled words where there is none.

    Raises:
        UserError: the data cannot be used; the message says why.
    """
    if config.DATA_ROOT is not None:
        inspection, reader = build_inspection(config)
        return open_clip_set(config.DATA_ROOT, inspection, reader, build_split_rule(config))
    return open_fingerspelling(
        signed_language=config.SIGNED_LANGUAGE,
        num_frames=config.NUM_FRAMES,
        image_size=config.IMAGE_SIZE,
        max_word_letters=config.MAX_WORD_LETTERS,
        epoch_size=config.EPOCH_SIZE,
        held_out_word_fraction=config.HELD_OUT_WORD_FRACTION,
        held_out_bigram_fraction=config.HELD_OUT_BIGRAM_FRACTION,
        validation_clips=config.VALIDATION_CLIPS,
        seed=config.SEED,
        cache=_build_cache(config),
    )


def build_inspection(config: Config) -> tuple[Inspection, ClipReader]:
    """Look at every clip of DATA_ROOT, which is set.

    Raises:
        UserError: it cannot be read at all.
    """
    assert config.DATA_ROOT is not None
    return inspect_data(
        config.DATA_ROOT,
        config.DATA_FORMAT,
        ReadingOptions(signer_from_file_name=config.SIGNER_FROM_FILE_NAME),
        ClipShape(config.NUM_FRAMES, config.IMAGE_SIZE, config.CLIP_FIT),
        config.CACHE_DIR,
        _build_cache(config),
    )


def build_split_rule(config: Config) -> SplitRule:
    """Return what the constants say of what is held out of DATA_ROOT."""
    return SplitRule(config.SPLIT_BY, config.VALIDATION_FRACTION, config.VALIDATION_CLIPS, config.SEED)


def _build_cache(config: Config) -> ClipCache:
    return ClipCache(config.CACHE_DIR, int(config.CACHE_LIMIT_GB * 1e9))
