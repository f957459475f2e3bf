import json

import numpy
import pytest
import torch

from common.errors import UserError
from data.batches import load_batch


def rows(source, epoch=0):
    return [source.row(epoch, index) for index in range(len(source))]


def test_training_rows_are_pure_fresh_and_never_held_out(open_words):
    splits = open_words()
    first = rows(splits.training)
    assert first == rows(open_words().training)
    assert first != rows(open_words(seed=1).training)
    second = rows(splits.training, epoch=1)
    assert len({row.id for row in first + second}) == 80
    assert len({row.style_seed for row in first + second}) == 80
    assert {len(row.caption) for row in first} == {1, 2, 3}
    assert not any(splits.is_held_out(row.caption) for row in first + second)


def test_validation_shows_held_out_words_and_never_changes(open_words):
    splits = open_words()
    fixed = rows(splits.validation)
    assert len(fixed) == len({row.caption for row in fixed}) == 6
    assert all(splits.is_held_out(row.caption) and len(row.caption) >= 2 for row in fixed)
    assert fixed == rows(splits.validation, epoch=3)


def test_rows_outside_the_epoch_are_refused(open_words):
    splits = open_words()
    for source in (splits.training, splits.validation):
        for index in (-1, len(source)):
            with pytest.raises(IndexError):
                source.row(0, index)


def test_clips_have_the_right_form_and_are_the_same_each_time(open_words):
    training = open_words(num_frames=5, image_size=20).training
    clip = training.load(training.row(0, 3))
    assert clip.shape == (5, 20, 20, 3)
    assert clip.dtype == numpy.uint8
    assert (training.load(training.row(0, 3)) == clip).all()
    assert (training.load(training.row(0, 4)) != clip).any()


def test_cached_clips_of_other_settings_are_not_mixed_up(open_words):
    small, large = (open_words(image_size=size).real_clip("A") for size in (16, 24))
    assert (small.shape[1], large.shape[1]) == (16, 24)
    assert (open_words(signed_language="asq").real_clip("A") != small).any()


def test_captions_are_spelled_in_any_case(open_words):
    splits = open_words()
    assert (splits.real_clip("cab") == splits.real_clip("CAB")).all()
    assert splits.is_held_out("cab") == splits.is_held_out("CAB")


def test_what_cannot_be_spelled_is_held_out_and_has_no_clip(open_words):
    splits = open_words()
    assert splits.is_held_out("C4B")
    assert splits.real_clip("C4B") is None
    assert splits.is_held_out("ABCD")
    assert splits.real_clip("ABCD").shape == (8, 16, 16, 3)
    assert splits.real_clip("A" * 9) is None  # more letters than frames
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
    assert open_words().symbols == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert {"S", "Ä", "ẞ"} <= set(open_words(signed_language="asq").symbols)


def test_one_letter_words_validate_on_letters_in_other_styles(open_words):
    splits = open_words(max_word_letters=1)
    training_styles = {row.style_seed for row in rows(splits.training)}
    assert all(len(row.caption) == 1 and row.style_seed not in training_styles for row in rows(splits.validation))


def test_without_held_out_words_validation_says_so(open_words):
    splits = open_words(held_out_word_fraction=0.0, held_out_bigram_fraction=0.0)
    assert "no words are held out" in splits.summary.description
    assert len(rows(splits.validation)) == 6


def test_more_letters_than_frames_is_refused(open_words):
    with pytest.raises(UserError, match=r"MAX_WORD_LETTERS=9.*MAX_FRAMES=8"):
        open_words(max_word_letters=9)


def test_batches_of_words(open_words, tokenize):
    validation = open_words().validation
    batch = load_batch(validation, rows(validation), tokenize)
    assert batch.video_BCTHW.shape == (6, 3, 8, 16, 16)
    assert batch.video_BCTHW.dtype == torch.float32
    assert -1 <= batch.video_BCTHW.min() < batch.video_BCTHW.max() <= 1


def test_training_clips_leave_nothing_on_the_disk_and_validation_clips_do(open_words, tmp_path):
    splits = open_words()
    before = set(tmp_path.rglob("*.npy"))
    for source, kept in ((splits.training, 0), (splits.validation, 1)):
        source.load(source.row(0, 0))
        assert len(set(tmp_path.rglob("*.npy")) - before) == kept


def test_no_clip_of_a_run_comes_twice(open_words):
    training = open_words().training
    drawn = [training.row(epoch, index) for epoch in range(20) for index in range(len(training))]
    assert len({(row.caption, row.style_seed) for row in drawn}) == len(drawn)
