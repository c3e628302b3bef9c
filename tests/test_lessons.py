"""Every loss has its lesson, whose examples and answers print what the lesson shows."""

from __future__ import annotations

import re

import pytest
import torch

import snippets
from manual_grad import specs
from manual_grad.study import texts

SECTIONS = ["A worked example", "Beside its neighbours", "Where it is used", "Exercises"]
ANSWER = re.compile(r"^\*\*(\d+)\.\*\* .+?^\.\. answer::\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("loss", specs.NAMES)
def test_lesson_is_complete(loss: str) -> None:
    lesson = texts.lesson(loss)
    sections = re.split(r"^(.+)\n=+\n", lesson, flags=re.MULTILINE)
    assert sections[1::2] == SECTIONS
    example, *_, exercises = sections[2::2]
    assert ">>> " in example
    answers = ANSWER.findall(exercises)
    assert [number for number, _ in answers] == [str(n + 1) for n in range(exercises.count(".. answer::"))]
    assert len(answers) >= 3
    assert all(">>> " in answer for _, answer in answers)


@pytest.mark.parametrize("loss", specs.NAMES)
def test_lesson_shows_what_it_says(loss: str) -> None:
    torch.manual_seed(0)
    snippets.check(texts.lesson(loss), {}, loss, f"{loss}.rst")


def test_incomplete_lessons_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = texts.lesson("huber_loss")
    monkeypatch.setattr(texts, "lesson", lambda loss: changed)
    for old, new in (
        ("Exercises\n", "Exercise\n"),
        ("**2.**", "**3.**"),
        (".. answer::", ".. note::"),
        ("25.75", "25.75\n\n   >>> 1\n   2"),
    ):
        changed = lesson.replace(old, new)
        with pytest.raises(AssertionError):
            test_lesson_is_complete("huber_loss")
            test_lesson_shows_what_it_says("huber_loss")
