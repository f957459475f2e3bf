"""No part assumes CUDA, and no device gets float64: programs start without CUDA's packages, and sources do not ask."""

import ast
import subprocess
import sys

import pytest

from tests.sources import ROOMS, ROOT, python_files

SOURCES = python_files(*ROOMS)
CUDA_ONLY = (
    "apex",
    "bitsandbytes",
    "cupy",
    "deepspeed",
    "flash_attn",
    "pynvml",
    "transformer_engine",
    "triton",
    "xformers",
)

PROGRAM = """
import sys
import {module}
import torch
assert not torch.cuda.is_initialized(), "CUDA was initialised"
print(*{{name.split(".")[0] for name in sys.modules}})
"""

ALLOWED = {
    # (file, what): why
    (
        "logging_system/statistics/system.py",
        "import pynvml",
    ): "tried once a CUDA device is used, for its errors; it may be missing",
    ("measures/text_use.py", ".double()"): "after cpu(), for NumPy's bootstrap",
    ("measures/text_video.py", ".double()"): "distances of embeddings on the CPU, for NumPy's bootstrap",
    ("evaluation/report.py", ".double()"): "clips that a sampler has brought to the CPU",
    ("diffusion/schedule.py", "torch.float64"): "drawn on the CPU, from a generator of the CPU",
}


SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("generate", "launch_tensorboard", "evaluation.__main__", "data.__main__")
]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["main", *SLOW])
def test_a_program_starts_without_cuda_and_without_packages_that_need_it(module: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    assert set(finished.stdout.split()) & set(CUDA_ONLY) == set()


def device_words(source: str) -> set[str]:
    """Return what a source says that only holds on some devices."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("cuda", "double") and not node.args:
                found.add(f".{node.func.attr}()")
            if node.func.attr == "to" and any(_is_cuda(argument) for argument in node.args):
                found.add('.to("cuda")')
            if ast.unparse(node.func) == "torch.set_default_device":
                found.add("torch.set_default_device")
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            tops = {name.split(".")[0] for name in [module or "", *(alias.name for alias in node.names)]}
            found |= {f"import {top}" for top in tops & set(CUDA_ONLY)}
        if isinstance(node, ast.keyword) and node.arg == "device" and _is_cuda(node.value):
            found.add('device="cuda"')
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.float64", "torch.double"):
            found.add("torch.float64")
    return found


def _is_cuda(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x.cuda()", {".cuda()"}),
        ("x.cuda", set()),
        ("x.cpu().double().numpy()", {".double()"}),
        ("x.to('cuda:1')", {'.to("cuda")'}),
        ("x.to(device)", set()),
        ("torch.zeros(3, device='cuda')", {'device="cuda"'}),
        ("torch.zeros(3, dtype=torch.float64)", {"torch.float64"}),
        ("x.to(torch.double)", {"torch.float64"}),
        ("numpy.float64(3)", set()),
        ("torch.set_default_device(device)", {"torch.set_default_device"}),
        ("if device.type == 'cuda': pass", set()),
        ("def f():\n    import triton.language as tl", {"import triton"}),
        ("from flash_attn.layers import rotary", {"import flash_attn"}),
    ],
)
def test_the_finder_finds_what_it_should(source: str, expected: set[str]) -> None:
    assert device_words(source) == expected


def test_sources_name_no_device_and_no_float64_but_where_a_reason_is_given() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), words)
        for path in SOURCES
        for words in device_words(path.read_text(encoding="utf-8"))
    }
    assert found == ALLOWED.keys()  # what is no longer there leaves the list too
