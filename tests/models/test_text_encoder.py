"""Captions become the right tokens, and padding says nothing."""

import pytest
import torch

from models.text_encoder import (
    PHASE_MOMENTS,
    START_SECONDS,
    CharacterEncoder,
    CharacterPhase,
    LanguageEmbedding,
    characters_over,
    repeats,
)
from models.tokens import NULL_CAPTION, PADDING, CharacterTokenizer


def encoder(seed: int = 0) -> CharacterEncoder:
    torch.manual_seed(seed)
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


def test_repeated_tokens_are_told_from_both_sides_and_padding_repeats_nothing() -> None:
    flags = repeats(torch.tensor([[5, 5, 6, PADDING, PADDING], [7, 8, 8, 8, 9]]))
    assert flags[..., 0].tolist() == [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]]
    assert flags[..., 1].tolist() == [[0, 1, 0, 0, 0], [0, 0, 1, 1, 0]]


def test_of_several_languages_a_caption_begins_with_the_code_of_its_own() -> None:
    tokenizer = CharacterTokenizer(["ase:A", "ase:B", "gsg:A", "gsg:SCH", " "], max_length=8)
    assert tokenizer.encode("gsg scha a") == ([5, 4, 6, 4], "")
    assert tokenizer.encode("ase schab") == ([2, 3], "sch")
    assert tokenizer.encode("AB") == ([], "AB")


def test_letters_of_several_languages_share_a_vector_and_have_one_of_their_own() -> None:
    embedding = LanguageEmbedding(["ase:A", "ase:B", "gsg:B", "gsg:A", " "], 4)
    letter, language, both = (table.weight for table in (embedding.letter, embedding.language, embedding.both))
    assert letter.shape == (2 + 3, 4)
    assert language.shape == (1 + 3, 4)
    with torch.no_grad():
        assert not both.any()
        both[5] = 7.0
    vectors = embedding(torch.tensor([[PADDING, NULL_CAPTION, 2, 3, 4, 5, 6]]))[0]
    expected = [letter[0] + language[0], letter[1] + language[0], letter[2] + language[1], letter[3] + language[1]]
    expected += [letter[3] + language[2], letter[2] + language[2] + 7.0, letter[4] + language[3]]
    torch.testing.assert_close(vectors, torch.stack(expected))
    assert embedding.state_dict().keys() == {"letter.weight", "language.weight", "both.weight"}


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
    torch.testing.assert_close(padded.log_seconds_B[:1], alone.log_seconds_B)
    # The first of six frames is in the middle of the first third of the first of two characters, which take as long.
    torch.testing.assert_close(padded.distance_BTL[0, 0, :2], torch.tensor([1 / 2 - 1 / 6, 3 / 2 - 1 / 6]))


@torch.no_grad()
def test_a_frame_hears_the_letter_of_its_own_time_most() -> None:
    """Before any training, exchanging a letter changes the frames at its place more than those at the other end."""
    words = torch.tensor([[5, 6, 7], [5, 6, 9]])
    change_ST = torch.stack(
        [encoder(seed)(words, frames=15).frames_BTC.diff(dim=0)[0].norm(dim=1) for seed in range(200)]
    )
    assert change_ST[:, 10:].mean() > 2 * change_ST[:, :5].mean()


def test_heads_must_divide_channels() -> None:
    with pytest.raises(ValueError, match=r"TEXT_CHANNELS \(30\) must be a multiple of TEXT_HEADS \(4\)"):
        CharacterEncoder(vocabulary_size=5, channels=30, layers=1, heads=4)


def test_a_frame_gets_the_map_of_the_moment_that_its_character_is_at() -> None:
    phase = CharacterPhase(channels=2)
    factors = [*range(PHASE_MOMENTS), 100, 1000]  # so that what is added tells the moment, and which one is doubled
    with torch.no_grad():
        phase.maps.weight.copy_(torch.cat([factor * torch.eye(2) for factor in factors]))
    places = (torch.arange(4) + 0.5) / 4 * torch.tensor([[1.0], [2.0], [4.0]])
    none_repeated = torch.zeros(3, 4, 2)
    added = phase(torch.ones(3, 4, 2), places, none_repeated) - 1
    last = PHASE_MOMENTS - 1
    # Frame centres are at 1/8, 3/8, 5/8 and 7/8 of the clip; two characters end at 1/2, four at every quarter.
    expected = [[1 / 8, 3 / 8, 5 / 8, 7 / 8], [1 / 4, 3 / 4, 1 / 4, 3 / 4], [1 / 2] * 4]
    assert added[:, :, 0].tolist() == [pytest.approx([last * share for share in row]) for row in expected]
    assert torch.equal(added[:, :, 0], added[:, :, 1])
    # The second of four characters comes again in the third; padding behind two characters changes nothing.
    again = repeats(torch.tensor([[5, PADDING, PADDING, PADDING], [6, 6, PADDING, PADDING], [5, 6, 6, 7]]))
    of_repeats = phase(torch.ones(3, 4, 2), places, again) - 1 - added
    assert of_repeats[:, :, 0].round().tolist() == [[0, 0, 0, 0], [100, 100, 1000, 1000], [0, 100, 1000, 0]]


def test_one_letter_looks_different_at_its_start_and_at_its_end() -> None:
    frames = encoder()(torch.tensor([[3, 4]]), 8).frames_BTC[0]
    within, between = (frames[0] - frames[3]).norm(), (frames[0] - frames[4]).norm()
    assert within > 0.3 * between


def test_frames_show_the_characters_for_as_long_as_each_takes() -> None:
    seconds = torch.tensor([[1.0, 2.0, 1.0], [1.0, 1.0, 0.0]])  # the second ends in padding
    assert characters_over(seconds, 4).tolist() == [
        [pytest.approx(place) for place in row] for row in ([0.5, 1.25, 1.75, 2.5], [0.25, 0.75, 1.25, 1.75])
    ]


def test_a_caption_lasts_as_long_as_its_characters_before_and_after_learning() -> None:
    model = encoder()
    tokens = torch.tensor([[5, PADDING, PADDING], [5, 6, 7]])
    assert model.log_seconds(tokens).exp().tolist() == pytest.approx([START_SECONDS, 3 * START_SECONDS])
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for _ in range(150):
        optimizer.zero_grad()
        loss = (model.log_seconds(tokens) - torch.tensor([0.5, 4.0]).log()).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
    assert model.log_seconds(tokens).exp().tolist() == pytest.approx([0.5, 4.0], rel=0.05)


@torch.no_grad()
def test_a_letter_means_the_same_in_a_caption_longer_than_any_other() -> None:
    alike, others = [], []
    for model in map(encoder, range(10)):
        short, long = (model(torch.tensor([[5, 6, 7] * repeats]), 12 * repeats).frames_BTC[0] for repeats in (1, 4))
        # The same letter between the same two, and another one.
        alike.append(torch.nn.functional.cosine_similarity(short[4:8], long[16:20]).min().item())
        others.append(torch.nn.functional.cosine_similarity(short[4:8], long[12:16]).min().item())
    assert sum(alike) / 10 > sum(others) / 10 + 0.1
