"""The pytest plugin: the fixture and the marker ``gradcheck``, and ``--gradcheck-html``.

The fixture audits a function, and fails the test with the report of what is wrong::

    def test_focal_loss(gradcheck):
        gradcheck(FocalLoss.apply, focal_loss, {"x": (4, 5), "target": LABELS})

The marker runs a test once for each check of one or more specs, under the check's name::

    @pytest.mark.gradcheck(SPEC)
    def test_focal_loss(gradcheck):
        gradcheck()

Nothing of torch is imported until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradcheck.compare import Result
    from gradcheck.run import Report
    from gradcheck.spec import Spec

RESULTS = pytest.StashKey[list["Result"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gradcheck")
    group.addoption("--gradcheck-html", metavar="FILE", help="a page with everything that gradcheck compared")
    group.addoption("--gradcheck-quick", action="store_true", help="fewer combinations for the specs of a marker")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gradcheck(spec, ..., checks=None): audit these specs, one check a test")
    config.stash[RESULTS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("gradcheck")
    if marker is None or "gradcheck" not in metafunc.fixturenames:
        return
    from gradcheck.checks import CHECKS

    checks: Sequence[str] = marker.kwargs.get("checks") or tuple(CHECKS)
    cases = [(spec, check) for spec in marker.args for check in checks]
    several = len(marker.args) > 1
    names = [f"{spec.name}-{check}" if several else check for spec, check in cases]
    metafunc.parametrize("gradcheck", cases, ids=names, indirect=True)


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """Audits a function as :func:`gradcheck.check` does, or, in a marked test, one check of a spec."""
    from gradcheck.api import check
    from gradcheck.run import audit
    from gradcheck.spec import Settings

    marked: tuple[Spec, str] | None = getattr(request, "param", None)

    def run(*args: Any, **kwargs: Any) -> Report:
        if marked is not None:
            spec, name = marked
            report = audit([spec], [name], Settings(quick=request.config.getoption("--gradcheck-quick")))
        else:
            kwargs.setdefault("name", request.node.name)
            report = check(*args, **kwargs)
        request.config.stash[RESULTS].extend(report.results)
        if not report:
            pytest.fail(str(report), pytrace=False)
        return report

    return run


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    results = config.stash.get(RESULTS, [])
    if hasattr(config, "workeroutput"):  # of pytest-xdist, whose controller writes the page
        config.workeroutput["gradcheck"] = [tuple(r) for r in results]
    elif config.getoption("--gradcheck-html"):
        _write(results, config.getoption("--gradcheck-html"))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker of pytest-xdist has found."""
    from gradcheck.compare import Result

    node.config.stash[RESULTS] += [Result(*r) for r in getattr(node, "workeroutput", {}).get("gradcheck", ())]


def _write(results: Sequence[Result], file: str) -> None:
    from gradcheck import html
    from gradcheck.checks import CHECKS
    from gradcheck.run import Report

    losses = tuple(dict.fromkeys(r.loss for r in results))
    checks = tuple(check for check in CHECKS if any(r.check == check for r in results))
    Path(file).write_text(html.page(Report(losses, checks, results=list(results))), encoding="utf-8")
