"""Properties that hold for any content of the files that list clips."""

import csv
import io
import json
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data.captions import normalise_caption
from data.formats.registry import read_data_set
from data.media.files import printable
from data.rows import WHOLE, Manifest, TimeSpan
from tests.data.formats.replicas import HOW2SIGN_HEADER

PATHS = ("a.mp4", "b c.webm", "sub/d.pose")
SPLITS = {"": None, "train": "training", "Val": "validation", "dev": "validation", "TEST": "test"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
seconds = st.floats(0, 1e6, allow_nan=False).map(lambda value: round(value, 3))
rows = st.lists(
    st.fixed_dictionaries(
        {
            "path": st.sampled_from(PATHS),
            "text": texts,
            "signer": texts,
            "split": st.sampled_from(sorted(SPLITS)),
            "start": st.one_of(st.none(), seconds),
            "end": st.one_of(st.none(), seconds),
        }
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for path in PATHS:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    return folder


def expected(wanted):
    """What a list says, computed without the product: each distinct clip once, in order; and what is skipped."""
    found, count = {}, 0
    for row in wanted:
        start, end, caption = row["start"] or 0.0, row["end"], normalise_caption(row["text"])
        is_invisible = all(unicodedata.category(character) in ("Cf", "Zs") for character in caption)
        if is_invisible or (end is not None and end <= start):
            count += 1
            continue
        span = WHOLE if start == 0 and end is None else TimeSpan(start, end)
        values = (
            caption,
            printable(" ".join(unicodedata.normalize("NFC", row["signer"]).split())) or None,
            SPLITS[row["split"]],
        )
        if found.setdefault((row["path"], span, caption), values) != values:
            count += 1
    return [(path, span, *values) for (path, span, _), values in found.items()], count


def check(file, wanted):
    if not wanted:
        with pytest.raises(UserError, match="lists no clip"):
            read_data_set(file, "auto")
        return
    _, _, manifest = read_data_set(file, "auto")
    found = [(row.media.path, row.media.span, row.caption, row.signer, row.split) for row in manifest.rows]
    assert (found, len(manifest.skipped)) == expected(wanted)
    assert len({row.id for row in manifest.rows}) == len(manifest.rows)
    assert all(row.id.isprintable() for row in (*manifest.rows, *manifest.skipped))


@settings(max_examples=150, deadline=None)
@given(rows, st.sampled_from([",", "\t", ";"]), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_rows_of_a_table_come_back(root, wanted, separator, encoding):
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, ["path", "text", "signer", "split", "start", "end"], delimiter=separator)
    writer.writeheader()
    writer.writerows(wanted)
    (root / "list.csv").write_bytes(content.getvalue().encode(encoding))
    check(root / "list.csv", wanted)


@settings(max_examples=150, deadline=None)
@given(rows, st.booleans(), st.booleans())
def test_rows_of_json_lines_come_back(root, wanted, ascii_only, as_text):
    def line(row):
        times = {key: str(row[key]) for key in ("start", "end") if as_text and row[key] is not None}
        return json.dumps({**row, **times}, ensure_ascii=ascii_only)

    (root / "list.jsonl").write_text("".join(line(row) + "\n" for row in wanted), encoding="utf-8")
    check(root / "list.jsonl", wanted)


TABLES = {
    "manifest.csv": b"path,text,signer,split,start,end",
    "manifest.tsv": b"path\ttext\tend",
    "how2sign_realigned_train.csv": HOW2SIGN_HEADER.encode(),
    "PHOENIX-2014-T.dev.corpus.csv": b"name|video|start|end|speaker|orth|translation",
    "index.csv": b"path,spoken_language,signed_language,start,end,words,glosses,priority",
}
NAMES = (*TABLES, "manifest.jsonl", "WLASL_v0.3.json", "MSASL_val.json")
FIELDS = st.one_of(
    st.sampled_from([b"a.mp4", b"a.pose", b"a", b"hello", b"", b"3", b"0", b"0,5", b"train"]),
    st.sampled_from([b"-1", b"nan", b"1e999", b'"', b'"x"', b'"x', b"\x00", b"\xff", b"../a.mp4", b"/", b"\n", b"\r"]),
    st.text(max_size=4).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
KEYS = st.sampled_from(["path", "text", "start", "end", "split", "gloss", "instances", "video_id", "signer_id"])
VALUES = st.recursive(
    st.one_of(
        st.sampled_from(["a.mp4", "a", "", "hello", "train", 3, -1, 10**400, 1e999, True, None, "../a"]),
        st.floats(),
        st.text(max_size=3),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)
CLIPS = st.fixed_dictionaries({}, optional={"path": VALUES, "text": VALUES, "start": VALUES, "split": VALUES})
INSTANCES = st.fixed_dictionaries({"video_id": st.one_of(st.just("a"), VALUES)}, optional={"split": VALUES})
ENTRIES = st.fixed_dictionaries({"gloss": VALUES, "instances": st.one_of(st.lists(INSTANCES, max_size=3), VALUES)})
PARTS = st.fixed_dictionaries(
    {"url": st.one_of(st.just("youtu.be/video-00000"), VALUES)},
    optional=dict.fromkeys(("text", "clean_text", "start_time", "end_time", "start", "end", "signer_id"), VALUES),
)


def contents(name):
    """Bytes that are nearly what a file of this name holds, so that damage reaches every check; and any bytes."""
    if name == "WLASL_v0.3.json":
        likely = st.lists(st.one_of(ENTRIES, VALUES), max_size=4).map(json.dumps).map(str.encode)
    elif name == "MSASL_val.json":
        likely = st.lists(st.one_of(PARTS, VALUES), max_size=4).map(json.dumps).map(str.encode)
    elif name == "manifest.jsonl":
        likely = st.lists(st.one_of(CLIPS, VALUES).map(json.dumps), max_size=4).map("\n".join).map(str.encode)
    else:
        header = TABLES[name]
        separator = next(mark for mark in (b"|", b"\t", b",") if mark in header)
        width = header.count(separator) + 1
        widths = st.sampled_from([width, width, width, width - 1, width + 1])
        line = widths.flatmap(lambda fields: st.lists(FIELDS, min_size=fields, max_size=fields)).map(separator.join)
        likely = st.lists(line, max_size=5).map(lambda lines: b"\n".join([header, *lines]))
    return st.one_of(likely, likely.flatmap(damaged), st.binary(max_size=100))


def damaged(content):
    """Replace a few of the bytes somewhere."""
    place = st.integers(0, len(content))
    return st.builds(lambda at, new: content[:at] + new + content[at + 1 :], place, st.binary(max_size=2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("examples", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_any_bytes_give_clips_or_a_message(name, examples):
    @settings(max_examples=examples, deadline=None)
    @given(contents(name))
    def check_any(content):
        check_content(name, content)

    check_any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 100_000, b"a.mp4," + b"x" * 140_000, b'{"path": "' + b"a" * 5000 + b'"}'],
    ids=["empty", "nested too deeply", "long caption", "long path"],
)
def test_known_trouble_gives_a_message(name, content):
    check_content(name, content)
    check_content(name, TABLES.get(name, b"") + b"\n" + content)


def check_content(name, content):
    """Read the file beside clips that it may name, in each way in which it may be given."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "videos").mkdir()
        (root / "features" / "fullFrame-210x260px" / "dev" / "a").mkdir(parents=True)
        for path in ("a.mp4", "a.pose", "videos/a.mp4", "videos/video-00000.mp4"):
            (root / path).touch()
        (root / name).write_bytes(content)
        for path, data_format in ((root, "auto"), (root / name, "auto"), (root / name, "manifest")):
            check_outcome(path, data_format)


def check_outcome(path, data_format):
    """Read it, which may end with a message but with no other exception."""
    try:
        _, _, manifest = read_data_set(path, data_format)
    except UserError:
        return
    assert isinstance(manifest, Manifest)
    assert all(row.id.isprintable() and row.caption for row in manifest.rows)
    assert all(row.id.isprintable() and row.reason.isprintable() for row in manifest.skipped)
