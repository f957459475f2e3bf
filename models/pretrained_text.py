"""A pretrained language model as the text encoder's first layer, by option, through `transformers`."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.field_types import LONGEST_CAPTION
from models.tokens import FIRST_TOKEN, PADDING, pad_tokens

UNLIMITED = 1_000_000  # transformers gives larger numbers to tokenizers without a limit


@dataclass(frozen=True)
class LanguageModel:
    """A frozen model and its tokenizer, both of `transformers`."""

    name: str
    tokenizer: Any
    model: nn.Module
    channels: int  # of its hidden states


@lru_cache(maxsize=2)
def load_language_model(name: str) -> LanguageModel:
    """Load a text encoder (BERT, MiniLM, T5, CLIP, ...) and freeze it.

    Only safetensors are read, and no code that comes with the model is run.

    `name`: a folder, or a name on the Hugging Face hub.

    Raises:
        ValueError: `transformers` is missing, or cannot load the model; the message says why.
    """
    try:
        from transformers import AutoModelForTextEncoding, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        import common.vision  # noqa: F401  transformers imports torchvision, which a PyTorch without CUDA needs help with
    except ImportError as error:
        raise ValueError(
            f"TEXT_ENCODER={name!r} needs another library: python -m pip install -r requirements-text.txt"
        ) from error
    if not sys.stderr.isatty():
        disable_progress_bar()
    try:
        _check_index(name)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModelForTextEncoding.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
    except Exception as error:  # transformers has no common base for what a folder may lack
        raise ValueError(
            f"TEXT_ENCODER={name!r} is neither 'characters' nor a folder or hub name that transformers can load: "
            f"{type(error).__name__}: {str(error).strip()[:300]}"
        ) from error
    return LanguageModel(name, tokenizer, model.float().eval().requires_grad_(False), int(model.config.hidden_size))


def _check_index(name: str) -> None:
    """Refuse an index that names other files as parts of the safetensors: transformers would let PyTorch unpickle them.

    Raises:
        ValueError: it does.
        OSError: the name is neither a folder nor known to the hub.
    """
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME
    from transformers.utils.hub import cached_file

    index = cached_file(name, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False)
    if index is None:
        return
    parts = set(json.loads(Path(index).read_text("utf-8"))["weight_map"].values())
    wrong = sorted(str(part) for part in parts if not str(part).endswith(".safetensors"))
    if wrong:
        raise ValueError(f"{SAFE_WEIGHTS_INDEX_NAME} names {wrong[0]}, and only safetensors are read")


class PretrainedTokenizer:
    """The language model's own tokenizer, with its ids behind those of padding and the null caption."""

    symbols: tuple[str, ...] = ()  # the language model's files say what its ids mean

    def __init__(self, language_model: LanguageModel, max_length: int) -> None:
        self._tokenizer = language_model.tokenizer
        limit = int(self._tokenizer.model_max_length)
        self.limit = LONGEST_CAPTION if limit > UNLIMITED else min(limit, LONGEST_CAPTION)
        self.max_length = min(max_length, self.limit)

    def encode(self, caption: str) -> tuple[list[int], str]:
        """Return the ids of a caption, uncut, and the characters that share the one id of everything unknown."""
        if not caption.strip():
            return [], ""
        return self._ids(caption, truncation=False), self._unknown(caption)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return ids [B, L] int64, cut to `max_length`; what marks the end of a caption is kept."""
        return pad_tokens([self._ids(caption, truncation=True) if caption.strip() else [] for caption in captions])

    def _unknown(self, caption: str) -> str:
        if not self._tokenizer.is_fast or self._tokenizer.unk_token_id is None:  # it does not say what it read where
            return ""
        read = self._tokenizer(caption, return_offsets_mapping=True)
        pieces = zip(read["input_ids"], read["offset_mapping"], strict=True)
        return "".join(caption[start:end] for number, (start, end) in pieces if number == self._tokenizer.unk_token_id)

    def _ids(self, caption: str, *, truncation: bool) -> list[int]:
        length = self.max_length if truncation else None
        ids: list[int] = self._tokenizer(caption, truncation=truncation, max_length=length)["input_ids"]
        return [FIRST_TOKEN + number for number in ids]


class _Shared:
    """Holds a frozen module that copies of the model share and that is not among their weights."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, object]) -> "_Shared":
        return self


class PretrainedEmbedding(nn.Module):
    """Vectors of tokens from a frozen language model, projected to the text encoder's width.

    Only the projection and the vectors of padding and the null caption are trained, averaged and saved; a checkpoint
    needs the language model's own files too.
    """

    def __init__(self, language_model: LanguageModel, channels: int) -> None:
        super().__init__()
        self._language_model = _Shared(language_model.model)
        self.special = nn.Embedding(FIRST_TOKEN, channels)
        self.norm = nn.LayerNorm(language_model.channels)
        self.project = nn.Linear(language_model.channels, channels)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Map tokens [B, L] int64 to vectors [B, L, channels]."""
        is_word_BL = tokens_BL >= FIRST_TOKEN
        # A caption without words still needs one place to look at; what comes of it is not used.
        attention_BL = (tokens_BL != PADDING).long()
        with torch.no_grad():
            hidden_BLH = self._language_model.module(
                input_ids=(tokens_BL - FIRST_TOKEN).clamp(min=0), attention_mask=attention_BL
            ).last_hidden_state
        words_BLC = self.project(self.norm(hidden_BLH.float()))
        special_BLC = self.special(tokens_BL.clamp(max=FIRST_TOKEN - 1))
        return torch.where(is_word_BL[..., None], words_BLC, special_BLC.to(words_BLC.dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PretrainedEmbedding":
        """Move the language model along with the rest."""
        self._language_model.module._apply(fn)
        return super()._apply(fn, recurse)
