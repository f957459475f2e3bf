"""Five trained runs that differ in one thing each get different, right verdicts from evaluation and run doctor."""

from pathlib import Path

import pytest

from benchmarks.verdicts import KINDS, is_right, train_and_judge


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, because the judges are the same for all kinds."""
    return tmp_path_factory.mktemp("verdicts")


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_each_run_gets_its_own_verdict(name: str, folder: Path) -> None:
    judgement = train_and_judge(name, folder)
    assert is_right(name, judgement), (judgement.rules, judgement.report)
