"""The recogniser: its decoding, its loss against a count of all paths, what it is trained on, and that it learns."""

import itertools
import math
from pathlib import Path

import numpy
import pytest
import torch

from data.cache import ClipCache
from data.fingerspelling.source import TrainingWords, WordRenderer, load_letters
from data.fingerspelling.words import Alphabet, Alphabets, WordSplit
from data.lengths import ClipLengths
from data.records import ClipRow, as_video
from measures.fitting import small_clips
from measures.recogniser import LetterRecogniser, Reading
from measures.recogniser_signs import RecogniserSigns, sign_clips, sign_vocabulary
from measures.recogniser_training import RecogniserWords, reading_loss, train_recogniser
from measures.spelling import letter_error_rate


def words_of(folder: Path, symbols: str, *, max_letters: int = 3, size: int = 16) -> RecogniserWords:
    _, letters = load_letters("ase")
    alphabets = Alphabets((Alphabet(tuple(symbols), "en", "ase"),))
    split = WordSplit(alphabets, max_letters, held_out_word_fraction=0.2, held_out_bigram_fraction=0.1, seed=0)
    lengths = ClipLengths(12.0, 4, 16, True)
    return RecogniserWords(
        WordRenderer(alphabets, letters, lengths, (size, size), ClipCache(folder, 10**6)), split, seed=0
    )


def edges(*of_clips: list[float]) -> list[numpy.ndarray]:
    return [numpy.array(of_clip) for of_clip in of_clips]


def test_reading_merges_repeats_and_drops_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = LetterRecogniser(("A", "SCH"))
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 2, 0], [0, 0, 0, 0, 0, 0, 0, 0]])
    scores = torch.nn.functional.one_hot(path, 3).float()
    monkeypatch.setattr(recogniser, "forward", lambda video: Reading(scores, scores[..., 1:]))
    assert recogniser.read(torch.zeros(2, 3, 8, 16, 16)) == [("A", "A", "SCH"), ()]


def test_a_clip_is_read_in_its_own_language(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = LetterRecogniser(("ase:A", "ase:B", "gsg:A", "gsg:SCH"))
    # All frames look most like the Austrian A, then like B; in the last one nothing begins.
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 1.0]).repeat(2, 4, 1)
    scores[:, -1, 0] = 9.0
    reading = Reading(scores.requires_grad_(), scores[..., 1:].detach())
    monkeypatch.setattr(recogniser, "forward", lambda video: reading)
    assert recogniser.read(torch.zeros(2, 3, 4, 16, 16), ["gsg:", "ase:"]) == [("gsg:A",), ("ase:B",)]
    within = recogniser.within_languages(reading, ["gsg:", "ase:"])
    assert within.frames_BTS.softmax(dim=2)[0, 0].tolist() == pytest.approx([0, 0, 0.8808, 0.1192], abs=1e-4)
    words = [("gsg:SCH",), ("ase:A",)]
    loss = reading_loss(within, words, edges([0.0, 4.0], [0.0, 4.0]), [None, None], recogniser.symbols)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[0, :, 1:3].abs().sum() == 0 < scores.grad[0, :, 4].abs().sum()


def test_many_clips_are_read_in_parts_with_the_same_result() -> None:
    torch.manual_seed(0)
    recogniser = LetterRecogniser(tuple("ABC")).eval()
    clips = torch.rand(70, 3, 4, 16, 16) * 2 - 1
    assert recogniser.read(clips) == [reading for clip in clips for reading in recogniser.read(clip[None])]


@pytest.mark.parametrize("size", [16, 32, 50])
def test_clips_of_any_size_give_a_class_a_frame(size: int) -> None:
    reading = LetterRecogniser(tuple("ABCDE"))(torch.zeros(2, 3, 7, size, size))
    assert reading.ctc_BTK.shape == (2, 7, 6)
    assert reading.frames_BTS.shape == (2, 7, 5)


@pytest.mark.parametrize("size", [(20, 16), (16, 30)])
def test_of_pictures_that_are_not_square_the_middle_is_read(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    recogniser = LetterRecogniser(tuple("ABCDE"))
    clip = torch.rand(1, 3, 4, *size) * 2 - 1
    top, left = ((side - 16) // 2 for side in size)
    square = clip[..., top : top + 16, left : left + 16]
    assert torch.equal(recogniser(clip).ctc_BTK, recogniser(square).ctc_BTK)


def test_values_that_a_video_cannot_hold_are_clipped_before_reading() -> None:
    torch.manual_seed(0)
    recogniser = LetterRecogniser(tuple("AB"))
    clip = torch.randn(1, 3, 4, 16, 16) * 2
    assert torch.equal(recogniser(clip).ctc_BTK, recogniser(clip.clamp(-1, 1)).ctc_BTK)


def test_the_loss_sums_all_paths_and_the_letters_of_the_frames() -> None:
    symbols, word, frames = ("A", "B"), ("A", "B"), 5
    generator = torch.Generator().manual_seed(0)
    ctc, seen = torch.randn(1, frames, 3, generator=generator), torch.randn(1, frames, 2, generator=generator)
    probability = ctc.softmax(2)[0]
    total = 0.0
    for path in itertools.product(range(3), repeat=frames):
        if [kind for kind, _ in itertools.groupby(path) if kind] == [1, 2]:
            total += math.prod(probability[time, kind].item() for time, kind in enumerate(path))
    # Frame centres 0.5 to 4.5 of 5: the first letter has those below 1.8, the second the others.
    shown = seen.log_softmax(2)[0, range(frames), [0, 0, 1, 1, 1]].mean().item()
    loss = reading_loss(Reading(ctc, seen), [word], edges([0, 1.8, 5]), [None], symbols).item()
    assert loss == pytest.approx(-math.log(total) / len(word) - shown, rel=1e-5)


def test_a_word_that_cannot_fit_costs_nothing_and_breaks_nothing() -> None:
    ctc = torch.zeros(1, 2, 2, requires_grad=True)
    loss = reading_loss(
        Reading(ctc, torch.zeros(1, 2, 1)), [("A", "A")], edges([0, 1, 2]), [None], ("A",)
    )  # CTC needs a blank in between
    loss.backward()
    assert math.isfinite(loss.item())
    assert ctc.grad is not None
    assert torch.isfinite(ctc.grad).all()


def test_a_spoiled_letter_is_not_asked_for_and_its_frames_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    ctc, seen = torch.randn(1, 4, 3, generator=generator), torch.randn(1, 4, 2, generator=generator)
    loss = reading_loss(Reading(ctc, seen), [("A", "B")], edges([0, 2, 4]), [0], ("A", "B")).item()
    rest = reading_loss(Reading(ctc, torch.zeros(1, 4, 2)), [("B",)], edges([0, 4]), [None], ("A", "B")).item()
    only_b = rest - math.log(2)
    shown = seen.log_softmax(2)[0, 2:, 1].mean().item()
    assert loss == pytest.approx(only_b - shown, rel=1e-5)


def test_a_clip_whose_only_letter_is_spoiled_is_to_be_read_as_nothing() -> None:
    ctc = torch.zeros(1, 4, 3)
    ctc[..., 0] = 9.0  # blank
    loss = reading_loss(Reading(ctc, torch.zeros(1, 4, 2)), [("A",)], edges([0, 4]), [0], ("A", "B"))
    assert loss.item() == pytest.approx(4 * math.log(1 + 2 * math.exp(-9)), rel=1e-3)  # of four blanks


def test_no_held_out_word_or_bigram_reaches_the_recogniser_or_the_generator(tmp_path: Path) -> None:
    words = words_of(tmp_path, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    held_out_words = {word for length in (2, 3) for word in words.split.held_out_words(length)}
    held_out_bigrams = set(words.split.held_out_bigrams)
    assert len(held_out_bigrams) == 68  # a tenth of 676, rounded up
    assert len(held_out_words) > 0.2 * (26**2 + 26**3)
    read = {"".join(word) for step in range(1, 401) for word in words.words(step)[0]}
    training = TrainingWords(words.renderer, words.split, 2048, seed=0)
    generated = {training.row(epoch, index).caption for epoch in range(3) for index in range(len(training))}
    for shown in (read, generated):
        shown |= {part for text in shown for part in (*text.split(), text.replace(" ", ""))}
        assert len(shown) > 2500
        assert shown.isdisjoint(held_out_words)
        assert {word[place : place + 2] for word in shown for place in range(len(word) - 1)}.isdisjoint(
            held_out_bigrams
        )


def test_the_recognisers_clips_are_none_of_the_generators(tmp_path: Path) -> None:
    words = words_of(tmp_path, "AB", max_letters=1)
    drawn = words[1]
    training = TrainingWords(words.renderer, words.split, 64, seed=0)
    theirs = [torch.from_numpy(training.load(training.row(0, index))) for index in range(64)]
    assert set(drawn.words) == {("A",), ("B",)}
    assert not any(torch.equal(clip, other) for clip in drawn.clips_BTHWC for other in theirs)


def test_a_step_has_clips_of_one_length_at_any_speed_of_training(tmp_path: Path) -> None:
    words = words_of(tmp_path, "ABCJ")
    seen = set()
    for step in range(1, 30):
        drawn, frames = words.words(step)
        assert words.words(step) == (drawn, frames)
        assert len(drawn) == 384 // frames
        seen.add(frames)
        for word in drawn:
            seconds = words.renderer.seconds(word)
            assert 12 * seconds / 1.6 - 2 <= frames
            assert frames == 16 or frames <= 12 * seconds / 0.6 + 2
    assert seen == {4, 8, 12, 16}
    clips = words[1]
    assert clips.clips_BTHWC.shape == (len(clips.words), words.words(1)[1], 16, 16, 3)
    assert not any(" " in word for word in clips.words)
    assert [len(word) + 1 for word in clips.words] == [len(of_word) for of_word in clips.edges]


def test_training_depends_on_its_seed_alone_and_leaves_the_global_generator(tmp_path: Path) -> None:
    words = words_of(tmp_path, "ABC")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = train_recogniser(words, steps=2)
    assert torch.equal(torch.rand(1), expected)
    second = train_recogniser(words, steps=2)
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.training


@pytest.mark.slow
def test_it_learns_to_read_words_that_it_was_not_trained_on(tmp_path: Path) -> None:
    words = words_of(tmp_path, "ABCDFHILVWXY", max_letters=2)
    losses: list[float] = []
    recogniser = train_recogniser(words, steps=200, on_step=lambda _, loss: losses.append(loss))
    asked = [tuple(word) for word in words.split.held_out_words(2)] + [
        (symbol,) for symbol in words.split.alphabets.symbols
    ]
    clips = torch.stack(
        [as_video(torch.from_numpy(words.renderer.render(word, 7 + index, 8))) for index, word in enumerate(asked)]
    )
    assert len(losses) == 200
    assert letter_error_rate(asked, recogniser.read(clips)) < 0.1, recogniser.read(clips)
    assert letter_error_rate(asked, recogniser.read(torch.zeros_like(clips))) > 0.5


def test_a_clip_without_edges_has_the_loss_of_ctc_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    ctc, seen = torch.randn(2, 4, 3, generator=generator), torch.randn(2, 4, 2, generator=generator)
    words = [("A", "B"), ("B",)]
    loss = reading_loss(Reading(ctc, seen), words, [None, None], [None, None], ("A", "B")).item()
    ends = reading_loss(Reading(ctc, seen), words, edges([0, 1, 4], [0, 4]), [None, None], ("A", "B")).item()
    shown = seen.log_softmax(2)[[0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 3] * 2, [0, 1, 1, 1, 1, 1, 1, 1]].mean().item()
    assert loss == pytest.approx(ends + shown, rel=1e-5)


def test_signs_are_read_in_the_whole_picture_and_their_names_are_no_languages() -> None:
    torch.manual_seed(0)
    recogniser = LetterRecogniser(("num:5", "thank you"), of_signs=True).eval()
    clip = torch.rand(1, 3, 4, 16, 30) * 2 - 1
    other = clip.clone()
    other[..., -4:] = 0  # outside of the square in the middle
    assert not torch.equal(recogniser(clip).ctc_BTK, recogniser(other).ctc_BTK)
    large = torch.rand(2, 3, 4, 64, 48) * 2 - 1
    small = torch.nn.functional.adaptive_avg_pool3d(large, (4, 32, 32))
    assert torch.allclose(recogniser(large).ctc_BTK, recogniser(small).ctc_BTK, atol=1e-5)
    assert set(recogniser.read(list(large))[0]) <= {"num:5", "thank you"}


@pytest.mark.parametrize(
    ("captions", "symbols", "reason"),
    [
        (["Hello", "hello", "thank you", "Thank you"], ("hello", "thank you"), "2 captions"),
        (["good cat", "good dog", "dog cat"], ("cat", "dog", "good"), "3 words"),
        (["one", "two", "two"], (), "needs 2 clips of each caption, and 1 of 2 have fewer, such as 'one'"),
        (["one", "One"], (), "1 caption, and one alone"),
        ([str(number) for number in range(201)] * 2, (), "201 captions, and a recogniser is trained for 200 at most"),
    ],
)
def test_which_signs_can_be_read_and_why(captions: list[str], symbols: tuple[str, ...], reason: str) -> None:
    found = sign_vocabulary(captions)
    assert found.symbols == symbols
    assert reason in found.reason
    assert len(found.words) == (len(captions) if symbols else 0)


def test_signs_of_composed_sentences_need_no_second_clip() -> None:
    found = sign_vocabulary(["thank you cat"], lambda caption: ("thank you", "Cat"))
    assert found.symbols == ("cat", "thank you")
    assert found.words == (("thank you", "cat"),)


class Sentences:
    """Clips of different lengths whose captions are the signs."""

    captions = ("a b", "b", "a", "b a b")

    def __len__(self) -> int:
        return len(self.captions)

    def row(self, epoch: int, index: int) -> ClipRow:
        return ClipRow(str(index), self.captions[index], 4 * (index + 2), 1.0)

    def lengths(self) -> numpy.ndarray:
        return numpy.array([self.row(0, index).frames for index in range(len(self))])

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        return numpy.random.default_rng(int(row.id)).integers(0, 256, (row.frames, 16, 16, 3)).astype("uint8")


def test_clips_of_a_source_become_sentences_of_one_length_with_their_edges() -> None:
    def halves(row: ClipRow) -> numpy.ndarray:
        return halves_of(row.frames, len(row.caption.split()))

    data = sign_clips(small_clips(Sentences(), 0), 0, str.split, halves, lambda word: word == ("a", "b"))
    assert isinstance(data, RecogniserSigns)
    assert data.symbols == ("a", "b")
    assert data.is_held_out(("a", "b"))
    assert not data.is_held_out(())
    frames_of = {tuple(caption.split()): 4 * (index + 2) for index, caption in enumerate(Sentences.captions)}
    for step in (1, 2, 3):
        drawn, again = data[step], data[step]
        assert torch.equal(drawn.clips_BTHWC, again.clips_BTHWC)
        frames = drawn.clips_BTHWC.shape[1]
        assert len(drawn.words) == len(drawn.clips_BTHWC) == max(4, 384 // frames)
        for word, of_word in zip(drawn.words, drawn.edges, strict=True):
            assert of_word is not None
            stretch = frames / frames_of[word]
            assert of_word.tolist() == pytest.approx((halves_of(frames_of[word], len(word)) * stretch).tolist())
    losses: list[float] = []
    recogniser = train_recogniser(data, 2, on_step=lambda _, loss: losses.append(loss))
    assert all(map(math.isfinite, losses))
    assert recogniser.of_signs
    assert set(recogniser.read([torch.zeros(3, 8, 16, 16)])[0]) <= {"a", "b"}


def halves_of(frames: int, signs: int) -> numpy.ndarray:
    return numpy.linspace(1, frames - 1, signs + 1)


def test_without_edges_a_clip_of_one_sign_shows_it_throughout_and_what_cannot_be_read_is_said() -> None:
    data = sign_clips(small_clips(Sentences(), 0), 0)
    assert isinstance(data, RecogniserSigns)
    shown = {
        word: None if of_word is None else of_word.tolist()
        for word, of_word in zip(data.words, data.edges, strict=True)
    }
    assert shown == {("a", "b"): None, ("b",): [0, 12], ("a",): [0, 16], ("b", "a", "b"): None}
    source = Sentences()
    source.captions = ("a", "b")
    assert "fewer" in sign_clips(small_clips(source, 0), 0)
