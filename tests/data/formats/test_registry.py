import shutil
from pathlib import Path

import pytest

from common.errors import UserError
from data.formats.registry import FORMAT_NAMES, FORMATS, read_data_set
from data.media.decode import decode_media
from tests.data.formats import replicas
from tests.data.formats.replicas import write_clip
from tests.shapes import stretched

REPLICAS = {
    "folder": (replicas.folder_replica, "folder of clips with captions (it is a folder, and nothing in it tells of"),
    "words": (
        replicas.words_replica,
        "folder for each word (no clip has a caption, and each lies in a folder, such as",
    ),
    "manifest": (replicas.manifest_replica, "list of clips (it is a .csv file)"),
    "how2sign": (replicas.how2sign_replica, "How2Sign (it holds how2sign_realigned_train.csv)"),
    "phoenix": (replicas.phoenix_replica, "PHOENIX-2014T (it holds PHOENIX-2014-T.train.corpus.csv)"),
    "wlasl": (replicas.wlasl_replica, "WLASL (it holds WLASL_v0.3.json)"),
    "msasl": (replicas.msasl_replica, "MS-ASL (it holds MSASL_train.json)"),
    "webdataset": (replicas.webdataset_replica, "WebDataset shards (it holds clips-000000.tar)"),
    "pose_lexicon": (replicas.pose_lexicon_replica, "pose lexicon (its index.csv has the columns words and glosses)"),
}


@pytest.mark.parametrize("name", REPLICAS)
def test_each_format_is_recognised(tmp_path, name):
    make, sentence = REPLICAS[name]
    path = make(tmp_path / "data", clips=4)
    found, recognised, manifest = read_data_set(path, "auto")
    assert found == name
    assert recognised.startswith(sentence)
    assert len(manifest.rows) == 4
    assert all(row.is_absent for row in manifest.skipped)
    named, why, again = read_data_set(path, name)
    assert (named, again) == (name, manifest)
    assert why.endswith(" (DATA_FORMAT says so)")


@pytest.mark.parametrize("name", REPLICAS)
def test_the_clips_of_each_format_can_be_decoded(tmp_path, name):
    _, _, manifest = read_data_set(REPLICAS[name][0](tmp_path / "data", clips=2), "auto")
    for row in manifest.rows:
        decoded = decode_media(manifest.root, row.media, stretched(4, 16))
        assert decoded.facts.frames in (5, 6) or row.media.kind == "pose"  # five are in the first 0.2 seconds
        assert decoded.pixels_THWC.std() > 0


def test_every_format_says_what_it_looks_like():
    assert len(set(FORMAT_NAMES)) == len(FORMATS)
    assert len({data_format.needs for data_format in FORMATS}) == len(FORMATS)
    assert all(data_format.needs for data_format in FORMATS)
    assert FORMAT_NAMES[-1] == "folder"


def test_a_list_that_somebody_wrote_counts_before_a_published_set(tmp_path):
    root = replicas.how2sign_replica(tmp_path, clips=3)
    clip = next(root.rglob("*.mp4")).relative_to(root)
    (root / "manifest.csv").write_text(f"path,text\n{clip},only this one\n")
    name, _, manifest = read_data_set(root, "auto")
    assert name == "manifest"
    assert [row.caption for row in manifest.rows] == ["only this one"]
    assert len(read_data_set(root, "how2sign")[2].rows) == 3


def test_archives_beside_a_published_set_do_not_count(tmp_path):
    root = replicas.phoenix_replica(tmp_path, clips=2)
    (root / "phoenix-2014-T.v3.tar.gz").touch()
    assert read_data_set(root, "auto")[0] == "phoenix"


def test_the_index_of_a_lexicon_is_no_list_unless_it_says_so(tmp_path):
    root = replicas.pose_lexicon_replica(tmp_path, clips=2)
    assert read_data_set(root / "index.csv", "auto")[0] == "pose_lexicon"
    with pytest.raises(UserError, match="has no column text"):
        read_data_set(root / "index.csv", "manifest")
    shutil.move(root / "index.csv", root / "other.csv")
    assert read_data_set(root / "other.csv", "auto")[0] == "pose_lexicon"


@pytest.mark.parametrize("name", ["auto", "how2sign", "folder"])
def test_a_path_that_does_not_exist_is_named(tmp_path, name):
    with pytest.raises(UserError) as caught:
        read_data_set(tmp_path / "nothing", name)
    message = f"DATA_ROOT={str(tmp_path / 'nothing')!r} does not exist. Give the folder of your clips, or the file that"
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["how2sign", "phoenix", "wlasl", "msasl", "pose_lexicon", "webdataset", "manifest"])
def test_a_format_that_does_not_fit_is_refused_with_what_would(tmp_path, name):
    root = replicas.folder_replica(tmp_path, clips=2)
    with pytest.raises(UserError) as caught:
        read_data_set(root, name)
    (looks_like,) = [data_format.needs for data_format in FORMATS if data_format.name == name]
    assert str(root) in str(caught.value).split(" DATA_FORMAT=")[0]
    assert f". DATA_FORMAT={name!r} means {looks_like}. It looks like folder of clips" in str(caught.value)
    assert str(caught.value).endswith("set DATA_FORMAT to 'folder' or 'auto'.")


def test_the_right_format_is_named_in_a_wrong_ones_place(tmp_path):
    root = replicas.phoenix_replica(tmp_path, clips=2)
    with pytest.raises(UserError, match=r"It looks like PHOENIX-2014T \(it holds .*\): set DATA_FORMAT to 'phoenix'"):
        read_data_set(root, "wlasl")


def test_a_format_that_is_named_need_not_be_recognised(tmp_path):
    replicas.webdataset_replica(tmp_path / "deep" / "down" / "train", clips=2)
    write_clip(tmp_path / "preview.mp4", 0)
    name, why, manifest = read_data_set(tmp_path, "webdataset")
    assert (name, why) == ("webdataset", "WebDataset shards (DATA_FORMAT says so)")
    assert [row.media.path for row in manifest.rows] == [
        "deep/down/train/clips-000000.tar",
        "deep/down/train/clips-000001.tar",
    ]
    assert read_data_set(tmp_path, "auto")[0] == "folder"
    table = replicas.manifest_replica(tmp_path / "list", clips=2).rename(tmp_path / "list" / "list.txt")
    assert len(read_data_set(table, "manifest")[2].rows) == 2


def test_shards_in_a_folder_for_each_split_are_recognised(tmp_path):
    for split in ("val", "train"):
        replicas.webdataset_replica(tmp_path / split, clips=2)
    name, why, manifest = read_data_set(tmp_path, "auto")
    assert (name, why) == ("webdataset", "WebDataset shards (it holds train/clips-000000.tar)")
    assert len(manifest.rows) == 4
    assert read_data_set(tmp_path, "webdataset")[2] == manifest
    clip = write_clip(tmp_path / "clips" / "clip.mp4", 0)
    clip.with_suffix(".txt").write_text("hello")
    name, _, manifest = read_data_set(tmp_path, "auto")
    assert (name, [row.id for row in manifest.rows]) == ("folder", ["clips/clip.mp4"])


def test_what_is_wrong_with_the_right_format_stands_alone(tmp_path):
    root = replicas.how2sign_replica(tmp_path, clips=2)
    (root / "manifest.csv").write_text("path,text\n")
    (root / "how2sign_realigned_train.csv").write_text("nothing\n")
    with pytest.raises(UserError, match=r"needed are sentence_name, sentence\.$"):
        read_data_set(root, "how2sign")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clips.json", b"3", "is no list of clips: write ["),
        ("clips.json", b"{", "is not JSON: "),
        ("clips.json", b'[{"id": 1, "x": 2}]', "lists no clip: its first entry has id, x; needed are path, text, or"),
        ("clips.json", b"[]", "lists no clip: its first entry has no field; needed are path, text, or"),
        ("clips.txt", "path;text\na.mp4;gr\u00fcn\n".encode("cp1252"), "is not UTF-8: save it again"),
        ("clips.txt", b"hello", "has no column path and no column text. Its first line names hello; needed are path, "),
    ],
    ids=["number", "no JSON", "other fields", "empty", "Windows-1252", "no table"],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_data_set(tmp_path / name, "auto")
    assert str(caught.value).startswith(f"{tmp_path / name} {message}")
    replicas.wlasl_replica(tmp_path, clips=2)
    with pytest.raises(UserError, match=r" Its folder looks like WLASL \(it holds .*\): give .* as DATA_ROOT\.$"):
        read_data_set(tmp_path / name, "auto")


def test_nothing_is_fetched():
    with pytest.raises(UserError, match=r"^DATA_ROOT='https:/example.com/a': nothing is fetched\. Download it"):
        read_data_set(Path("https://example.com/a"), "auto")


def test_a_file_that_is_nothing_is_refused_with_what_is_possible(tmp_path):
    file = tmp_path / "clips.doc"
    file.write_text("hello")
    with pytest.raises(UserError) as caught:
        read_data_set(file, "auto")
    said = str(caught.value).removeprefix(f"DATA_ROOT={str(file)!r} ")
    assert said.startswith("is nothing that can be read. Possible are a folder of clips, each with its caption beside")
    assert all(each.title in said for each in FORMATS if each.name not in ("folder", "words", "manifest"))
    assert all(text in said for text in (FORMATS[-1].needs, FORMATS[-2].needs, "a list of clips"))
    assert len(said) < 400
    with pytest.raises(UserError, match="It is nothing else that can be read either"):
        read_data_set(file, "folder")


@pytest.mark.parametrize(
    ("name", "file"),
    [("msasl", "MSASL_val.json"), ("wlasl", "WLASL_v0.3.json"), ("how2sign", "how2sign_realigned_test.csv")],
)
def test_a_list_of_a_published_set_is_refused_and_its_folder_named(tmp_path, name, file):
    root = REPLICAS[name][0](tmp_path / "set", clips=6)
    with pytest.raises(UserError) as caught:
        read_data_set(root / file, "auto")
    title = next(data_format.title for data_format in FORMATS if data_format.name == name)
    assert f"Its folder looks like {title} (it holds " in str(caught.value)
    assert f"): give {str(root)!r} as DATA_ROOT." in str(caught.value)


def test_a_list_of_nothing_in_a_published_set_is_refused_and_the_folder_named(tmp_path):
    root = replicas.msasl_replica(tmp_path, clips=2)
    (root / "list.csv").write_text("path,text\nhello sign,hello\n")
    with pytest.raises(
        UserError, match=r"list\.csv' lists no clip that can be read\. Its folder looks like MS-ASL \(it"
    ):
        read_data_set(root / "list.csv", "auto")


def test_a_single_clip_is_refused_and_its_folder_named(tmp_path):
    clip = replicas.write_clip(tmp_path / "clip.mp4", 0)
    with pytest.raises(UserError, match="is a single clip") as caught:
        read_data_set(clip, "auto")
    assert f"Give the folder that holds it, {str(tmp_path)!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "clip.txt",
            "is the caption of a single clip. Give the folder that holds it, '{folder}', with a caption beside",
        ),
        ("clips.zip", "is an archive: unpack it and give the folder."),
        ("clips.tar.GZ", "is an archive: unpack it and give the folder."),
        ("captions.xlsx", "is not read: save it as CSV UTF-8 and give that file."),
        ("captions.ODS", "is not read: save it as CSV UTF-8 and give that file."),
    ],
)
def test_files_that_people_give_are_refused_with_what_to_do(tmp_path, name, message):
    for each in (name, "clip.mp4"):
        (tmp_path / each).write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        read_data_set(tmp_path / name, "auto")
    start = f"DATA_ROOT={str(tmp_path / name)!r} {message.format(folder=tmp_path)}"
    assert str(caught.value).startswith(start)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"DATA_FORMAT='how2dance' is not known\. Choose one of: auto, "):
        read_data_set(tmp_path, "how2dance")


def write_lists(root, lists):
    """Write a list in each folder, and the two clips that lists name."""
    for name, content in lists.items():
        (root / name).mkdir(parents=True)
        (root / name / "metadata.csv").write_text(content)
        for clip in ("a.mp4", "b.mp4"):
            (root / name / clip).touch()


BARE = "file_name,text\na.mp4,x\n"


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({"train": BARE, "Test ": BARE}, {"train": "training", "Test ": "test"}),
        (
            {"train": "file_name,text,split\na.mp4,x,\n", "dev": "file_name,text,split\na.mp4,x,\n"},
            {"train": "training", "dev": "validation"},
        ),
        ({"train": "file_name,text,split\na.mp4,x,train\n", "test": BARE}, {"train": "training", "test": "test"}),
        ({"test": "file_name,text,split\na.mp4,x,train\nb.mp4,x,\n"}, {"test": None}),  # re-used: no split
    ],
)
def test_lists_in_folders_that_are_the_split_give_it_unless_their_lines_do(tmp_path, lists, splits):
    write_lists(tmp_path, lists)
    _, _, manifest = read_data_set(tmp_path, "auto")
    assert {row.media.path.split("/")[0]: row.split for row in manifest.rows} == splits
    assert not manifest.skipped


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"my_train": BARE, "my_test": BARE}, "the names of folders look like a split, .*: my_test, my_train. If"),
        ({"train": BARE, "test": BARE, "more": BARE}, "named train, val or test hold 2 of 3 clips, such as test/a.mp4"),
    ],
)
def test_lists_in_folders_that_may_be_the_split_are_asked_about(tmp_path, lists, message):
    write_lists(tmp_path, lists)
    with pytest.raises(UserError, match=message + ".* Or give every clip its split in the list"):
        read_data_set(tmp_path, "auto")
    write_lists(tmp_path / "all", {name: f"{BARE.replace(',text', ',text,split').strip()},train\n" for name in lists})
    _, _, manifest = read_data_set(tmp_path / "all", "auto")
    assert {row.split for row in manifest.rows} == {"training"}
