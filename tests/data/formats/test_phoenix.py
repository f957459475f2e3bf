import shutil

import pytest

from common.errors import UserError
from data.formats.phoenix import FORMAT
from data.rows import ManifestRow, Media, SkippedRow
from tests.data.formats.replicas import phoenix_replica

FRAMES = "features/fullFrame-210x260px"


@pytest.fixture
def release(tmp_path):
    """The folder PHOENIX-2014-T; its parent is what the archive unpacks into."""
    return phoenix_replica(tmp_path / "PHOENIX-2014-T-release-v3") / "PHOENIX-2014-T"


def test_clips_are_found_with_their_translations_splits_and_signers(release):
    assert FORMAT.recognise(release) == "it holds PHOENIX-2014-T.train.corpus.csv"
    manifest = FORMAT.read(release)
    assert len(manifest.rows) == 6
    assert manifest.rows[0] == ManifestRow(
        "11August_2010_Wednesday_tagesschau-1",
        Media("frames", f"{FRAMES}/train/11August_2010_Wednesday_tagesschau-1", frames_per_second=25.0),
        "und nun die wettervorhersage für morgen donnerstag den zwölften august .",
        signer="Signer08",
        split="training",
        language="gsg",
    )
    assert [row.split for row in manifest.rows] == [*["training"] * 4, "validation", "test"]
    assert manifest.rows[3].caption == 'der "wind" weht meist schwach mitunter auch mal mäßig .'
    assert manifest.skipped == (
        SkippedRow("05May_2011_Thursday_heute-99", f"has no folder of frames in {FRAMES}/train", is_absent=True),
    )


def test_folders_above_are_as_good(release):
    for root, below in (
        (release.parent, "PHOENIX-2014-T"),
        (release.parents[1], f"{release.parent.name}/PHOENIX-2014-T"),
    ):
        assert FORMAT.recognise(root) == "it holds PHOENIX-2014-T.train.corpus.csv"
        manifest = FORMAT.read(root)
        assert manifest.root == root
        assert len(manifest.rows) == 6
        assert all(row.media.path.startswith(f"{below}/{FRAMES}/") for row in manifest.rows)
        assert all((root / row.media.path).is_dir() for row in manifest.rows)


def test_lists_in_the_root_are_found(release):
    for file in (release / "annotations" / "manual").iterdir():
        shutil.move(file, release)
    assert len(FORMAT.read(release).rows) == 6
    assert len(FORMAT.read(release.parent).rows) == 6


def test_frames_one_folder_further_down_are_found(release):
    clip = release / FRAMES / "train" / "11August_2010_Wednesday_tagesschau-1"
    (clip / "1").mkdir()
    for file in clip.glob("*.png"):
        shutil.move(file, clip / "1")
    assert FORMAT.read(release).rows[0].media.path == f"{FRAMES}/train/{clip.name}/1"


def test_the_list_with_complex_annotations_does_not_count(release):
    folder = release / "annotations" / "manual"
    shutil.copy(
        folder / "PHOENIX-2014-T.train.corpus.csv", folder / "PHOENIX-2014-T.train-complex-annotation.corpus.csv"
    )
    manifest = FORMAT.read(release)
    assert len(manifest.rows) == 6
    assert len(manifest.skipped) == 1


def test_a_split_that_is_not_there_is_not_missed(release):
    (release / "annotations" / "manual" / "PHOENIX-2014-T.train.corpus.csv").unlink()
    shutil.rmtree(release / FRAMES / "test")
    assert FORMAT.recognise(release) == "it holds PHOENIX-2014-T.dev.corpus.csv"
    manifest = FORMAT.read(release)
    assert [row.split for row in manifest.rows] == ["validation"]
    assert [row.is_absent for row in manifest.skipped] == [True]


def test_missing_frames_are_said_so(release):
    shutil.rmtree(release / "features")
    with pytest.raises(UserError, match=f"no folder {FRAMES} with the frames: unpack it beside annotations"):
        FORMAT.read(release)


def test_lines_that_make_no_sense_are_skipped_alone(release):
    name = "11August_2010_Wednesday_tagesschau-1"
    lines = [
        "name|video|start|end|speaker|orth|translation",
        "../../../../etc|x|-1|-1|Signer01|X|hinaus",
        f'{name}|x|-1|-1|Signer01|X|"wind',
        f"{name}|x|-1|-1|Signer01|X",
        f"{name}|x|-1|-1|Signer01|X|a|b",
        f"{name}|x|-1|-1|Signer01|X| ",
        f'{name}|x|-1|-1|Signer01|X|"wind',
    ]
    (release / "annotations" / "manual" / "PHOENIX-2014-T.train.corpus.csv").write_text("\n".join(lines))
    manifest = FORMAT.read(release)
    assert [row.caption for row in manifest.rows if row.split == "training"] == ['"wind']
    place = "PHOENIX-2014-T.train.corpus.csv line"
    assert [(row.id, row.reason) for row in manifest.skipped] == [
        ("../../../../etc", f"has no folder of frames in {FRAMES}/train"),
        (f"{place} 4", "has 6 fields in place of 7"),
        (f"{place} 5", "has 8 fields in place of 7"),
        (f"{place} 6", "has no translation: fill in the field 'translation'"),
    ]


def test_other_folders_are_not_recognised(tmp_path):
    (tmp_path / "train.corpus.csv").touch()
    assert FORMAT.recognise(tmp_path) is None
    assert FORMAT.recognise(tmp_path / "train.corpus.csv") is None
