import csv
import io
import json
import os

import pytest

from common.errors import UserError
from data.formats.manifest import FORMAT
from data.formats.tables import open_table
from data.rows import WHOLE, Media, TimeSpan
from tests.data.formats.replicas import manifest_replica


@pytest.fixture
def read(tmp_path):
    """Read a list with this content, beside three clips that need not be decoded."""
    for name in ("a.mp4", "b.webm", "c.pose"):
        (tmp_path / name).touch()
    (tmp_path / "frames" / "one").mkdir(parents=True)

    def run(content, name="manifest.csv"):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return FORMAT.read(file)

    return run


def reasons(manifest):
    return {row.id: row.reason for row in manifest.skipped}


@pytest.mark.parametrize("extension", [".csv", ".tsv", ".jsonl"])
def test_every_field_of_a_list_is_read(tmp_path, extension):
    file = manifest_replica(tmp_path, extension=extension)
    for path in (file, tmp_path):
        manifest = FORMAT.read(path)
        assert manifest.root == tmp_path
        assert not manifest.skipped
        assert not manifest.notices
        assert [row.id for row in manifest.rows[:2]] == ["clips/0.mp4", "clips/1.mp4@0-0.2"]
        assert [row.media.span for row in manifest.rows[:2]] == [WHOLE, TimeSpan(0.0, 0.2)]
        assert [row.caption for row in manifest.rows[:3]] == ["hello", "thank you", "see you"]
        assert [row.signer for row in manifest.rows[:4]] == ["alice", "bob", "carol", "alice"]
        split = ["training", "training", "validation", "training", "test", "training"]
        assert [row.split for row in manifest.rows] == split
        assert {row.language for row in manifest.rows} == {"ase"}
        assert {row.media.kind for row in manifest.rows} == {"video"}


def test_lists_are_recognised_by_their_names(tmp_path):
    assert FORMAT.recognise(tmp_path) is None
    file = tmp_path / "clips.TSV"
    file.touch()
    assert FORMAT.recognise(file) == "it is a .tsv file"
    assert FORMAT.recognise(tmp_path) is None
    (tmp_path / "manifest.jsonl").touch()
    assert FORMAT.recognise(tmp_path) == "it holds manifest.jsonl"
    (tmp_path / "clip.mp4").touch()
    assert FORMAT.recognise(tmp_path / "clip.mp4") is None


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_separator_is_found(read, separator):
    text = separator.join(["text", "path"]) + "\r\n" + separator.join(['"well; well, | \t well"', "a.mp4"]) + "\r\n"
    (row,) = read(text).rows
    assert (row.caption, row.media.path) == ("well; well, | well", "a.mp4")


def test_a_byte_order_mark_capitals_and_spaces_do_not_matter(read):
    (row,) = read("\ufeff Path , TEXT\n a.mp4 , hello \n").rows
    assert (row.media.path, row.caption) == ("a.mp4", "hello")


def test_decimal_commas_are_read(read):
    (row,) = read("path;text;start;end\na.mp4;hello;0,5;1,25\n").rows
    assert row.media.span == TimeSpan(0.5, 1.25)
    assert row.id == "a.mp4@0.5-1.25"


def test_all_kinds_of_clips_are_taken(read):
    manifest = read("path,text\na.mp4,one\nb.webm,two\nc.pose,three\nframes/one/,four\n")
    assert [row.media for row in manifest.rows] == [
        Media("video", "a.mp4"),
        Media("video", "b.webm"),
        Media("pose", "c.pose"),
        Media("frames", "frames/one"),
    ]


def test_parts_and_captions_of_one_file_get_ids_of_their_own(read):
    manifest = read("path,text,start,end\na.mp4,hello,,\na.mp4,hi,,\na.mp4,hey,,\n./a.mp4,hello,3,5.5\na.mp4,bye,7,\n")
    assert [row.id for row in manifest.rows] == ["a.mp4", "a.mp4 (2)", "a.mp4 (3)", "a.mp4@3-5.5", "a.mp4@7-"]
    assert len({row.media for row in manifest.rows}) == 3


def texts(manifest, topic="files"):
    return [notice.text for notice in manifest.notices if notice.topic == topic]


def test_exact_repeats_count_once_and_are_counted(read):
    lines = ["a.mp4,hello,amy,train,0,1", "b.webm,hello,bob,val,,", "./a.mp4,hello,amy,TRAIN,0.0,1.0"]
    manifest = read("\n".join(["path,text,signer,split,start,end", *lines, *lines]))
    assert [(row.media.path, row.signer, row.split) for row in manifest.rows] == [
        ("a.mp4", "amy", "training"),
        ("b.webm", "bob", "validation"),
    ]
    assert manifest.skipped == ()
    assert texts(manifest) == ["4 lines, such as manifest.csv line 4, repeat earlier ones and count once"]
    (note,) = texts(read("path,text\na.mp4,hello\n\na.mp4,hello\n"))
    assert note == "manifest.csv line 4 repeats an earlier line and counts once"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.mp4,hello,bob,train", "but signer='bob' in place of 'amy'; take one of the lines away"),
        ("a.mp4,hello,,train", "but signer='' in place of 'amy'; take one of the lines away"),
        ("a.mp4,hello,amy,test", "but split='test' in place of 'training'; take one of the lines away"),
    ],
)
def test_the_same_clip_with_another_signer_or_split_is_a_contradiction(read, line, reason):
    manifest = read(f"path,text,signer,split\na.mp4,hello,amy,train\n{line}\n")
    assert [(row.signer, row.split) for row in manifest.rows] == [("amy", "training")]
    assert reasons(manifest) == {
        "manifest.csv line 3": f"contradicts an earlier line: the same clip with the same caption, {reason}"
    }
    assert texts(manifest) == []


HEADERS = [
    ("file_name,text", "file_name was taken for path"),
    ("Video Path,Caption", "video_path was taken for path, caption was taken for text"),
    ("video,sentence", "video was taken for path, sentence was taken for text"),
    ('"clip-name","GLOSS"', "clip_name was taken for path, gloss was taken for text"),
    ("filename,label", "filename was taken for path, label was taken for text"),
]


@pytest.mark.parametrize(("header", "note"), HEADERS)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_names_that_data_sets_use_are_known_and_said(read, header, note, separator):
    manifest = read(header.replace(",", separator) + "\na.mp4" + separator + "hello\n")
    assert [(row.media.path, row.caption) for row in manifest.rows] == [("a.mp4", "hello")]
    assert texts(manifest) == [f"in manifest.csv {note}"]


def test_other_names_of_every_field_are_known_in_json_too(read):
    line = {"video_file": "a.mp4", "Prompt": "hi", "speaker": 7, "subset": "dev", "start_time": 0.5, "end_time": "1,5"}
    manifest = read(json.dumps(line) + "\n" + json.dumps({"path": "b.webm", "text": "plain"}), "manifest.jsonl")
    first, second = manifest.rows
    assert (first.media, first.caption) == (Media("video", "a.mp4", TimeSpan(0.5, 1.5)), "hi")
    assert (first.signer, first.split) == ("7", "validation")
    assert (second.media.path, second.caption) == ("b.webm", "plain")
    note, times = texts(manifest)
    assert times == "clips are cut by start_time and end_time: rename these columns if the clips are cut already"
    assert note == (
        "in manifest.jsonl video_file was taken for path, Prompt was taken for text, speaker was taken for signer, "
        "subset was taken for split, start_time was taken for start, end_time was taken for end"
    ).replace("Prompt", "prompt")


def test_what_is_called_a_set_is_the_split_only_if_it_names_parts_of_one(read):
    manifest = read("path,text,set,subset\na.mp4,x,A,\nb.webm,y,3,Test \n")
    assert [row.split for row in manifest.rows] == [None, "test"]
    taken, unused = texts(manifest)
    assert taken == "in manifest.csv subset was taken for split"
    assert unused.startswith("manifest.csv has fields that mean nothing here: set; known are ")
    manifest = read("path,text,set\na.mp4,x,train\nb.webm,y,tset\n")
    assert [row.split for row in manifest.rows] == ["training"]
    assert reasons(manifest)["manifest.csv line 3"].startswith("has split='tset': write one of train")


def test_a_single_time_of_another_name_is_said_to_cut(read):
    assert texts(read("path,text,end_seconds\na.mp4,x,2\n"))[1:] == [
        "clips are cut by end_seconds: rename this column if the clips are cut already"
    ]


def test_whole_numbers_are_captions_in_json_as_in_a_table(read):
    table = read("path,text\na.mp4,12\n")
    lines = [{"path": "a.mp4", "caption": 12}, {"path": "a.mp4", "text": True}, {"path": "a.mp4", "text": 1.5}]
    in_json = read(json.dumps(lines), "list.json")
    assert [row.caption for row in (*table.rows, *in_json.rows)] == ["12", "12"]
    assert len(in_json.skipped) == 2


def test_of_several_columns_the_documented_name_and_then_the_order_decides(read):
    manifest = read("gloss,sentence,text,video,path\nG,S,T,b.webm,a.mp4\n")
    assert [(row.media.path, row.caption) for row in manifest.rows] == [("a.mp4", "T")]
    (note,) = texts(manifest)
    assert note.startswith("manifest.csv has fields that mean nothing here: gloss, sentence, video; known are path, ")
    manifest = read("gloss,sentence,path\nG,S,a.mp4\n")
    assert [row.caption for row in manifest.rows] == ["S"]
    assert texts(manifest)[0] == "in manifest.csv sentence was taken for text"
    assert "mean nothing here: gloss;" in texts(manifest)[1]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_the_list_of_a_folder_of_videos_is_recognised_by_what_it_names(read, tmp_path, name):
    lines = {
        "metadata.csv": "file_name,text\na.mp4,hello\n",
        "metadata.jsonl": '{"file_name": "a.mp4", "text": "hello"}\n',
    }
    read(lines[name], name)
    assert FORMAT.recognise(tmp_path) == f"it holds {name}"
    assert [row.caption for row in FORMAT.read(tmp_path).rows] == ["hello"]
    other = {"metadata.csv": "file_name,width\na.mp4,3\n", "metadata.jsonl": '{"licence": "CC0"}\n'}
    (tmp_path / name).write_text(other[name])
    assert FORMAT.recognise(tmp_path) is None


def test_the_lists_of_splits_are_read_together(tmp_path):
    for folder, line in {"train": "a.mp4,hello", "Test": "a.mp4,hello", "more": "b/c.mp4,bye", "other": ""}.items():
        (tmp_path / folder / "b").mkdir(parents=True)
        (tmp_path / folder / "a.mp4").touch()
        (tmp_path / folder / "b" / "c.mp4").touch()
        (tmp_path / folder / "metadata.csv").write_text(f"file_name,text\n{line}\n,no path\n" if line else "id,x\n")
    assert FORMAT.recognise(tmp_path) == "it holds Test/metadata.csv"
    manifest = FORMAT.read(tmp_path)
    assert manifest.root == tmp_path
    assert [(row.id, row.caption, row.split) for row in manifest.rows] == [
        ("Test/a.mp4", "hello", None),
        ("more/b/c.mp4", "bye", None),
        ("train/a.mp4", "hello", None),
    ]
    assert reasons(manifest) == {
        f"{folder}/metadata.csv line 3": "has no path: fill in the field 'path'" for folder in ("Test", "more", "train")
    }
    assert texts(manifest) == [
        "in Test/metadata.csv and more/metadata.csv and train/metadata.csv file_name was taken for path"
    ]
    (tmp_path / "link").symlink_to("more")
    assert FORMAT.read(tmp_path) == manifest
    (tmp_path / "metadata.csv").write_text("file_name,text\nmore/a.mp4,hello\n")
    assert [row.id for row in FORMAT.read(tmp_path).rows] == ["more/a.mp4"]


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"data": rows}])
def test_a_json_file_with_a_list_of_objects_is_read(read, tmp_path, wrap):
    rows = [{"file": "a.mp4", "Caption": "hello"}, {"file": "b.webm", "Caption": "bye"}, ["a.mp4", "no"]]
    manifest = read(json.dumps(wrap(rows), indent=1), "clips.json")
    assert FORMAT.recognise(tmp_path / "clips.json") == "it is a .json file that names clips and captions"
    assert [(row.media.path, row.caption) for row in manifest.rows] == [("a.mp4", "hello"), ("b.webm", "bye")]
    assert reasons(manifest) == {
        "clips.json entry 3": 'is not a JSON object such as {"path": "hello.mp4", "text": "hello"}'
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON: "),
        ("[" * 100_000, "is not JSON: "),
        ("3", "is no list of clips: write "),
        ('{"a.mp4": 1.5, "b.mp4": 2.5}', "is no list of clips: write "),
        ('{"data": [{"path": "a.mp4", "text": "x"}], "no": [1]}', "it is the field 'data' of an object with others"),
        ('{"path": {"0": "a.mp4"}, "text": {"0": "x"}}', "it holds columns, as pandas writes them, so write"),
        ('{"path": "a.mp4"}\n{"path": "b.mp4"}', "if each line is an object, let the file's name end in .jsonl"),
        pytest.param(b"\xff", "is not UTF-8", id="bytes"),
        ("[]", "lists no clip"),
    ],
)
def test_a_json_file_that_is_no_list_is_refused(read, tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(content, "clips.json")
    assert FORMAT.recognise(tmp_path / "clips.json") is None


def test_a_json_object_of_captions_by_names_is_read(read, tmp_path):
    manifest = read('{"a.mp4": "hello", "Notes": "no clip", "b.webm": "bye", "c.pose": null}', "clips.json")
    assert FORMAT.recognise(tmp_path / "clips.json") == "it is a .json file that names clips and captions"
    assert [(row.media.path, row.caption) for row in manifest.rows] == [("a.mp4", "hello"), ("b.webm", "bye")]
    assert list(reasons(manifest)) == ["clips.json entry 2", "clips.json entry 4"]


@pytest.mark.parametrize("prompts", ["prompts.txt", "prompt.txt", "captions.txt"])
def test_lines_of_two_files_belong_together(read, tmp_path, prompts):
    (tmp_path / prompts).write_text("Hello, world\r\nbye\n\n", encoding="utf-8-sig")
    manifest = read("a.mp4\nb.webm\n", "videos.txt")
    assert [(row.media.path, row.caption) for row in manifest.rows] == [("a.mp4", "Hello, world"), ("b.webm", "bye")]
    assert FORMAT.recognise(tmp_path) == "it holds videos.txt"
    assert FORMAT.recognise(tmp_path / "videos.txt") == "it has a list of captions beside it"
    assert FORMAT.read(tmp_path) == manifest
    (tmp_path / prompts).write_text("hello\n\nbye\n")
    with pytest.raises(UserError, match=rf"videos\.txt has 2 lines and {prompts} has 3: line N of one"):
        FORMAT.read(tmp_path)
    (tmp_path / "prompts.txt").touch()
    (tmp_path / "captions.txt").touch()
    with pytest.raises(UserError, match=r"needs one of .* there are prompts\.txt and "):
        FORMAT.read(tmp_path)


def test_a_list_of_videos_alone_is_no_list(read, tmp_path):
    (tmp_path / "videos.txt").write_text("a.mp4\n")
    assert FORMAT.recognise(tmp_path) is None
    with pytest.raises(UserError, match=r"needs one of .*; there is none\."):
        FORMAT.read(tmp_path / "videos.txt")


def test_what_excel_saves_is_read(read, tmp_path):
    text = 'sep=;\r\nPath;Text;Start;End\r\na.mp4;"grün; blau";0,5;1,5\r\n'
    (row,) = read(text).rows
    assert (row.caption, row.media.span) == ("grün; blau", TimeSpan(0.5, 1.5))
    for encoding in ("utf-16", "utf-8-sig"):
        (row,) = read("Path\tText\r\na.mp4\tgrün\r\n".encode(encoding)).rows
        assert (row.media.path, row.caption) == ("a.mp4", "grün")
    read("Path\tText\r\na.mp4\tgrün\r\n".encode("utf-16"), "unicode.txt")
    assert FORMAT.recognise(tmp_path / "unicode.txt") == "it is a .txt file that names clips and captions"
    (tmp_path / "unicode.txt").write_text("hello\n")
    assert FORMAT.recognise(tmp_path / "unicode.txt") is None
    big_endian = b"\xfe\xff" + "path\ttext\na.mp4\tgrün\n".encode("utf-16-be")
    assert [row.caption for row in read(big_endian).rows] == ["grün"]


def test_captions_that_a_spreadsheet_or_pandas_left_are_named(read):
    cells = ["NaN", "None", "nan", "NULL", "n/a", "N/A", "#N/A", "#NV", "#NAME?", "#REF!", "#WERT!", "#DIV/0!", "###"]
    cells += ["<NA>", "Err:502", "=A2", "-", "\u2013", "?", "..."]
    words = ["hello", "nano", "none of it", "#JOB", "C#", "2 - 1", "\U0001f44b", "a", "1=1", "Null null", "\u4f60"]
    lines = [f"a.mp4,{caption}" for caption in (*words, *cells)]
    (note,) = read("\n".join(["path,text", *lines])).notices
    assert note.topic == "captions"
    first = f"'NaN' of a.mp4 ({len(words) + 1}): correct or delete these lines"
    assert note.text == f"{len(cells)} captions look like empty or failed cells, such as {first}"
    (note,) = read("path,text\na.mp4,?\n").notices
    assert note.text.startswith(
        "1 caption looks like an empty or failed cell, such as '?' of a.mp4: correct or delete this"
    )


CUT_CAPTIONS = """path,text,signer
a.mp4,hello, world
b.webm,thanks, friend
c.pose,bye
frames/one,good morning,
"""


def test_signers_that_look_like_the_ends_of_captions_are_named(read):
    with_all = CUT_CAPTIONS.replace("bye", "bye,")
    (note,) = read(with_all).notices
    assert note.topic == "captions"
    assert note.text == (
        "2 clips have a signer that no other has, such as 'world' of a.mp4 ('hello'): if that is the rest of a "
        "caption, put captions with the separator in them in double quotes"
    )
    one = read(with_all.replace("thanks, friend", "thanks,").replace("signer", "language"))
    assert one.notices[0].text.startswith("1 clip has a language that no other has, such as 'world' of a.mp4")
    ordinary = "a.mp4,1,amy\nb.webm,2,bob\nc.pose,3,amy\nframes/one,4,bob\n"
    assert read("path,text,signer\n" + ordinary).notices == ()
    assert read("path,text,signer\na.mp4,1,amy\nb.webm,2,bob\nc.pose,3,eve\n").notices == ()  # too few to tell
    lines = [json.dumps({"path": "a.mp4", "text": str(number), "signer": number}) for number in range(4)]
    assert read("\n".join(lines), "manifest.jsonl").notices == ()  # which has no separators


def test_lines_with_more_fields_than_columns_are_named_and_skipped(read):
    manifest = read("path,text,signer\na.mp4,hello, world,amy\nb.webm,bye,bob\n")
    assert [(row.caption, row.signer) for row in manifest.rows] == [("bye", "bob")]
    assert reasons(manifest) == {
        "manifest.csv line 2": "has 4 fields in place of 3; a text with the separator in it must stand in double quotes"
    }
    manifest = read("path,text,,\na.mp4,hello, world\nb.webm,bye,,\n")  # Excel adds columns without a name
    assert [row.caption for row in manifest.rows] == ["bye"]
    assert reasons(manifest)["manifest.csv line 2"].startswith("has 3 fields in place of 2; a text with the separator")


def test_absolute_paths_and_those_of_windows_are_taken(read, tmp_path):
    manifest = read(f"path,text\n{tmp_path}/a.mp4,hello\nframes\\one,bye\n/etc/passwd,hi\n../a.mp4,no\n")
    assert [row.media.path for row in manifest.rows] == ["a.mp4", "frames/one"]
    assert reasons(manifest) == {
        "manifest.csv line 4": "leads out of the data set's folder, to /etc (DATA_ALLOW)",
        "manifest.csv line 5": f"names path='../a.mp4', which does not exist, but 'a.mp4' does: {AWAY} '../' away",
    }


AWAY = "paths start at the list's folder, so take"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a.mp4", "has 1 field in place of 5"),
        (
            "a.mp4,hello, world,,,",
            "has 6 fields in place of 5; a text with the separator in it must stand in double quo",
        ),
        (",hello,,,", "has no path: fill in the field 'path'"),
        ("a.mp4, ,,,", "has no text: fill in the field 'text'"),
        pytest.param("a.mp4,\x00\x07,,,", "has an empty caption", id="control characters"),
        ("a.mp4," + "x" * 20_000 + ",,,", "has a caption of more than 16384 characters"),
        ("a.mp4," + "x" * 200_000 + ",,,", "cannot be read (field larger than field limit"),
        ("none.mp4,hello,,,", "names path='none.mp4', which does not exist below "),
        ("notes.txt,hello,,,", "names path='notes.txt': a clip is one of .gif, .mp4"),
        (
            "a.mp4,hello,eval,,",
            "has split='eval': write one of train, training, val, valid, validate, validation, dev",
        ),
        ("a.mp4,hello,,one,", "has start='one': write seconds as a number"),
        ("a.mp4,hello,,nan,", "has start='nan': write seconds as a number"),
        ("a.mp4,hello,,,inf", "has end='inf': write seconds as a number"),
        ("a.mp4,hello,,,1e999", "has end='1e999': write seconds as a number"),
        ("a.mp4,hello,,1_0,", "has start='1_0': write seconds as a number"),
        ('a.mp4,hello,,"1,234",', "has start='1,234': write seconds as a number"),
        ("a.mp4,hello,,-1,", "has start='-1': it must not be negative"),
        ("a.mp4,hello,,3,3", "has end=3 and start=3: the end must come after the start"),
        ("a.mp4,hello,,,0", "has end=0 and start=0: the end must come after the start"),
        ('a.mp4,"hello,,,', "cannot be read (unexpected end of data): a text in double quotes ends with one"),
        ('a.mp4,"hello" you,,,', "cannot be read (',' expected after '\"'): a text in double quotes"),
    ],
)
def test_a_line_that_makes_no_sense_is_skipped_alone(read, tmp_path, line, reason):
    (tmp_path / "notes.txt").touch()
    manifest = read(f"path,text,split,start,end\na.mp4,first,,,\n{line}\nb.webm,last,DEV,,\n")
    assert [(row.caption, row.split) for row in manifest.rows] == [("first", None), ("last", "validation")]
    (skipped,) = manifest.skipped
    assert skipped.id == "manifest.csv line 3"
    assert skipped.reason.startswith(reason)
    assert not skipped.is_absent


def test_a_quote_that_never_ends_takes_no_other_line_with_it(read):
    lines = ['a.mp4,"hello', *(f"a.mp4,word {number}" for number in range(300)), 'b.webm,"good bye"', "c.pose,ok"]
    manifest = read("path,text\n" + "\n".join(lines))
    assert len(manifest.rows) == 302
    assert [row.id for row in manifest.skipped] == ["manifest.csv line 2"]


def test_captions_may_go_over_several_lines(read):
    manifest = read('path,text\r\na.mp4,"hello\r\n\r\n""world"""\r\nb.webm\r\n')
    assert [row.caption for row in manifest.rows] == ['hello "world"']
    assert list(reasons(manifest)) == ["manifest.csv line 5"]


def test_empty_lines_and_trailing_separators_do_not_matter(read):
    manifest = read("\n\npath,text,,\n\na.mp4,hello,,\n,,,\n  \nb.webm,bye\n")
    assert [row.caption for row in manifest.rows] == ["hello", "bye"]
    assert not manifest.skipped


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON (Expecting property name"),
        ("[1]", "is not a JSON object such as"),
        ("null", "is not a JSON object such as"),
        ("[" * 100_000, "is not JSON (nested too deeply)"),
        ('{"path": ' + "1" * 5000 + "}", "is not JSON (Exceeds the limit"),
        ('{"path": 3, "text": "hello"}', "has path=3: it must be a text"),
        ('{"text": "hello"}', "has no path: fill in the field 'path'"),
        ('{"path": "a.mp4", "text": ["hello"]}', "has text=a list: it must be a text"),
        ('{"path": "a.mp4", "text": null}', "has no text: fill in the field 'text'"),
        ('{"path": "a.mp4", "text": true}', "has text=true: it must be a text"),
        ('{"path": "a.mp4", "text": "\\ud800"}', "has an empty caption"),
        ('{"path": "\\ud800.mp4", "text": "x"}', "names path='\\ud800.mp4', which does not exist"),
        pytest.param(
            '{"path": "a\\u0000.mp4", "text": "x"}', "names path='a\\x00.mp4', which does not exist", id="null"
        ),
        ('{"path": "a.mp4", "text": "x", "start": NaN}', "has start=nan: write seconds as a number"),
        ('{"path": "a.mp4", "text": "x", "end": Infinity}', "has end=inf: write seconds as a number"),
        ('{"path": "a.mp4", "text": "x", "end": ' + "9" * 400 + "}", "has end=999"),
        ('{"path": "a.mp4", "text": "x", "start": true}', "has start=true: write seconds as a number"),
        ('{"path": "a.mp4", "text": "x", "start": {}}', "has start=an object: write seconds as a number"),
        ('{"path": "a.mp4", "text": "x", "signer": [1]}', "has signer=a list: it must be a text"),
        ('{"path": "a.mp4", "text": "x", "split": 1}', "has split='1': write one of"),
    ],
)
def test_a_json_line_that_makes_no_sense_is_skipped_alone(read, line, reason):
    other = '{"path": "b.webm", "text": "bye", "start": "1.5", "end": 2, "signer": 7, "split": null}'
    manifest = read(f"{line}\n\n{other}\n", "manifest.jsonl")
    (row,) = manifest.rows
    assert (row.media.span, row.signer, row.split) == (TimeSpan(1.5, 2.0), "7", None)
    (skipped,) = manifest.skipped
    assert skipped.id == "manifest.jsonl line 1"
    assert skipped.reason.startswith(reason)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: its first line names the columns, such as path, text"),
        ("\ufeff", "is empty"),
        ("path,text\n", "lists no clip"),
        (
            "path;notes\na.mp4;x\n",
            "has no column text. Its first line names path, notes; needed are path, text, or names such as file_name, "
            "caption (docs/data.md).",
        ),
        ("A.MP4;hello, world; or not\n", "is missing: put the line 'path;text' above it."),
        ("A.MP4;hello, world\n", "is missing: put the line 'path;text' above it."),
        pytest.param(b"PK\x03\x04\x14\x00", 'is a spreadsheet: save it as "CSV UTF-8".', id="xlsx"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1", 'is a spreadsheet: save it as "CSV UTF-8".', id="xls"),
        *(
            pytest.param("path,text\na.mp4,x".encode(encoding), "looks like UTF-16 without its mark", id=encoding)
            for encoding in ("utf-16-le", "utf-16-be")
        ),
        (
            "A.MP4;hello\n",
            "has no column path and no column text. Its first line names A.MP4, hello; it looks like a clip, so the "
            "header is missing: put the line 'path;text' above it.",
        ),
        ("path,text,Text\n", "has two columns with the name text"),
        pytest.param(
            b"path,text\na.mp4,\xe4hm\n",
            'is not UTF-8: save it again with that encoding (in Excel: "CSV UTF-8"; in a shell, if it comes from a '
            "Windows program: iconv -f WINDOWS-1252 -t UTF-8 {folder}/manifest.csv > {folder}/manifest_utf8.csv).",
            id="Latin-1",
        ),
        pytest.param("path,text\na.mp4,x\n".encode("utf-16")[:-1], "is not UTF-8", id="UTF-16 cut off"),
        pytest.param(b"x" * 1_100_000, "line 1 has more than 1048576 characters", id="long line"),
    ],
)
def test_a_file_that_is_no_list_is_refused(read, tmp_path, content, message):
    with pytest.raises(UserError) as caught:
        read(content)
    assert message.replace("{folder}", str(tmp_path)) in str(caught.value)
    assert str(tmp_path / "manifest.csv") in str(caught.value)


def test_two_lists_in_one_folder_are_refused(read, tmp_path):
    read("path,text\na.mp4,x\n")
    read("path\ttext\na.mp4\tx\n", "manifest.tsv")
    with pytest.raises(UserError, match=r"holds manifest\.csv and manifest\.tsv: give the one that counts"):
        FORMAT.read(tmp_path)


def test_two_lists_in_the_folder_of_a_split_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\na.mp4,x\n")
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "a.mp4", "text": "x"}\n')
    with pytest.raises(UserError, match=r"holds train/metadata.csv and train/metadata.jsonl: take one away\.$"):
        FORMAT.read(tmp_path)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "manifest.csv")
    assert FORMAT.recognise(tmp_path) is None
    with pytest.raises(UserError, match="is not a file"):
        open_table(tmp_path / "manifest.csv", ("path", "text"))


@pytest.mark.parametrize("field", ["signer", "split", "language"])
def test_a_name_of_unlimited_length_is_refused(read, field):
    rows = [{"path": "a.mp4", "text": str(number), field: value} for number, value in enumerate(["train", "x" * 201])]
    manifest = read("\n".join(json.dumps(row) for row in rows), "manifest.jsonl")
    assert [row.caption for row in manifest.rows] == ["0"]
    assert reasons(manifest) == {"manifest.jsonl line 2": f"has a {field} of more than 200 characters"}


def test_names_that_look_the_same_are_the_same(read):
    lines = ["a.mp4,1,J\u00fcrgen  K", "b.webm,2,Ju\u0308rgen\u00a0K", "c.pose,3, J\u00fcrgen K "]
    assert {row.signer for row in read("\n".join(["path,text,signer", *lines])).rows} == {"J\u00fcrgen K"}


def test_a_name_may_have_two_hundred_characters(read):
    (row,) = read(f"path,text,signer\na.mp4,hello,{'x' * 200}\n").rows
    assert row.signer == "x" * 200


def test_a_folder_without_a_list_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds none of manifest\.csv, .*, metadata\.csv, .*, videos\.txt\.$"):
        FORMAT.read(tmp_path)


def test_the_path_of_a_list_is_shown_on_one_line(tmp_path):
    folder = tmp_path / "x\x1b[31m\n"
    folder.mkdir()
    for content in (b"", b"path,text\n", b"x", b"path,text,text\n", b"\xff", b"x" * 1_100_000):
        (folder / "manifest.csv").write_bytes(content)
        with pytest.raises(UserError) as caught:
            FORMAT.read(folder)
        assert str(caught.value).isprintable()


def test_unknown_fields_are_noted(read):
    (notice,) = read("path,text,notes,\x1bgloss\na.mp4,x,1,2\n").notices
    assert notice.text == (
        "manifest.csv has fields that mean nothing here: notes, \\x1bgloss; known are path, text, signer, split, "
        "start, end, language"
    )
    many = {"path": "a.mp4", "text": "x", **{f"field{number}": 1 for number in range(20)}}
    (notice,) = read(json.dumps(many), "manifest.jsonl").notices
    assert "field9 and others; known" in notice.text
    assert "field10" not in notice.text


@pytest.mark.slow
def test_thousands_of_parts_of_one_file_are_read(read):
    content = io.StringIO(newline="")
    writer = csv.writer(content)
    writer.writerow(["path", "text", "start", "end"])
    writer.writerows(["a.mp4", f"word {number}", number, number + 1] for number in range(30_000))
    manifest = read(content.getvalue())
    assert len(manifest.rows) == 30_000
