import pytest

from data.formats.folder import FORMAT


def notes(root):
    return tuple(notice.text for notice in FORMAT.read(root).notices)


@pytest.fixture
def root(tmp_path):
    """Two clips without captions, which need not be decoded."""
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", ["captions.csv", "list.TSV", "clips.jsonl"])
def test_a_list_beside_clips_without_captions_is_pointed_to(root, name):
    assert notes(root) == ()
    (root / name).write_text("path,text\na.mp4,hello\n")
    assert notes(root) == (f"{name} may be the list of clips: give it as DATA_ROOT",)
    (root / "a.txt").write_text("hello")
    assert notes(root) == (f"{name} may be the list of clips: give it as DATA_ROOT",)
    (root / "b.txt").write_text("hello")
    assert notes(root) == ()


def test_only_lists_in_the_root_are_pointed_to_and_only_a_few(root):
    (root / "sub").mkdir()
    (root / "sub" / "0.csv").touch()
    (root / ".0.csv").touch()
    (root / "notes.xml").touch()
    assert notes(root) == ()
    for number in range(1, 6):
        (root / f"{number}\n.csv").touch()
    assert notes(root) == (r"1\n.csv or 2\n.csv or 3\n.csv may be the list of clips: give it as DATA_ROOT",)


def test_a_caption_may_be_named_in_capitals(root):
    for name in ("a.TXT", "b.txt"):
        (root / name).write_text(f"hello {name}")
    assert [row.caption for row in FORMAT.read(root).rows] == ["hello a.TXT", "hello b.txt"]


def test_videos_of_kinds_that_are_not_read_are_said(root):
    (root / "c.wmv").touch()
    (root / "d.M4V").touch()
    assert notes(root) == ("2 videos are of kinds that are not read, such as c.wmv: encode anew",)


def test_captions_without_clips_are_counted(root):
    for name in ("z.txt", "c.txt", "a.txt"):
        (root / name).write_text("hello")
    assert notes(root) == ("2 .txt files have no clip beside them, such as c.txt",)
