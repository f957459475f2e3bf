"""Pack what benchmarks.gpu needs on a bare machine without a registry: python -m benchmarks.gpu_bundle FOLDER

The machine has PyTorch for its GPU, torchvision, tensorboard, safetensors, psutil, pillow, filelock and pip. The folder
holds the rest: wheels for its Python, the letters of one sign language, this repository at its last commit and the
recognisers of the cache; and run.sh, which installs nothing outside of the folder and starts the checks.
"""

import importlib.metadata
import importlib.resources
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluated_rows import ROOT
from benchmarks.runner import plain_parser, say
from common.console import program
from common.errors import UserError
from data.fingerspelling.lexicon import language_entries

LIMIT_BYTES = 60 * 2**20
# With pip's own resolver, wheels of PyTorch would come along.
WHEELS = (
    *("pydantic", "pydantic-core", "pydantic-settings", "python-dotenv", "typing-inspection", "annotated-types"),
    *("av", "jiwer", "rapidfuzz", "click", "pose-format", "webdataset", "braceexpand"),
)
LEFT_OUT = (":!tests", ":!docs/images", ":!benchmarks/images")  # of the repository
RUN = """#!/bin/sh
# For Python {python}. Usage: sh run.sh --output gpu.json [options of benchmarks.gpu]
set -e
here=$(cd "$(dirname "$0")" && pwd)
[ -d "$here/site" ] || python3 -m pip install --quiet --no-index --no-deps --target "$here/site" "$here"/wheels/*.whl
export PYTHONPATH="$here/{repository}:$here/site:$here/lexicon"
exec python3 -m benchmarks.gpu --cache-dir "$here/cache" "$@"
"""


@program
def main(arguments: Sequence[str]) -> None:
    """Pack, and say how large it is."""
    parser = plain_parser("gpu_bundle", __doc__)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--python", default="3.12", help="version of the machine's Python (default 3.12)")
    parser.add_argument("--platform", default="x86_64", choices=("x86_64", "aarch64"), help="default x86_64")
    parser.add_argument("--language", default="ase", help="code of the sign language (default ase)")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"), help="its recognisers are packed")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    if folder.exists():
        raise UserError(f"{folder} is there already; name a new folder")
    (folder / "wheels").mkdir(parents=True)
    _download_wheels(folder / "wheels", options.python, options.platform)
    _copy_letters(folder / "lexicon" / "spoken_to_signed", options.language)
    repository = _copy_repository(folder)
    recognisers = options.cache_dir / "recognisers"
    if recognisers.is_dir():
        shutil.copytree(recognisers, folder / "cache" / "recognisers")
    (folder / "run.sh").write_text(RUN.format(repository=repository.name, python=options.python), encoding="utf-8")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > LIMIT_BYTES:
        raise UserError(f"{folder} has {size / 2**20:.1f} MiB, more than the {LIMIT_BYTES // 2**20} that may travel")
    print(f"{folder}: {size / 2**20:.1f} MiB. There: sh {folder.name}/run.sh --output gpu.json")


def _download_wheels(folder: Path, python: str, processor: str) -> None:
    """Download the versions that are installed here, which the tests have run with."""
    platforms = [f"--platform=manylinux_2_{minor}_{processor}" for minor in (28, 27, 17)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", f"--dest={folder}"),
        *(f"--python-version={python}", "--implementation=cp", *platforms, f"--platform=manylinux2014_{processor}"),
        *(f"{name}=={importlib.metadata.version(name)}" for name in WHEELS),
    ]
    say(f"downloading {len(WHEELS)} wheels")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"pip cannot download the wheels: {done.stderr.strip()}")


def _copy_letters(package: Path, language: str) -> None:
    """Copy what is read of the package `spoken-to-signed`: its index, and the recordings of one language."""
    source = importlib.resources.files("spoken_to_signed")
    lexicon = "assets/fingerspelling_lexicon"
    recordings = [f"{lexicon}/{entry.path}" for entry in language_entries(language)]
    for name in ("__init__.py", "assets/__init__.py", f"{lexicon}/index.csv", *recordings):
        target = package / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.joinpath(*name.split("/")).read_bytes())


def _copy_repository(folder: Path) -> Path:
    """Unpack the last commit, without tests and pictures, in a folder that is named after it: figures tell its path."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout

    try:
        archive = git("archive", "HEAD", "--", ".", *LEFT_OUT)
        commit = git("rev-parse", "--short=12", "HEAD").decode().strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"git cannot read this repository: {error}") from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder / f"text2sign-{commit}", filter="data")
    return folder / f"text2sign-{commit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
