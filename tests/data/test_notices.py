"""What is said before a training: nothing that changes the data is silent, and it takes eight lines at most."""

import ast
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import av
import numpy
from PIL import Image

from common.video_encoding import video_frame
from config import Config
from data.build import build_data
from data.records import DataSummary
from data.rows import Notice, Topic
from tests.data.formats.replicas import how2sign_replica, msasl_replica, pictures, wlasl_replica, write_clip
from tests.sources import ROOT

Expected = tuple[str, str]  # the topic, and what is said
Case = Callable[[Path], tuple[dict[str, object], list[Expected]]]
CASES: list[Case] = []
UNKNOWN_WORDS = ("split", "half or more of the words in ")


def case(function: Case) -> Case:
    CASES.append(function)
    return function


def write(folder: Path, name: str, caption: str | None, number: int = 0, **options: Any) -> None:
    """Write a clip of pictures that no other number has, and its caption."""
    images = [Image.fromarray(image) for image in pictures(number)]
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    images[0].save(folder / name, save_all=True, append_images=images[1:], duration=40, **options)
    if caption is not None:
        (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")


def fill(folder: Path, count: int = 8) -> None:
    """Write clips of which nothing need be said: each held-out word is in a training caption too."""
    for number in range(count):
        write(folder, f"{number}.gif", f"I see {number % 4} of them", number)


def as_list(folder: Path, header: str, *lines: str, name: str = "list.csv", count: int = 8) -> dict[str, object]:
    """Write clips without captions and a list of them; each line is completed with the clip's number."""
    for number in range(count):
        write(folder, f"clip{number}.gif", None, number)
    rows = [line.format(number=number, word=number % 4) for number in range(count) for line in lines]
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return {"DATA_ROOT": folder / name}


@case
def a_good_folder(folder):
    fill(folder)
    return {}, []


@case
def a_good_folder_with_signers(folder):
    for number in range(8):
        write(folder, f"{'amy' if number < 4 else 'bob'}_{number}.gif", f"I see {number % 4} of them", number)
    return {"SIGNER_FROM_FILE_NAME": True}, []


@case
def a_good_list(folder):
    return as_list(folder, "path,text", "clip{number}.gif,I see {word} of them"), []


@case
def a_folder_that_is_allowed_and_not_there(folder):
    fill(folder)
    allowed = (folder, folder / "gone")
    return {"DATA_ALLOW": allowed}, [("files", f"DATA_ALLOW names {folder}/gone, which is no folder here: correct it")]


@case
def files_that_are_no_clips(folder):
    fill(folder)
    (folder / "lonely.txt").write_text("x")
    (folder / "old.wmv").write_bytes(b"x")
    (folder / "list.csv").write_text("path,text\n")
    (folder / "captions.xlsx").write_bytes(b"PK")
    write(folder, "silent.gif", None, 9)
    (folder / "silent.srt").write_text("1")
    (folder / "SILENT.TXT").write_text("x")
    return {}, [
        ("files", "1 .srt file is not read as captions: write .txt files"),
        ("files", "captions.xlsx is not read: save it as CSV UTF-8, as manifest.csv"),
        (
            "files",
            "2 .txt files have no clip beside them (1 would have one if capitals were alike), such as SILENT.TXT",
        ),
        ("files", "1 video is of a kind that is not read, such as old.wmv: encode anew"),
        ("files", "list.csv may be the list of clips: give it as DATA_ROOT"),
        ("clips", "1 cannot be used: silent.gif has no caption: silent.txt is missing"),
    ]


@case
def a_table_that_is_no_list(folder):
    fill(folder)
    (folder / "metadata.csv").write_text("Datei;Satz\n")
    write(folder, "silent.gif", None, 9)
    return {}, [
        ("files", "metadata.csv may be the list of clips, but has no column path and no column text. Its first line"),
        ("clips", "1 cannot be used: silent.gif has no caption: silent.txt is missing"),
    ]


@case
def folders_that_may_be_captions(folder):
    fill(folder)
    write(folder, "hello/a.gif", None, 9)
    return {}, [
        ("files", "if the names of folders are the captions, such as 'hello' of hello/a.gif, set DATA_FORMAT to"),
        ("clips", "1 cannot be used: hello/a.gif has no caption"),
    ]


@case
def folders_that_are_captions(folder):
    for number in range(8):
        write(folder, f"word_{number % 2}/{number}.gif", None, number)
    return {}, [
        (
            "captions",
            "the name of its folder is the caption of each clip, such as 'word 0' of word_0/0.gif (2 captions",
        ),
        UNKNOWN_WORDS,
    ]


@case
def folders_that_are_captions_beside_a_file_that_is_not_read(folder):
    _, expected = folders_that_are_captions(folder)
    (folder / "annotations.json").write_text('{"version": {}, "clips": {}}')
    return {}, [("captions", "(2 captions, 8 clips; annotations.json not read); if folders are"), *expected]


@case
def folders_that_are_the_split(folder):
    for number, split in enumerate(["train"] * 5 + ["val"] * 2 + ["test"]):
        write(folder, f"{split}/{number}.gif", f"I see {number % 3} of them", number)
    shutil.copy(folder / "train/0.gif", folder / "val/copy.gif")
    (folder / "val/copy.txt").write_text("I see 0 of them")
    return {}, [
        ("split", "5 clips for training, such as train/0.gif; 3 clips for validation, such as val/5.gif; 1 clip for"),
        (
            "split",
            "1 validation or test clip shows the same as a training clip and is left out: val/copy.gif (as train/0.gif",
        ),
    ]


@case
def a_part_of_a_split(folder):
    fill(folder / "test")
    (folder / "train").mkdir()
    return {"DATA_ROOT": folder / "test"}, [("split", "the folder itself is named test: give the one that holds it")]


@case
def links_that_lead_out(folder):
    fill(folder)
    write(folder.parent / "elsewhere", "a.gif", None, 9)
    (folder / "a.gif").symlink_to(folder.parent / "elsewhere/a.gif")
    (folder / "a.txt").write_text("I see 1 of them")
    return {}, [
        (
            "files",
            f"such as a.gif: to read there, add --data-allow {folder.parent}",
        ),
        ("clips", "1 cannot be used: a.gif leads out of the data set's folder"),
    ]


@case
def a_list_with_other_names(folder):
    options = as_list(folder, "file_name,sentence,colour,start_time", "CLIP{number}.gif,I see {word} of them,red,0")
    return options, [
        (
            "files",
            "in list.csv file_name was taken for path, sentence was taken for text, start_time was taken for start",
        ),
        ("files", "clips are cut by start_time: rename this column if the clips are cut already"),
        ("files", "list.csv has fields that mean nothing here: colour; known are"),
        ("files", "8 files, such as clip0.gif, were taken although the list writes other capitals"),
    ]


@case
def a_list_of_clips_in_folders_that_are_the_split(folder):
    lines = []
    for number, split in enumerate(["train"] * 5 + ["val"] * 2 + ["test"]):
        write(folder, f"{split}/{number}.gif", None, number)
        lines.append(f"{split}/{number}.gif,I see {number % 3} of them")
    (folder / "list.csv").write_text("\n".join(["path,text", *lines]))
    return {"DATA_ROOT": folder / "list.csv"}, [
        ("split", "the names of folders (test, train, val) give the split: 5 clips")
    ]


@case
def a_list_that_repeats_itself(folder):
    line = "clip{number}.gif,I see {word} of them"
    return as_list(folder, "path,text", line, line), [
        ("files", "8 lines, such as list.csv line 3, repeat earlier ones")
    ]


@case
def a_list_with_cells_that_failed(folder):
    options = as_list(folder, "path,text", "clip{number}.gif,I see {word} of them")
    options["DATA_ROOT"].write_text(options["DATA_ROOT"].read_text() + "clip0.gif,#REF!\nclip1.gif,#REF!\n")
    return options, [("captions", "2 captions look like empty or failed cells, such as '#REF!' of clip0.gif (2)")]


@case
def a_list_with_paths_of_another_computer(folder):
    options = as_list(folder, "path,text", "clip{number}.gif,I see {word} of them")
    options["DATA_ROOT"].write_text(options["DATA_ROOT"].read_text() + "".join(f"C:\\x\\clip{n}.gif,x\n" for n in "12"))
    return options, [
        ("files", "2 paths begin with C:\\x\\, which is not here: take it away"),
        ("clips", "2 cannot be used: list.csv line 10 names path='C:\\x\\clip1.gif', which does not exist, but 'clip1"),
    ]


@case
def a_list_with_captions_cut_at_a_comma(folder):
    options = as_list(folder, "path,text,signer", "clip{number}.gif,I see {word} of them, and {number} more")
    return options, [("captions", "8 clips have a signer that no other has, such as")]


@case
def a_list_with_an_option_for_folders(folder):
    options = as_list(folder, "path,text", "clip{number}.gif,I see {word} of them")
    return {**options, "SIGNER_FROM_FILE_NAME": True}, [("split", "SIGNER_FROM_FILE_NAME changes nothing: it is for")]


@case
def a_list_in_which_one_clip_names_no_signer(folder):
    options = as_list(folder, "path,text,signer", "clip{number}.gif,I see {word} of them,")
    lines = options["DATA_ROOT"].read_text().splitlines()
    named = [f"{line}{'ab'[number % 2]}" for number, line in enumerate(lines[1:-1])]
    options["DATA_ROOT"].write_text("\n".join([lines[0], *named, lines[-1]]))
    return options, [("split", "clip7.gif names no signer, so captions are held out and not signers: name all of them")]


@case
def a_list_whose_signers_share_a_file(folder):
    options = as_list(folder, "path,text,signer", "clip{number}.gif,I see {word} of them,a")
    shutil.copy(folder / "clip6.gif", folder / "clip7.gif")
    text = options["DATA_ROOT"].read_text()
    options["DATA_ROOT"].write_text(text.replace("clip7.gif,I see 3 of them,a", "clip7.gif,I see 3 of them,b"))
    return options, [
        (
            "clips",
            "2 show the same as another with another caption, such as clip6.gif ('I see 2 of them') and clip7.gif",
        ),
        ("split", "clips that show the same join all signers, such as clip6.gif of a and clip7.gif of b"),
    ]


@case
def a_list_that_spells_signers_in_several_ways(folder):
    options = as_list(folder, "path,text,signer", "clip{number}.gif,I see {word} of them,amy")
    options["DATA_ROOT"].write_text(options["DATA_ROOT"].read_text().replace("1 of them,amy", "1 of them,Amy"))
    return options, [("split", "Amy and amy count as one signer: write a name in one way")]


@case
def captions_that_are_not_read(folder):
    for number, caption in enumerate(
        ["你好", "再见 ok", "你 ok", "I am so happy to be here", "I am so happy to go", "ok"]
    ):
        write(folder, f"{number}.gif", caption, number)
    return {"MAX_CAPTION_LENGTH": 16}, [
        ("captions", "left out, because TEXT_ENCODER=characters does not know them: '你' (2), '再' (1)"),
        ("captions", "nothing is left of 1 of 6, which then look all the same, such as '你好'"),
        ("captions", "2 of 6 are longer than 16 characters and are cut off; MAX_CAPTION_LENGTH=24 would read all"),
        ("captions", "4 differ from another one only in what is not read"),
    ]


@case
def captions_of_other_signs(folder):
    for number, word in enumerate(("hello", "bye", "thanks", "book")):
        write(folder, f"{number}.gif", word, number)
    return {}, [
        (UNKNOWN_WORDS[0], "half or more of the words in 1 of 1 held-out captions occur in no training caption")
    ]


@case
def pictures_that_are_shown_as_players_do(folder):
    fill(folder)
    for name, transfer, rotation in (
        ("side.mp4", None, 90),
        ("bright.mp4", av.video.reformatter.ColorTrc.ARIB_STD_B67, 0),
    ):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
            stream.set_display_rotation(rotation)
            for image in pictures(10 + len(name)):
                frame = video_frame(image, "yuv420p")
                for tagged in (frame, stream.codec_context) if transfer is not None else ():
                    tagged.color_trc = transfer
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        (folder / name).with_suffix(".txt").write_text("I see 1 of them")
    return {}, [
        ("pictures", "1 of 10 turned upright, as the file says, such as side.mp4"),
        ("pictures", "1 of 10 with high dynamic range (HLG or PQ), tone-mapped to an ordinary one, such as bright.mp4"),
    ]


@case
def frames_that_a_camera_mirrored(folder):
    options = as_list(folder, "path,text", "clip{number},I see {word} of them")
    for number in range(8):
        (folder / f"clip{number}").mkdir()
        for frame, image in enumerate(pictures(number)):
            exif = Image.Exif()
            exif[274] = 2 if number == 3 else 1
            picture = Image.fromarray(image).convert("RGBA" if number == 4 else "RGB")
            picture.save(folder / f"clip{number}" / f"{frame}.{'png' if number == 4 else 'jpg'}", exif=exif)
    return options, [
        (
            "pictures",
            "1 of 8 mirrored, as the file says and players do: the other hand signs (if wrong, encode anew), such",
        ),
        ("pictures", "1 of 8 transparent, shown on white, such as clip4"),
    ]


@case
def clips_that_show_the_same_with_another_caption(folder):
    fill(folder)
    write(folder, "again.gif", "I see 1 of those", 1)
    named = "1.gif ('I see 1 of them') and again.gif ('I see 1 of those')"
    return {}, [("clips", f"2 show the same as another with another caption, such as {named}: correct one")]


@case
def pictures_that_are_long_or_wide(folder):
    fill(folder)
    images = [Image.fromarray(image) for image in numpy.concatenate([pictures(9, 32, 64)] * 2)]
    images[0].save(folder / "9.gif", save_all=True, append_images=images[1:], duration=100)
    (folder / "9.txt").write_text("I see 1 of them")
    return {"FRAMES_PER_SECOND": 10.0, "MAX_FRAMES": 8}, [
        (
            "pictures",
            "1 of 9 (11.1%) too long for MAX_FRAMES=8 and shown faster, so that their speed is lost: 1.5 times as fast "
            "is 9.gif; MAX_FRAMES=12 would do",
        ),
        ("pictures", "1 of 9 made square by CLIP_FIT='crop': 50% cut off in 9.gif; 'pad' would not"),
    ]


@case
def clips_that_do_not_move(folder):
    fill(folder)
    shades = [Image.new("RGB", (24, 24), (shade, shade, shade)) for shade in (40, 80, 120, 160)]
    shades[0].save(folder / "still.gif", save_all=True, append_images=shades[1:], duration=100)
    (folder / "still.txt").write_text("I see 1 of them")
    said = "1 of 9 show no movement, so that CLIP_FIT='signer' cuts their centre out as 'crop' does, such as still.gif"
    return {"CLIP_FIT": "signer"}, [("pictures", said)]


@case
def clips_that_do_not_fit_into_the_cache(folder):
    fill(folder)
    return {"CACHE_LIMIT_GB": 1.5e-5}, [
        ("cache", "the decoded clips take 0.0 GB, more than CACHE_LIMIT_GB (1.5e-05): what")
    ]


@case
def a_published_set_without_some_files(folder):
    how2sign_replica(folder)
    return {}, [("clips", "1 that is listed has no file, such as"), UNKNOWN_WORDS]


@case
def a_published_set_with_two_lists(folder):
    wlasl_replica(folder)
    shutil.copy(folder / "WLASL_v0.3.json", folder / "WLASL_v0.2.json")
    return {}, [("files", "WLASL_v0.2.json is left out: WLASL_v0.3.json is the list that counts"), ("clips", "no file")]


@case
def a_published_set_of_complete_videos(folder):
    msasl_replica(folder)
    return {}, [("clips", "parts of complete videos, by the times in the list: "), ("clips", "no file")]


@case
def recordings_with_the_times_of_the_speech(folder):
    header = "VIDEO_ID\tVIDEO_NAME\tSENTENCE_ID\tSENTENCE_NAME\tSTART\tEND\tSENTENCE"
    for split, numbers in (("train", range(6)), ("val", (6,))):
        lines = [f"v{n}\tv{n}-5-rgb_front\ts{n}\tv{n}_0-5-rgb_front\t0.0\t0.2\tI see {n % 3} of them" for n in numbers]
        (folder / f"how2sign_{split}.csv").write_text("\n".join([header, *lines]))
        for number in numbers:
            write_clip(folder / f"v{number}-5-rgb_front.mp4", number)
    (folder / "copies").mkdir()
    shutil.copy(folder / "how2sign_val.csv", folder / "copies/how2sign_val.csv")
    return {}, [
        ("files", "copies/how2sign_val.csv is left out: how2sign_val.csv is the list that counts"),
        (
            "files",
            "how2sign_train.csv has the times of the speech, which are not those of the signing: put how2sign_re",
        ),
        ("files", "how2sign_val.csv has the times of the speech, which are not those of the signing: put how2sign_rea"),
        ("clips", "parts of complete videos, by the times in the list: 7 of 7 clips, such as"),
    ]


def branches_that_say_something() -> set[tuple[str, int]]:
    """Return where the functions in data/ that make notices make them, and the first line under each of their ifs."""
    found = set()
    for path in sorted((ROOT / "data").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef):
                continue
            nodes = list(ast.walk(function))
            made = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "Notice"]
            if not made and not function.name.endswith("_notices"):
                continue
            firsts = [node.body[0] for node in nodes if isinstance(node, ast.If)]
            says = [each for each in firsts if not isinstance(each, ast.Raise) and ast.unparse(each) != "return ()"]
            found |= {(str(path), node.lineno) for node in (*made, *says)}
    return found


@contextmanager
def lines_that_run(wanted: set[tuple[str, int]], seen: set[tuple[str, int]]) -> Iterator[None]:
    files = {file for file, _ in wanted}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_all_that_changes_the_data_is_said_in_eight_lines_and_nothing_else_is(tmp_path):
    branches, seen, everything = branches_that_say_something(), set(), []
    assert len(branches) > 30
    for number, prepare in enumerate(CASES):
        folder = tmp_path / str(number) / "clips"
        folder.mkdir(parents=True)
        changes, expected = prepare(folder)
        constants = {"DATA_ROOT": folder, "CACHE_DIR": folder.parent / "cache", "MAX_FRAMES": 4, "IMAGE_SIZE": (16, 16)}
        with lines_that_run(branches, seen):
            summary = build_data(Config.model_construct(**{**constants, **changes})).summary
        said = [(notice.topic, notice.text) for notice in summary.notices]
        for topic, text in expected:
            assert any(topic == of and text in each for of, each in said), (prepare.__name__, text, said)
        unexpected = [each for of, each in said if not any(topic == of and text in each for topic, text in expected)]
        assert unexpected == [], prepare.__name__
        assert len(summary.lines()) <= 8
        assert all(text in "\n".join(summary.lines()) for _, text in said)
        everything += summary.notices
    assert sorted(branches - seen) == []
    assert {notice.topic for notice in everything} == set(get_args(Topic))


def test_all_topics_together_take_eight_lines():
    notices = tuple(Notice(topic, f"{topic} {number}") for number in range(5) for topic in get_args(Topic))
    lines = DataSummary("described", {}, notices, "more").lines()
    assert lines[0] == "described"
    assert lines[1:-1] == [
        f"{topic}: {'; '.join(f'{topic} {number}' for number in range(5))}" for topic in get_args(Topic)
    ]
    assert lines[-1] == "more"
    assert len(lines) == 8
    assert DataSummary("described", {}, (), "more").lines() == ["described"]
