"""Captions become the right tokens, and padding says nothing."""

import pytest
import torch

from models.text_encoder import PHASE_MOMENTS, CharacterEncoder, CharacterPhase
from models.tokens import NULL_CAPTION, PADDING, CharacterTokenizer


def encoder() -> CharacterEncoder:
    torch.manual_seed(0)
    return CharacterEncoder(vocabulary_size=28, channels=32, layers=2, heads=4).eval()


def test_tokens_follow_the_order_of_the_symbols_and_rows_are_padded() -> None:
    tokenizer = CharacterTokenizer(["A", "B", "C"], max_length=8)
    assert tokenizer(["CAB", "B"]).tolist() == [[4, 2, 3], [3, PADDING, PADDING]]


def test_longest_symbol_wins_and_case_is_folded_only_where_needed() -> None:
    tokenizer = CharacterTokenizer(["C", "CH", "H", "a"], max_length=8)
    assert tokenizer.encode("CHC") == ([3, 2], "")
    assert tokenizer.encode("chA") == ([3, 5], "")


def test_unknown_characters_are_dropped_and_reported() -> None:
    tokenizer = CharacterTokenizer(["A", "B"], max_length=8)
    assert tokenizer.encode("A?Bß") == ([2, 3], "?ß")


def test_a_caption_without_symbols_is_the_null_caption_and_long_ones_are_cut() -> None:
    tokenizer = CharacterTokenizer(["A", "B"], max_length=2)
    assert tokenizer(["", "ABAB"]).tolist() == [[NULL_CAPTION, PADDING], [2, 3]]


@pytest.mark.parametrize("symbols", [[], ["A", "A"], ["A", ""]])
def test_symbols_must_be_usable(symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="symbols must be unique and not empty"):
        CharacterTokenizer(symbols, max_length=4)


@torch.no_grad()
def test_padding_does_not_change_the_features_of_a_caption() -> None:
    model = encoder()
    alone = model(torch.tensor([[5, 6]]), frames=6)
    padded = model(torch.tensor([[5, 6, PADDING, PADDING], [7, 8, 9, 10]]), frames=6)
    torch.testing.assert_close(padded.frames_BTC[:1], alone.frames_BTC, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(padded.tokens_BLC[:1, :2], alone.tokens_BLC, rtol=1e-5, atol=1e-5)
    # The first of six frames is at 1/12, and the two characters at 1/4 and 3/4, which is 1/2 of a character more each.
    torch.testing.assert_close(padded.distance_BTL[0, 0, :2], 2 * torch.tensor([1 / 4 - 1 / 12, 3 / 4 - 1 / 12]))


@torch.no_grad()
def test_a_frame_hears_the_letter_of_its_own_time_most() -> None:
    """Before any training, exchanging a letter changes the frames at its place more than those at the other end."""
    model = encoder()
    before = model(torch.tensor([[5, 6, 7]]), frames=15).frames_BTC[0]
    after = model(torch.tensor([[5, 6, 9]]), frames=15).frames_BTC[0]
    change_T = (after - before).norm(dim=1)
    assert change_T[10:].mean() > 2 * change_T[:5].mean()


def test_heads_must_divide_channels() -> None:
    with pytest.raises(ValueError, match=r"TEXT_CHANNELS \(30\) must be a multiple of TEXT_HEADS \(4\)"):
        CharacterEncoder(vocabulary_size=5, channels=30, layers=1, heads=4)


def test_a_frame_gets_the_map_of_the_moment_that_its_character_is_at() -> None:
    phase = CharacterPhase(channels=2)
    with torch.no_grad():  # map k multiplies by k, so that what is added tells the moment
        phase.maps.weight.copy_(torch.cat([index * torch.eye(2) for index in range(PHASE_MOMENTS)]))
    added = phase(torch.ones(3, 4, 2), torch.tensor([1.0, 2.0, 4.0])) - 1
    last = PHASE_MOMENTS - 1
    # Frame centres are at 1/8, 3/8, 5/8 and 7/8 of the clip; two characters end at 1/2, four at every quarter.
    expected = [[1 / 8, 3 / 8, 5 / 8, 7 / 8], [1 / 4, 3 / 4, 1 / 4, 3 / 4], [1 / 2] * 4]
    assert added[:, :, 0].tolist() == [pytest.approx([last * share for share in row]) for row in expected]
    assert torch.equal(added[:, :, 0], added[:, :, 1])


def test_one_letter_looks_different_at_its_start_and_at_its_end() -> None:
    frames = encoder()(torch.tensor([[3, 4]]), 8).frames_BTC[0]
    within, between = (frames[0] - frames[3]).norm(), (frames[0] - frames[4]).norm()
    assert within > 0.3 * between
