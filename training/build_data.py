"""From constants to the data set."""

from config import Config
from data.cache import ClipCache
from data.fingerspelling import open_fingerspelling
from data.folder import open_folder
from data.records import DataSplits


def build_data(config: Config) -> DataSplits:
    """Open the folder DATA_ROOT, or compose finger-spelled words where there is none.

    Raises:
        UserError: the data cannot be used; the message says why.
    """
    cache = ClipCache(config.CACHE_DIR, int(config.CACHE_LIMIT_GB * 1e9))
    if config.DATA_ROOT is not None:
        return open_folder(
            config.DATA_ROOT,
            num_frames=config.NUM_FRAMES,
            image_size=config.IMAGE_SIZE,
            validation_fraction=config.VALIDATION_FRACTION,
            validation_clips=config.VALIDATION_CLIPS,
            seed=config.SEED,
            cache=cache,
        )
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
        cache=cache,
    )
