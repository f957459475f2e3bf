"""Sentences joined from a folder of clips: a square that leaves its place, and comes back to it, one way a sign."""

import itertools

import numpy
import pytest
from PIL import Image

from common.errors import UserError
from config import Config
from data.batches import BatchOrder, training_batches
from data.build import build_data
from data.media.joining import join_clips

REST = 4  # frames before and after a square moves
STEPS = {"go": 3, "thank you": 5, "home": 7, "we": 9}  # frames for which it moves away, and then back


def sign_video(steps, shade=255):
    """Return uint8 [T, 32, 32, 3]: a square of 8 x 8 on grey, two columns a frame."""
    away = list(range(steps + 1))
    video = numpy.full((2 * REST + 2 * steps + 1, 32, 32, 3), 60, numpy.uint8)
    for frame, place in zip(video, [0] * REST + away + away[-2::-1] + [0] * REST, strict=True):
        frame[12:20, 2 + 2 * place : 10 + 2 * place] = shade
    return video


def write_gif(path, video):
    images = [Image.fromarray(frame) for frame in video]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0)


@pytest.fixture
def open_(tmp_path):
    """Open a folder of the signs, each by two signers, at 10 frames a second."""
    root = tmp_path / "signs"
    for signer, shade in (("amy", 255), ("bob", 200)):
        for caption, steps in STEPS.items():
            folder = root / caption
            folder.mkdir(parents=True, exist_ok=True)
            write_gif(folder / f"{signer}_1.gif", sign_video(steps, shade))

    def run(**changes):
        constants = {
            "DATA_ROOT": root,
            "CACHE_DIR": tmp_path / "cache",
            "COMPOSE_SIGNS": 3,
            "FRAMES_PER_SECOND": 10.0,
            "MAX_FRAMES": 64,
            "IMAGE_SIZE": (32, 32),
            "EPOCH_SIZE": 30,
            "VALIDATION_CLIPS": 6,
        }
        return build_data(Config(**(constants | changes)))

    return run


def expected_frames(signs):
    """Return the frames of a sentence: where two signs meet, each keeps one frame of rest, and two frames are one."""
    moving = sum(2 * STEPS[sign] + 1 for sign in signs)
    return REST + moving + (len(signs) - 1) * (1 + 1 - 2) + REST


def largest_change(clip):
    return numpy.abs(numpy.diff(clip.astype(int), axis=0)).mean((1, 2, 3)).max()


def rows_of(source, epoch=0):
    return [source.row(epoch, index) for index in range(len(source))]


def test_training_shows_fresh_sentences_of_lengths_that_stay(open_):
    splits = open_()
    training = splits.training
    rows = [rows_of(training, epoch) for epoch in range(3)]
    assert rows == [rows_of(open_().training, epoch) for epoch in range(3)]  # a pure function
    for each in rows:
        assert [row.frames for row in each] == training.lengths().tolist()
    assert len({tuple(row.caption for row in each) for each in rows}) == 3
    signs = [[splits.signs_of(row.caption) for row in each] for each in rows]
    assert [*map(len, signs[0])] == [*map(len, signs[1])]  # a place has one number of signs
    assert {len(each) for each in signs[0]} == {1, 2, 3}
    assert not any(splits.is_held_out(row.caption) for each in rows for row in each)
    with pytest.raises(IndexError):
        training.row(0, len(training))


def test_a_clip_has_the_frames_and_seconds_of_its_signs(open_):
    splits = open_()
    for row in rows_of(splits.training):
        frames = expected_frames(splits.signs_of(row.caption))
        assert row.seconds == pytest.approx(frames / 10)
        assert row.frames == 4 * int(frames / 4 + 0.5)
        clip = splits.training.load(row)
        assert (clip.shape, clip.dtype) == ((row.frames, 32, 32, 3), numpy.uint8)
        edges = splits.training.edges(row)
        assert (edges[0], edges[-1], len(edges)) == (0.0, row.frames, 1 + len(splits.signs_of(row.caption)))
        assert (numpy.diff(edges) > 0).all()


def test_nothing_jumps_where_signs_meet(open_):
    """Frames of one signer differ no more at a join than within the signs."""
    composer = open_(SIGNER_FROM_FILE_NAME=True).training.composer
    within = max(largest_change(sign_video(steps)) for steps in STEPS.values())
    for pair in itertools.product(composer.signs.names, repeat=2):
        chosen = composer.chosen(pair, seed=0)
        joined = join_clips([composer.reader.load(each.clip) for each in chosen], composer.timeline(chosen))
        assert len(joined) == expected_frames(pair)
        assert largest_change(joined) <= within


def test_validation_asks_for_held_out_sentences_in_clips_of_held_out_signers(open_):
    splits = open_(SIGNER_FROM_FILE_NAME=True)
    rows = rows_of(splits.validation)
    assert rows == rows_of(splits.validation, 7)
    captions = [row.caption for row in rows]
    assert len(set(captions)) == len(captions) == 6
    assert all(splits.is_held_out(caption) and len(splits.signs_of(caption)) >= 2 for caption in captions)
    signers = [
        {each.clip.row.signer for row in rows_of(source) for each in source.composer.clips(row)}
        for source in (splits.training, splits.validation)
    ]
    assert sorted(map(sorted, signers)) == [["amy"], ["bob"]]


def test_no_caption_is_held_out(open_):
    splits = open_(SPLIT_BY="caption")
    report = splits.summary.report
    assert (len(report["training"]), report["held_out"], report["held_out_captions"]) == (8, [], [])
    assert not any(map(splits.is_held_out, STEPS))
    assert splits.validation_of_trained is None
    assert "sentences of 1 to 3 of 4 signs, 30 an epoch" in splits.summary.description
    assert set(splits.default_prompts) >= {row.caption for row in rows_of(splits.validation)[:3]}


def test_where_nothing_can_be_held_out_that_is_said(open_):
    splits = open_(HELD_OUT_WORD_FRACTION=0.0, HELD_OUT_BIGRAM_FRACTION=0.0)
    assert "validation on 6 training sentences (none could be held out)" in splits.summary.description


def test_sentences_that_are_too_long_are_counted(open_):
    splits = open_(MAX_FRAMES=32)
    too_long = sum(expected_frames(splits.signs_of(row.caption)) >= 34 for row in rows_of(splits.training))
    assert 0 < too_long < 30
    assert splits.training.lengths().max() == 32
    assert "are longer than MAX_FRAMES and shown faster" in splits.summary.description


def test_a_real_clip_is_composed_for_any_known_signs(open_):
    splits = open_()
    assert len(splits.real_clip("Home THANK you")) == 4 * int(expected_frames(("home", "thank you")) / 4 + 0.5)
    assert splits.real_clip("home alone") is None
    assert splits.is_held_out("home alone")
    with pytest.raises(UserError, match=r"'home alone' has words that are no known sign: 'alone'\. Known: go, home"):
        splits.signs_of("home alone")


def test_a_resume_goes_on_at_the_exact_sentence(open_, tokenize):
    source = open_().training

    def batches(start, count):
        order = BatchOrder(source, frames_in_batch=128, seed=0, start_batch=start)
        made = training_batches(source, order, num_workers=0, tokenize=tokenize)
        return [(batch.ids, batch.clips_BTHWC.sum().item()) for batch in itertools.islice(made, count)]

    assert batches(0, 12)[7:] == batches(7, 5)


def test_sentences_that_the_model_would_not_read_in_full_are_refused(open_):
    with pytest.raises(UserError, match=r"sentences may have 29 symbols, and 20 are read.* raise MAX_CAPTION_LENGTH"):
        open_(MAX_CAPTION_LENGTH=20)


def test_all_signs_of_a_set_are_cut_to_one_region(open_):
    """Signs move 6 to 18 columns from one place: cut to regions of their own, their squares would differ in size."""
    splits = open_(CLIP_FIT="signer")
    sizes = {caption: _bright(splits.real_clips(caption, 1)[0][0]) for caption in STEPS}
    assert len(set(sizes.values())) == 1, sizes
    longest = open_(CLIP_FIT="signer", COMPOSE_SIGNS=1).real_clips("we", 1)[0]  # whose region holds the others
    assert sizes["we"] == _bright(longest[0])
    shortest = open_(CLIP_FIT="signer", COMPOSE_SIGNS=1).real_clips("go", 1)[0]
    assert sizes["go"] < _bright(shortest[0])


def _bright(frame):
    """Return height and width of the square in a frame."""
    is_bright = frame.mean(axis=2) > 130
    return int(is_bright.any(axis=1).sum()), int(is_bright.any(axis=0).sum())
