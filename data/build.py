"""From constants to the data set."""

import dataclasses
import os

from config import Config
from data.cache import ClipCache
from data.captions import caption_measures, caption_notices
from data.clip_set import open_clip_set
from data.fingerspelling import open_fingerspelling
from data.formats import folder, words
from data.formats.registry import read_data_set
from data.inspection import ClipReader, Inspection, inspect_clips, with_one_region
from data.lengths import stored_lengths
from data.media.files import printable
from data.media.resample import ClipShape
from data.records import DataSplits
from data.rows import Notice
from data.verdicts import VerdictStore
from models.build import build_tokenizer
from models.tokens import unread


def build_data(config: Config, symbols: tuple[str, ...] | None = None) -> DataSplits:
    """Open the clips of DATA_ROOT, or compose finger-spelled words if it is not set.

    `symbols`: those of the tokenizer that reads captions of DATA_ROOT, where a trained run decided them.

    Raises:
        UserError: the data cannot be used; the message says why.
    """
    if config.DATA_ROOT is not None:
        return open_clip_set(config, *inspect_data(config), build_tokenizer(config, symbols))
    splits = open_fingerspelling(config, _build_cache(config))
    tokenizer = build_tokenizer(config, splits.symbols)
    # All training captions have the same letters, and to draw them takes long.
    captions = [splits.validation.row(0, index).caption for index in range(len(splits.validation))]
    lost = unread(tokenizer, captions)
    summary = dataclasses.replace(
        splits.summary,
        notices=caption_notices(config, lost, tokenizer, captions),
        measures=caption_measures(lost, len(captions)),
    )
    return dataclasses.replace(splits, summary=summary)


def inspect_data(config: Config) -> tuple[Inspection, ClipReader]:
    """Read every clip of DATA_ROOT, which is set, and remember in CACHE_DIR what was found out.

    Raises:
        UserError: the data set cannot be read at all.
    """
    assert config.DATA_ROOT is not None
    name, recognised, manifest = read_data_set(config.DATA_ROOT, config.DATA_FORMAT, config.DATA_ALLOW)
    if config.SIGNER_FROM_FILE_NAME:
        if name in (folder.FORMAT.name, words.FORMAT.name):
            manifest = folder.with_signers(manifest)
        else:
            note = f"SIGNER_FROM_FILE_NAME changes nothing: it is for folders, and this is {recognised}"
            manifest = dataclasses.replace(manifest, notices=(*manifest.notices, Notice("split", note)))
    if missing := [str(folder) for folder in config.DATA_ALLOW if not os.path.isdir(folder)]:
        note = f"DATA_ALLOW names {printable(missing[0])}, which is no folder here: correct it or take it away"
        manifest = dataclasses.replace(manifest, notices=(*manifest.notices, Notice("files", note)))
    shape = ClipShape(stored_lengths(config), config.IMAGE_SIZE, config.CLIP_FIT)
    reader = ClipReader(manifest.root, shape, _build_cache(config))
    found = inspect_clips(name, recognised, manifest, reader, VerdictStore(config.CACHE_DIR, manifest.root))
    usable = with_one_region(found.usable) if config.COMPOSE_SIGNS > 1 else found.usable
    return dataclasses.replace(found, usable=usable), reader


def _build_cache(config: Config) -> ClipCache:
    return ClipCache(config.CACHE_DIR, int(config.CACHE_LIMIT_GB * 1e9))
