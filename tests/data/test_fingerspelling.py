import json

import numpy
import pytest
import torch

from common.errors import UserError
from data.batches import load_batch
from data.fingerspelling import source
from data.fingerspelling.lexicon import available_languages


def rows(words, epoch=0):
    return [words.row(epoch, index) for index in range(len(words))]


def test_training_rows_are_pure_fresh_and_never_held_out(open_words):
    splits = open_words()
    first = rows(splits.training)
    assert first == rows(open_words().training)
    assert first != rows(open_words(seed=1).training)
    second = rows(splits.training, epoch=1)
    assert len({row.id for row in first + second}) == 80
    assert len({row.style_seed for row in first + second}) == 80
    assert {len(row.caption.replace(" ", "")) for row in first} == {1, 2, 3}
    assert not any(splits.is_held_out(row.caption) for row in first + second)


def test_validation_shows_held_out_words_and_never_changes(open_words):
    splits = open_words()
    fixed = rows(splits.validation)
    assert len(fixed) == len({row.caption for row in fixed}) == 6
    assert all(splits.is_held_out(row.caption) and len(row.caption) >= 2 for row in fixed)
    assert fixed == rows(splits.validation, epoch=3)


def test_rows_outside_the_epoch_are_refused(open_words):
    splits = open_words()
    for words in (splits.training, splits.validation):
        for index in (-1, len(words)):
            with pytest.raises(IndexError):
                words.row(0, index)


def test_clips_have_the_right_form_and_are_the_same_each_time(open_words):
    training = open_words(image_size=(20, 20)).training
    clip = training.load(training.row(0, 3))
    assert clip.shape == (training.row(0, 3).frames, 20, 20, 3)
    assert clip.dtype == numpy.uint8
    assert (training.load(training.row(0, 3)) == clip).all()
    other = next(row for row in rows(training)[4:] if row.frames == len(clip))
    assert (training.load(other) != clip).any()


def test_cached_clips_of_other_settings_are_not_mixed_up(open_words):
    small, large = (open_words(image_size=(size, size)).real_clip("A") for size in (16, 24))
    assert (small.shape[1], large.shape[1]) == (16, 24)
    assert (open_words(signed_language=("asq",)).real_clip("A") != small).any()


def test_captions_are_spelled_in_any_case(open_words):
    splits = open_words()
    assert (splits.real_clip("cab") == splits.real_clip("CAB")).all()
    assert splits.is_held_out("cab") == splits.is_held_out("CAB")


def test_what_cannot_be_spelled_is_held_out_and_has_no_clip(open_words):
    splits = open_words()
    assert splits.is_held_out("C4B")
    assert splits.real_clip("C4B") is None
    assert splits.is_held_out("ABCD")
    assert splits.real_clip("A" * 13) is None
    assert not splits.is_held_out("A")


def test_default_prompts_are_letters_and_held_out_words(open_words):
    splits = open_words()
    assert splits.default_prompts[:3] == ("A", "B", "C")
    assert len(set(splits.default_prompts)) == 6
    assert all(splits.is_held_out(word) for word in splits.default_prompts[3:])
    assert splits.default_prompts == open_words().default_prompts


def test_the_report_is_complete_json(open_words):
    splits = open_words()
    report = json.loads(json.dumps(splits.summary.report))
    assert len(report["held_out_bigrams"]) == 68
    assert len(report["held_out_words"]["2"]) >= 136  # 20 % of 676
    assert len(report["held_out_words"]["3"]) >= 3516
    assert {clip["caption"] for clip in report["validation"]} == {row.caption for row in rows(splits.validation)}


def test_symbols_are_those_of_the_lexicon(open_words):
    assert open_words().symbols == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    assert {"S", "Ä", "ẞ"} <= set(open_words(signed_language=("asq",)).symbols)


def test_several_languages_are_spelled_each_in_its_own_way(open_words):
    both, ase, gsg = (open_words(signed_language=codes) for codes in (("ase", "gsg"), ("ase",), ("gsg",)))
    assert numpy.array_equal(both.real_clip("gsg CAB"), gsg.real_clip("CAB"))
    assert numpy.array_equal(both.real_clip("ase CAB"), ase.real_clip("CAB"))
    assert both.is_held_out("gsg CAB") == gsg.is_held_out("CAB")
    assert both.real_clip("CAB") is None
    assert set(both.symbols) == {f"ase:{letter}" for letter in ase.symbols[:-1]} | {
        *(f"gsg:{letter}" for letter in gsg.symbols[:-1]),
        " ",
    }
    drawn = rows(both.training)
    assert {row.caption[:4] for row in drawn} == {"ase ", "gsg "}
    assert not any(both.is_held_out(row.caption) for row in drawn)
    assert both.training.load(drawn[0]).shape[0] == drawn[0].frames
    assert [prompt[:4] for prompt in both.default_prompts[:3]] == ["ase ", "gsg ", "ase "]
    assert all(both.real_clip(prompt) is not None for prompt in both.default_prompts)
    assert "Finger-spelling of ase, gsg: 56 letters" in both.summary.description
    assert len(json.loads(json.dumps(both.summary.report))["held_out_bigrams"]) == 68 + 90  # 10 % of 26 and 30 squared


@pytest.mark.slow
def test_all_languages_are_those_with_recordings_of_their_own(open_words):
    languages = open_words(signed_language=("all",)).split.alphabets.languages
    assert set(available_languages()) - set(languages) == {"fsl"}
    assert len(languages) == 19


def test_all_stands_alone(open_words):
    with pytest.raises(UserError, match="'all' stands alone"):
        open_words(signed_language=("all", "ase"))


def test_one_letter_words_validate_on_letters_in_other_styles(open_words):
    splits = open_words(max_word_letters=1)
    training_styles = {row.style_seed for row in rows(splits.training)}
    assert all(len(row.caption) == 1 and row.style_seed not in training_styles for row in rows(splits.validation))


def test_without_held_out_words_validation_says_so(open_words):
    splits = open_words(held_out_word_fraction=0.0, held_out_bigram_fraction=0.0)
    assert "no words are held out" in splits.summary.description
    assert len(rows(splits.validation)) == 6


@pytest.mark.parametrize(
    ("word", "seconds", "frames"),
    # A third of a second a letter at 12 frames a second; J and Z take 0.76 and 0.8 s, a space 0.25 s.
    [("A", 1 / 3, 4), ("HELLO", 5 / 3, 20), ("JAZZ", 0.76 + 1 / 3 + 2 * 0.8, 32), ("AB CD", 4 / 3 + 0.25, 20)],
)
def test_a_word_takes_its_letters_time(open_words, word, seconds, frames):
    splits = open_words()  # of at most 16 frames and 3 letters in training
    assert splits.renderer.seconds(tuple(word)) == pytest.approx(seconds)
    assert splits.real_clip(word).shape == (frames, 16, 16, 3)
    assert splits.renderer.frames(tuple(word), speed=0.5) >= 2 * frames - 4
    assert open_words(clip_timing="stretched").real_clip(word).shape[0] == 16


def test_twelve_letters_can_be_asked_for_and_stretched_ones_need_a_frame_each(open_words):
    assert open_words(max_frames=8).real_clip("ABCDEFGHIKLM").shape[0] == 48
    stretched = open_words(max_frames=8, clip_timing="stretched")
    assert stretched.real_clip("ABC DEFGH").shape[0] == 8
    assert stretched.real_clip("ABCDEFGHI") is None


def test_a_training_clip_has_one_length_and_other_words_in_each_epoch(open_words):
    training = open_words(epoch_size=300).training
    lengths = training.lengths()
    assert lengths.dtype == numpy.int64
    assert set(lengths) == {4, 8, 12, 16}
    first, second = rows(training), rows(training, epoch=1)
    assert [row.frames for row in first] == [row.frames for row in second] == lengths.tolist()
    assert sum(one.caption != other.caption for one, other in zip(first, second, strict=True)) > 250
    for row in first:
        assert max(abs(row.frames - 12 * row.seconds) - 2, 0) < 1e-9 or row.frames == max(lengths)


def test_words_are_distributed_as_if_each_were_drawn_for_itself(open_words):
    training = open_words(epoch_size=1500).training
    drawn = [row for epoch in range(2) for row in rows(training, epoch)]
    letters = [row.caption.replace(" ", "") for row in drawn]
    spaced = [len(row.caption) > len(word) for row, word in zip(drawn, letters, strict=True)]
    shares = [numpy.mean([len(word) == count for word in letters]) for count in (1, 2, 3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)
    assert numpy.mean(spaced) == pytest.approx(2 / 30, abs=0.02)  # a tenth of those with two letters or three
    assert numpy.mean(["J" in word or "Z" in word for word in letters]) == pytest.approx(0.146, abs=0.03)
    speeds = numpy.array(
        [training.renderer.seconds(tuple(row.caption)) / row.seconds for row in drawn if row.frames < 16]
    )
    # Log-normal of 0.1 for 70 %, and 30 % evenly spread, as logarithms, over 0.6 to 1.6.
    assert numpy.median(speeds) == pytest.approx(1.0, abs=0.03)
    assert ((speeds < 0.75) | (speeds > 1.33)).mean() == pytest.approx(0.126, abs=0.03)
    assert speeds.min() >= 0.6
    assert speeds.max() <= 1.6


def test_a_length_that_no_other_word_has_keeps_its_word(open_words, monkeypatch):
    monkeypatch.setattr(source, "MOST_TRIES", 0)
    training = open_words().training
    first, second = rows(training), rows(training, epoch=1)
    assert [row.caption for row in first] == [row.caption for row in second]
    assert [row.frames for row in first] == training.lengths().tolist()
    assert all(one.style_seed != other.style_seed for one, other in zip(first, second, strict=True))


def test_words_that_are_too_long_are_counted(open_words):
    assert "shown faster" not in open_words(max_frames=32).summary.description
    training = open_words(max_frames=8).training
    share = numpy.mean(training.seconds * 12 >= 10)  # 8 frames, and 2 of stretch
    assert f"; {share:.1%} are longer than MAX_FRAMES and shown faster" in open_words(max_frames=8).summary.description


def test_spaced_words_are_held_out_with_their_parts_and_with_their_letters(open_words):
    splits = open_words()
    held_out = {"".join(word) for word in splits.split.held_out_words(2)}
    pair = min(held_out)
    assert splits.is_held_out(f"{pair} A")
    assert splits.is_held_out(f"{pair[0]} {pair[1]}")  # the change between these letters is new, too
    assert splits.is_held_out("A B C D")  # four letters
    trained = next(row.caption for row in rows(splits.training) if " " in row.caption)
    assert not splits.is_held_out(trained.replace(" ", ""))


def test_edges_are_where_letters_begin_in_the_clip_that_is_drawn(open_words):
    renderer = open_words(image_size=(32, 32)).renderer
    symbols, style = ("L", " ", "O"), 5
    clip = renderer.render(symbols, style, 24).astype(float)
    edges = renderer.letter_edges(symbols, style, 24)
    changes = numpy.abs(numpy.diff(clip, axis=0)).mean((1, 2, 3))
    assert edges[0] == 0
    assert edges[2] == 24
    assert abs(changes.argmax() + 1 - edges[1]) <= 1
    assert edges[1] == pytest.approx(24 * (1 / 3 + 1 / 4) / (2 / 3 + 1 / 4), abs=1)


def test_batches_of_words(open_words, tokenize):
    validation = open_words(clip_timing="stretched", max_frames=8).validation
    batch = load_batch(validation, rows(validation), tokenize)
    assert batch.video_BCTHW.shape == (6, 3, 8, 16, 16)
    assert batch.video_BCTHW.dtype == torch.float32
    assert -1 <= batch.video_BCTHW.min() < batch.video_BCTHW.max() <= 1


def test_training_clips_leave_nothing_on_the_disk_and_validation_clips_do(open_words, tmp_path):
    splits = open_words()
    before = set(tmp_path.rglob("*.npy"))
    for words, kept in ((splits.training, 0), (splits.validation, 1)):
        words.load(words.row(0, 0))
        assert len(set(tmp_path.rglob("*.npy")) - before) == kept


def test_no_clip_of_a_run_comes_twice(open_words):
    training = open_words().training
    drawn = [training.row(epoch, index) for epoch in range(20) for index in range(len(training))]
    assert len({(row.caption, row.style_seed) for row in drawn}) == len(drawn)
