import dataclasses
import os
import shutil

import pytest

from config import Config
from data.clip_set import InspectedClips
from data.inspection import MOST_FRAMES, ClipReader, InspectedClip, picture_notices
from data.media.decode import media_digest, media_stamp
from data.media.resample import MediaFacts
from data.rows import ManifestRow, Media, TarMember, TimeSpan, UnusableClip
from tests.shapes import natural, stretched

FACTS = MediaFacts(48, 32, 10, 1.0)


@pytest.fixture
def root(tmp_path, write_video, brightening_video):
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "a.gif", brightening_video)
    write_video(tmp_path / "clips" / "b.gif", brightening_video[::-1])
    return tmp_path / "clips"


@pytest.fixture
def read(root, cache):
    def run(clip, shape=None):
        return ClipReader(root, shape or stretched(5, 16), cache).clip(clip)

    return run


def inspected(root, name="a.gif", span=None):
    media = Media("video", name, span or TimeSpan())
    row = ManifestRow(name, media, "hello")
    return InspectedClip(row, media_digest(root, media), media_stamp(root, media), FACTS)


def shades(clip):
    return clip.mean((1, 2, 3)).round().tolist()


def test_every_kind_of_clip_has_an_entry_of_its_own(root, read):
    assert shades(read(inspected(root))) == pytest.approx([25, 75, 125, 175, 225], abs=1)
    assert shades(read(inspected(root, "b.gif"))) == pytest.approx([200, 150, 100, 50, 0], abs=1)
    assert shades(read(inspected(root, span=TimeSpan(0.5)))) == pytest.approx([125, 150, 175, 200, 225], abs=1)
    assert shades(read(inspected(root, span=TimeSpan(0.0, 0.5)))) == pytest.approx([0, 25, 50, 75, 100], abs=1)
    assert read(inspected(root), stretched(4, 16)).shape == (4, 16, 16, 3)
    assert read(inspected(root), stretched(5, 32)).shape == (5, 32, 32, 3)
    padded = read(inspected(root), stretched(5, 16, "pad"))
    assert (padded[:, :2] == 0).all()
    assert (read(inspected(root))[4] > 200).all()


def test_what_makes_other_pixels_has_an_entry_of_its_own_and_nothing_else(root, read):
    clip = inspected(root)  # of a second
    assert shades(read(clip, natural(32, 16, rate=5.0))) == pytest.approx([25, 75, 150, 200], abs=1)
    shutil.move(root, root.parent / "gone")
    assert len(read(clip, natural(8, 16, rate=4.0))) == 4  # the same four frames
    assert len(read(clip, stretched(4, 16))) == 4
    for other in (natural(32, 16, rate=8.0), natural(32, 20, rate=5.0)):
        with pytest.raises(UnusableClip):
            read(clip, other)


def test_what_is_in_the_cache_needs_no_file(root, read):
    clip = inspected(root)
    first = read(clip)
    shutil.rmtree(root)
    assert (read(clip) == first).all()


def test_equal_content_is_decoded_once_whatever_its_name(root, read, monkeypatch):
    shutil.copy(root / "a.gif", root / "c.gif")
    first = read(inspected(root))
    monkeypatch.setattr("data.inspection.decode_media", lambda *arguments: pytest.fail("decoded again"))
    assert (read(inspected(root, "c.gif")) == first).all()


def test_a_file_that_was_touched_or_copied_is_still_the_same(root, read):
    clip = inspected(root)
    content = (root / "a.gif").read_bytes()
    (root / "a.gif").unlink()
    (root / "a.gif").write_bytes(content)
    os.utime(root / "a.gif", (1, 1))
    assert read(clip).shape == (5, 16, 16, 3)


def test_another_file_of_the_same_name_is_not(root, read):
    clip = inspected(root)
    os.replace(root / "b.gif", root / "a.gif")
    with pytest.raises(UnusableClip, match="has changed since the data set was opened"):
        read(clip)


def test_a_link_that_leads_out_by_now_is_refused(root, read, tmp_path):
    clip = inspected(root)
    shutil.move(root / "a.gif", tmp_path / "a.gif")
    (root / "a.gif").symlink_to(tmp_path / "a.gif")
    with pytest.raises(UnusableClip, match="leads out of the data set's folder"):
        read(clip)


def of_size(clip_id, width, height, changes=(), kind="video"):
    facts = MediaFacts(width, height, 10, 1.0, changes)
    return InspectedClip(ManifestRow(clip_id, Media(kind, clip_id), "hello"), clip_id, "", facts)


def test_what_is_done_to_pictures_is_counted_with_an_example():
    clips = [
        of_size("a.mp4", 32, 32),
        of_size("b.mp4", 32, 32, ("turned",)),
        of_size("c.mp4", 32, 32, ("turned", "mirrored")),
        of_size("d.webm", 32, 32, ("transparent",)),
        of_size("e.mov", 32, 32, ("tone-mapped",)),
    ]
    notices = picture_notices(clips, stretched(16, 32, "crop"))
    assert {notice.topic for notice in notices} == {"pictures"}
    assert [notice.text for notice in notices] == [
        "2 of 5 turned upright, as the file says, such as b.mp4",
        "1 of 5 mirrored, as the file says and players do: the other hand signs (if wrong, encode anew), such as c.mp4",
        "1 of 5 transparent, shown on white, such as d.webm",
        "1 of 5 with high dynamic range (HLG or PQ), tone-mapped to an ordinary one, such as e.mov",
    ]


def test_what_clip_fit_cuts_off_or_blackens_is_said_from_a_fifth_on():
    """Of the longer side: 16 to 9 loses 7 of 16."""
    clips = [of_size("a.mp4", 100, 81), of_size("b.mp4", 90, 160), of_size("c.mp4", 400, 300)]
    clips.append(of_size("d.pose", 900, 100, kind="pose"))  # drawn in a square
    (crop,), (pad,) = (
        picture_notices(clips, stretched(16, 32, "crop")),
        picture_notices(clips, stretched(16, 32, "pad")),
    )
    assert crop.text == "2 of 4 made square by CLIP_FIT='crop': 44% cut off in b.mp4; 'pad' would not"
    assert pad.text == "2 of 4 made square by CLIP_FIT='pad': 44% added in black in b.mp4; 'crop' would not"
    assert picture_notices(clips[:1], stretched(16, 32)) == ()
    [tall] = picture_notices(clips, stretched(16, (32, 18)))  # of the proportions of b.mp4
    assert tall.text == "2 of 4 made 18 wide and 32 high by CLIP_FIT='crop': 58% cut off in c.mp4; 'pad' would not"


@pytest.mark.parametrize(
    ("seconds", "remedy"), [(2.51, "MAX_FRAMES=24 would do"), (128.1, "cut it into shorter clips")]
)
def test_what_would_do_for_clips_that_are_too_long_is_said(seconds, remedy):
    facts = [MediaFacts(32, 32, 5000, length) for length in (1.0, seconds, 2.4)]
    clips = [
        InspectedClip(ManifestRow(f"{number}.mp4", Media("video", f"{number}.mp4"), "hello"), "", "", each)
        for number, each in enumerate(facts)
    ]
    [notice] = picture_notices(clips, stretched(16, 32))
    assert notice.text.startswith("2 of 3 too long for MAX_FRAMES=16: ")
    assert notice.text.endswith(f" a second are left of 1.mp4, and movements become jumps below 8; {remedy}")
    assert Config(MAX_FRAMES=MOST_FRAMES)
    with pytest.raises(ValueError, match="MAX_FRAMES"):
        Config(MAX_FRAMES=MOST_FRAMES + 1)


def test_what_lasts_longer_than_max_frames_is_counted_with_its_share():
    seconds = [1.0, 2.83, 2.84, 4.1]  # 34 frames at 12 a second are within 2 of 32
    clips = [
        dataclasses.replace(of_size(f"{number}.mp4", 32, 32), facts=MediaFacts(32, 32, 99, each))
        for number, each in enumerate(seconds)
    ]
    [notice] = picture_notices(clips, natural(32, 16))
    assert notice.text == (
        "2 of 4 (50.0%) too long for MAX_FRAMES=32 and shown faster, so that their speed is lost: 1.5 times as fast is "
        "3.mp4; MAX_FRAMES=52 would do"
    )
    assert picture_notices(clips, natural(52, 16)) == ()
    clips[0] = dataclasses.replace(clips[0], facts=MediaFacts(32, 32, 99, 600.0))
    assert picture_notices(clips, natural(32, 16))[0].text.endswith("is 0.mp4; cut it into shorter clips")


def test_clips_in_shards_are_grouped_by_shard(root, cache):
    def in_shard(number, shard):
        media = Media("video", shard, member=TarMember(512, 10, ".gif"))
        row = ManifestRow(f"{shard}/{number}", media, "hello")
        return dataclasses.replace(inspected(root), row=row)

    clips = tuple(in_shard(number, f"{number % 2}.tar") for number in range(5))
    reader = ClipReader(root, stretched(5, 16), cache)
    assert InspectedClips(reader, clips).groups() == ((0, 2, 4), (1, 3))
    assert InspectedClips(reader, (inspected(root),)).groups() is None
