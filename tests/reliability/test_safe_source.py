"""No source file of the product calls what can run code that is hidden in data."""

import ast
from collections.abc import Iterator

import pytest

from tests.sources import ROOMS, ROOT, python_files

SOURCES = python_files(*ROOMS, "benchmarks", "docs")
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "runpy", "shelve"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}
CALLS = {
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "pandas.read_pickle"),
    *("numpy.load", "numpy.lib.format.read_array", "os.system", "os.popen"),
}
NEEDS_NO_PICKLE = {"numpy.load", "numpy.lib.format.read_array"}
NEVER_TRUE = {"trust_remote_code", "allow_pickle", "shell"}


def dangers(source: str) -> Iterator[str]:
    """Yield what the source imports or calls that can run code from data, with the line."""
    tree = ast.parse(source)
    names = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno}: {module}" for module in modules if module.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            yield from (f"line {node.lineno}: {problem}" for problem in _dangers_of_call(node, names))


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """Return what each name means that an import brings in, such as np -> numpy."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dangers_of_call(call: ast.Call, names: dict[str, str]) -> Iterator[str]:
    first, *rest = ast.unparse(call.func).split(".")
    function = ".".join([names.get(first, first), *rest])
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if function in BUILT_IN:
        yield function
    if function in CALLS and not (function in NEEDS_NO_PICKLE and options.get("allow_pickle") == "False"):
        yield function
    for name in NEVER_TRUE & options.keys():
        if options[name] != "False":
            yield f"{name}={options[name]}"
    if function.endswith(".from_pretrained") and options.get("trust_remote_code") != "False":
        yield f"{function} without trust_remote_code=False"


def test_nothing_in_the_product_runs_code_from_data() -> None:
    found = {str(path.relative_to(ROOT)): list(dangers(path.read_text("utf-8"))) for path in SOURCES}
    assert {path: problems for path, problems in found.items() if problems} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\ntorch.load(path)", "torch.load"),
        ("import torch\ntorch.load(path, weights_only=True)", "torch.load"),
        ("from torch import load\nload(path)", "torch.load"),
        ("import torch as t\nt.hub.load(a, b)", "torch.hub.load"),
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("def read():\n    import dill", "dill"),
        ("import numpy as np\nnp.load(path)", "numpy.load"),
        ("import numpy\nnumpy.load(path, allow_pickle=True)", "numpy.load"),
        ("import numpy\nnumpy.load(path, allow_pickle=flag)", "numpy.load"),
        ("import numpy\nnumpy.load(path, None, True)", "numpy.load"),
        ("anything(path, allow_pickle=True)", "allow_pickle=True"),
        ("eval(text)", "eval"),
        ("exec(text, {})", "exec"),
        ("import yaml\nyaml.load(text, yaml.Loader)", "yaml.load"),
        ("AutoModel.from_pretrained(name, trust_remote_code=True)", "trust_remote_code=True"),
        ("AutoModel.from_pretrained(name)", "AutoModel.from_pretrained without trust_remote_code=False"),
        ("import subprocess\nsubprocess.run(text, shell=True)", "shell=True"),
    ],
)
def test_the_check_sees_each_of_them(source: str, found: str) -> None:
    assert any(problem.split(": ", 1)[1] == found for problem in dangers(source))


def test_the_check_lets_pass_what_only_sounds_like_it() -> None:
    source = "import numpy\nimport json\nmodel.eval()\njson.load(file)\nnumpy.load(file, allow_pickle=False)"
    assert list(dangers(source)) == []


def test_the_check_looks_at_all_packages() -> None:
    with_code = {path.parent.name for path in ROOT.glob("[!.]*/*.py")}
    assert with_code - {"tests", "build"} == {*ROOMS, "benchmarks", "docs"}
    assert len(SOURCES) > 100
