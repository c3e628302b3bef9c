"""The documentation builds without warnings, is complete, and works offline."""

from __future__ import annotations

import doctest
import importlib
import json
import math
import re
import statistics
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

import manual_grad
import manual_grad.functional as F
from benchmarks import report
from benchmarks.scaling import tables
from gradcheck import CHECKS
from manual_grad import specs
from manual_grad.catalogue import BY_NAME

ROOT = Path(__file__).parents[1]
LOSSES = list(specs.NAMES)
RESULTS = ROOT / "benchmarks/results"
LOADING = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "use": "href",
}
KB = 1000


def committed(name: str) -> dict[str, Any]:
    """A table of results."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


MACHINES = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((RESULTS / "cpu").glob("*"))}


def speedups(row: dict[str, Any], other: str) -> list[float]:
    """Of each run."""
    ours, theirs = (t.get("runs") or [t["median"]] for t in (row["timings"]["manual_grad"], row["timings"][other]))
    return [b / a for a, b in zip(ours, theirs, strict=True)]


class Page(HTMLParser):
    """The links, resources and anchors of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attrs}
        if "id" in of:
            self.ids.add(of["id"])
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        # links with these values of rel point to pages, which are not loaded
        if LOADING.get(tag, "") in of and of.get("rel") not in ("search", "index", "next", "prev", "author"):
            self.loaded.append(of[LOADING[tag]])


def is_remote(url: str) -> bool:
    return re.match(r"(?:[a-z][\w+.-]*:)?//", url) is not None


def broken_links(folder: Path) -> list[str]:
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address, fragment = urldefrag(link)
            if is_remote(link) or link.startswith("mailto:"):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            known = pages[target].ids if target in pages else {""}
            if not target.exists() or (fragment and unquote(fragment) not in known):
                broken.append(f"{path.relative_to(folder)}: {link}")
    return broken


def remote_resources(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        text = path.read_text(encoding="utf-8", errors="replace") if path.suffix in (".html", ".css", ".svg") else ""
        urls = re.findall(r"url\(\s*[\"']?([^\"')]+)", text) + re.findall(r"@import\s+[\"']([^\"']+)", text)
        urls += Page(text).loaded if path.suffix == ".html" else []
        found += [f"{path.relative_to(folder)}: {url}" for url in urls if is_remote(url)]
    return found


def test_links_resolve(site: Path) -> None:
    assert broken_links(site) == []
    assert sum(len(Page(path.read_text(encoding="utf-8")).links) for path in site.rglob("*.html")) > 1000


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    assert remote_resources(site) == []


def test_what_is_broken_or_remote_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html"></a><a href="#there" id="here"></a><a href="#here"></a><a href="https://a.org/b"></a>'
        '<link rel="stylesheet" href="//cdn.org/a.css"><script src="https://cdn.org/a.js"></script><img src="a.png">'
    )
    (tmp_path / "a.css").write_text('@font-face { src: url("http://fonts.org/a.woff") } i { background: url(data:,) }')
    assert broken_links(tmp_path) == ["a.html: b.html", "a.html: #there"]
    found = sorted(remote_resources(tmp_path))
    assert [line.split(": ")[1] for line in found] == [
        "http://fonts.org/a.woff",
        "//cdn.org/a.css",
        "https://cdn.org/a.js",
    ]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_its_page(site: Path, loss: str) -> None:
    html = (site / f"losses/{loss}.html").read_text(encoding="utf-8")
    page = Page(html)
    module = BY_NAME[loss].module
    tags = set(re.findall(r"\\tag\{([^}]*)\}", module.__doc__ or ""))
    assert tags
    assert {f"equation-{tag}" for tag in tags} == {i for i in page.ids if i.startswith("equation-")}
    assert html.count('<p class="unexecuted">') == (module.__doc__ or "").count(r"\unexecuted{")
    assert {"derivation", "try-it", "code", "accuracy", "speed", "interface"} <= page.ids
    documented = {i.rpartition(".")[2] for i in page.ids if i.startswith("manual_grad.")}
    assert documented >= ({loss, *BY_NAME[loss].also} & {*F.__all__})
    assert any(url.endswith(f"/{loss}.svg") for url in page.loaded)
    regimes = committed("errors.json")["losses"][loss]["regimes"]
    assert all(f'<th scope="row">{regime}</th>' in html.replace("&#x27;", "'") for regime in regimes)
    timed = [r for machine in MACHINES.values() for r in machine["results"] if r["loss"] == loss]
    assert html.count('<th scope="row">manual_grad</th>') == len(timed)
    assert html.count('<table class="bars">') == len({(r["variant"], r["size"]) for r in timed})


def test_a_page_says_which_equation_is_not_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sphinx", "matplotlib", "math_core"):
        pytest.importorskip(module, reason=f"the documentation needs {module}: pip install -e .[docs]")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    nodes, equations = importlib.import_module("docutils.nodes"), importlib.import_module("extension.equations")
    page: Any = SimpleNamespace(body=[])
    for end in ("", r" \unexecuted{it holds for h < 1}"):
        with pytest.raises(nodes.SkipNode):
            equations.visit_block(page, nodes.math_block("", rf"e \approx h \tag{{2}}{end}"))
    executed, unexecuted = page.body
    assert unexecuted == executed + '<p class="unexecuted">Not executed: it holds for h &lt; 1.</p>'


@pytest.mark.parametrize("loss", LOSSES)
def test_equations_name_the_lines_that_cite_them(site: Path, loss: str) -> None:
    html = (site / f"losses/{loss}.html").read_text(encoding="utf-8")
    lines = BY_NAME[loss].file.read_text(encoding="utf-8").splitlines()
    blocks = re.findall(r'<div class="equation" id="equation-(\w+)">.*?</div></div>', html, flags=re.DOTALL)
    for tag in blocks:
        start = html.index(f'id="equation-{tag}"')
        places = re.findall(r'href="#line-(\d+)"', html[start : html.index("</div></div>", start)])
        cited = [n for n, line in enumerate(lines, 1) if f"({tag})" in line.partition("  # ")[2]]
        assert set(map(int, places)) >= set(cited)
        assert all(f"({tag})" in lines[int(n) - 1].partition("#")[2] for n in places)


def test_home_page_has_the_committed_figures(site: Path) -> None:
    html = (site / "index.html").read_text(encoding="utf-8")
    means = [
        statistics.geometric_mean(statistics.median(speedups(r, "eager")) for r in rows if r["size"] == "large")
        for rows in (machine["results"] for machine in MACHINES.values())
    ]
    eager = "–".join(dict.fromkeys(f"{mean:.1f}" for mean in (min(means), max(means))))
    losses = committed("errors.json")["losses"].values()
    worst = max(loss[what]["error"] for loss in losses for what in ("value", "gradient"))
    figures = [f"{eager}×", f"{worst:.1f} eps", f"{len(CHECKS)} checks"]
    assert re.findall(r'<p class="figure">([^<]*)</p>', html) == figures
    cards = re.findall(r'<a class="card" href="losses/(\w+).html">', html)
    assert sorted(cards) == LOSSES


def cells_of(table: str) -> list[list[str]]:
    """The text in the cells of each row."""
    rows = re.findall(r"<tr>(.*?)</tr>", table, flags=re.DOTALL)
    return [[unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


@pytest.mark.parametrize("size", ["large", "medium", "small"])
def test_page_on_speed_has_the_committed_figures(site: Path, size: str) -> None:
    html = (site / "benchmarks.html").read_text(encoding="utf-8")
    processors = [report.processor(machine["machine"]) for machine in MACHINES.values()]
    _, _, section = html.partition(f'<section id="{size}">')
    _, *rows = cells_of(section.partition("</table>")[0])
    shown = {}
    for row in rows:
        if row[0] not in processors:  # a name, over the rows of all machines
            name, *row = row
        shown[name, row[0]] = row[1:]
    for processor, machine in zip(processors, MACHINES.values(), strict=True):
        for r in (r for r in machine["results"] if (r["size"], r["upstream"]) == (size, 1)):
            row = shown.pop((", ".join(filter(None, (r["loss"], r["variant"]))), processor))
            *_, eager, _, bytes, ns, share = row
            elements = math.prod(r["shape"])
            assert bytes == report.digits(r["bytes"] / elements)
            assert ns == report.digits(r["timings"]["manual_grad"]["median"] / elements * 1e9)
            assert share == f"{statistics.median(speedups(r, 'sweep')):.0%}"
            runs = sorted(speedups(r, "eager"))
            spread = f" {report.digits(runs[0])}–{report.digits(runs[-1])}" if len(runs) > 1 else ""
            assert eager == report.digits(statistics.median(runs)) + spread
    assert not shown


def test_page_on_speed_has_every_machine_and_table(site: Path) -> None:
    html = (site / "benchmarks.html").read_text(encoding="utf-8")
    for name, machine in MACHINES.items():
        assert html.count(f'src="_images/roofline_{name}.svg"') == 1
        for r in (r for r in machine["results"] if r["size"] == "large"):
            assert f'href="losses/{r["loss"]}.html"' in html
    for _, title, _ in tables.TABLES:
        assert escape(title) in html
    for file in [*(RESULTS / "scaling").glob("*"), *(RESULTS / "bounds").glob("*")]:
        assert escape(report.described(json.loads(file.read_text(encoding="utf-8"))["machine"])) in html


def test_no_formula_is_left_in_tex(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"\\(?:frac|sum|partial|tag|begin|mathrm|[a-z]{4,})", text), path


def test_pages_are_light(site: Path) -> None:
    for path in site.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        assert len(html) < 350 * KB, path
        for data in re.findall(r'<script type="application/json">(.*?)</script>', html):
            assert len(data) < 150 * KB, path
        loaded = {(path.parent / urldefrag(url)[0].partition("?")[0]).resolve() for url in Page(html).loaded}
        assert sum(file.stat().st_size for file in loaded if file.is_file()) < 600 * KB, path
    assert (site / "_static/math.woff").stat().st_size < 250 * KB


MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in (manual_grad.__name__, "gradcheck")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert attempted
    assert not failed


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.rst")), ids=lambda path: path.name)
def test_examples_in_pages(path: Path) -> None:
    failed, attempted = doctest.testfile(str(path), module_relative=False)
    assert not failed
    assert attempted or ">>>" not in path.read_text(encoding="utf-8")
