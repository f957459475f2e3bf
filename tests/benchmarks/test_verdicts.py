"""Five trained runs that differ in one thing each get different, right verdicts from evaluation and run doctor."""

from pathlib import Path

import pytest

from benchmarks.verdicts import KINDS, is_right, train_and_judge


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_each_run_gets_its_own_verdict(name: str, tmp_path: Path) -> None:
    judgement = train_and_judge(name, tmp_path)
    assert is_right(name, judgement), (judgement.rules, judgement.report)
