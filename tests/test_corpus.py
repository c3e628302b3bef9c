"""The auditor on functions that are right, and on functions that are not: no false alarm, no fault missed.

``MANUAL_GRAD_SEEDS=20`` audits each with so many seeds instead of one.
"""

from __future__ import annotations

import os
import warnings

import pytest

from corpus.right import RIGHT
from corpus.wrong import WRONG

SEEDS = int(os.environ.get("MANUAL_GRAD_SEEDS", "1"))


@pytest.fixture(autouse=True)
def without_warnings() -> None:
    warnings.simplefilter("ignore")


def test_there_are_enough() -> None:
    assert len(RIGHT) >= 60
    assert len(WRONG) >= 120


@pytest.mark.parametrize("name", RIGHT)
def test_no_false_alarm(name: str) -> None:
    for seed in range(SEEDS):
        report = RIGHT[name].audit(name, seed)
        assert report, f"seed {seed}: {report}"


@pytest.mark.parametrize("name", WRONG)
def test_no_fault_is_missed_and_its_cause_comes_first(name: str) -> None:
    for seed in range(SEEDS):
        report = WRONG[name].audit(name, seed)
        assert not report
        assert WRONG[name].is_named(report), str(report)
