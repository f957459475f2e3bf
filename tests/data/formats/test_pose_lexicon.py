import importlib.resources
import shutil

import pytest

from data.formats.pose_lexicon import COLUMNS, FORMAT
from data.rows import WHOLE, ManifestRow, Media, TimeSpan
from tests.data.formats.replicas import pose_lexicon_replica


@pytest.fixture
def root(tmp_path):
    return pose_lexicon_replica(tmp_path)


@pytest.fixture
def read(tmp_path):
    """Read an index with these lines, beside two files that need not be decoded."""

    def run(*lines):
        for name in ("a.pose", "b.pose"):
            (tmp_path / name).touch()
        (tmp_path / "index.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n", encoding="utf-8")
        return FORMAT.read(tmp_path)

    return run


def test_letters_are_found(root):
    for path in (root, root / "index.csv"):
        manifest = FORMAT.read(path)
        assert manifest.root == root
        assert [row.caption for row in manifest.rows] == list("ABCDEF")
        assert manifest.rows[0] == ManifestRow(
            "ase/fs-stse28e9ac023b0e29ca0a3acc12dc46540.pose@0-2.72",
            Media("pose", "ase/fs-stse28e9ac023b0e29ca0a3acc12dc46540.pose", TimeSpan(0.0, 2.72)),
            "A",
            language="ase",
        )
        assert not manifest.skipped
    assert FORMAT.recognise(root) == "its index.csv has the columns words and glosses"
    assert FORMAT.recognise(root / "index.csv") == "it has the columns words and glosses"


def test_the_whole_lexicon_of_the_package_is_read():
    with importlib.resources.as_file(importlib.resources.files("spoken_to_signed") / "assets") as assets:
        manifest = FORMAT.read(assets / "fingerspelling_lexicon")
    assert len(manifest.rows) == 626
    assert not manifest.skipped
    assert len({row.media.path for row in manifest.rows}) == 600  # French letters are the American ones
    assert len({row.language for row in manifest.rows}) == 20
    assert len({row.id for row in manifest.rows}) == 626


@pytest.mark.parametrize(
    ("start", "end", "span"),
    [
        ("0", "0", WHOLE),
        ("", "", WHOLE),
        ("500", "0", TimeSpan(0.5)),
        ("500", "", TimeSpan(0.5)),
        ("0", "1240", TimeSpan(0.0, 1.24)),
        ("200", "1240", TimeSpan(0.2, 1.24)),
        ("1240", "1240", WHOLE),
        ("1240", "200", WHOLE),
    ],
)
def test_times_are_milliseconds(read, start, end, span):
    (row,) = read(f"a.pose,en,ase,{start},{end},book,BOOK,0").rows
    assert row.media.span == span


def test_glosses_stand_in_for_words(read):
    manifest = read("a.pose,en,ase,0,0,,BOOK,0", "b.pose,en,ase,0,0,,,0")
    assert [row.caption for row in manifest.rows] == ["BOOK"]
    assert [(row.id, row.reason) for row in manifest.skipped] == [
        ("index.csv line 3", "has no glosses: fill in the field 'glosses'")
    ]


def test_long_texts_are_captions_and_long_languages_are_refused(read):
    words, language = "word " * 100, "x" * 201
    manifest = read(f"a.pose,en,ase,0,0,{words},X,0", f"b.pose,en,{language},0,0,book,BOOK,0")
    assert [row.caption for row in manifest.rows] == [words.strip()]
    assert [(row.id, row.reason) for row in manifest.skipped] == [
        ("index.csv line 3", "has a signed_language of more than 200 characters")
    ]


def test_one_file_in_several_languages_makes_several_clips(read):
    line = "a.pose,{},{},0,0,A,A,0"
    manifest = read(line.format("en", "ase"), line.format("fr", "fsl"), line.format("en", "ase"))
    assert [(row.id, row.language) for row in manifest.rows] == [("a.pose", "ase"), ("a.pose (2)", "fsl")]
    assert manifest.skipped == ()
    (notice,) = manifest.notices
    assert notice.text == "index.csv line 4 repeats an earlier line and counts once"


def test_lines_that_make_no_sense_are_skipped_alone(read):
    manifest = read(
        "c.pose,en,ase,0,0,book,BOOK,0",
        "gs://bucket/a.pose,en,ase,0,0,book,BOOK,0",
        "a.pose,en,ase,soon,0,book,BOOK,0",
        "a.pose,en,ase,-40,0,book,BOOK,0",
        "a.pose,en,ase,0,0,book",
        "b.pose,en,ase,0,0,walk,WALK,0",
    )
    assert [row.id for row in manifest.rows] == ["b.pose"]
    assert [(row.id, row.reason.partition(",")[0], row.is_absent) for row in manifest.skipped] == [
        ("index.csv line 2", "names path='c.pose'", False),
        ("index.csv line 3", "names path='gs://bucket/a.pose': nothing is fetched", False),
        ("index.csv line 4", "has start='soon': write milliseconds as a number with a decimal point", False),
        ("index.csv line 5", "has start='-40': it must not be negative", False),
        (
            "index.csv line 6",
            "has 6 fields in place of 8; a text with the separator in it must stand in double quotes",
            False,
        ),
    ]


def test_other_tables_are_not_recognised(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    assert FORMAT.recognise(other) is None
    (other / "index.csv").write_text("path,text\n")
    assert FORMAT.recognise(other) is None
    (other / "index.csv").write_bytes(b"\xff\xfe\x00")
    assert FORMAT.recognise(other) is None
    shutil.copy(root / "index.csv", other / "index.txt")
    assert FORMAT.recognise(other / "index.txt") is None
