"""Equations as MathML, which browsers render themselves, in a font stored with the pages.

An equation with a ``\\tag`` shows its number, which links to it, and the lines of code that cite it. With
``\\unexecuted`` it says that no check evaluates it, and why. In the text and code of a loss, an equation number in
parentheses is also a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path

from docutils import nodes
from fontTools import subset
from math_core import LatexToMathML
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxTranslator

from extension import code
from gradcheck.chapter import Equation, equation
from gradcheck.latex import Part, read, source
from manual_grad.study import symbols, tex

CITATION = re.compile(r"\((\d+\w?)\)")
# Chromium does not enlarge a \big parenthesis that has an exponent, so the size is left to the browser where possible
SIZED = re.compile(r"\\[bB]igg?[lr]?\s*(\\[{}]|[()\[\]])")
CHARACTERS = (
    *range(0x20, 0x180),  # Latin
    *range(0x2B0, 0x400),  # accents, Greek
    *range(0x2000, 0x2400),  # punctuation, letter-like signs, arrows, operators
    *range(0x27C0, 0x2800),
    *range(0x2A00, 0x2B00),
    *range(0x1D434, 0x1D468),  # italic
    *range(0x1D6A4, 0x1D71C),  # Greek italic
)
LONG = 40  # characters of LaTeX from which an inline formula may be broken
BREAKS = {token for token, (kind, _) in symbols.KINDS.items() if kind in ("rel", "bin")} - {r"\cdot", r"\times"}
_converter = LatexToMathML(annotation=False)


def mathml(latex: str, display: bool = True) -> str:
    """MathML that a narrow page may break between statements and before relations, sums and conditions.

    A browser breaks lines only between elements ``math``, so each unbreakable part is one. ``alttext`` is the formula
    in plain text, for the snippets of the search.
    """
    latex = SIZED.sub(lambda m: (r"\left" if m[1].strip("\\") in "([{" else r"\right") + m[1], latex)
    if r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    if not display:
        return "<wbr>".join(_math(part, display) for part in (_parts(latex) if len(latex) > LONG else [latex]))
    statements = ("<wbr>".join(_math(part, display) for part in _parts(one)) for one in _statements(latex))
    return "".join(f'<span class="statement">{statement}</span>' for statement in statements)


def _math(latex: str, display: bool) -> str:
    converted = _converter.convert_with_local_state(latex, displaystyle=display)
    text = escape(tex.inline(latex.replace("{}", "")).strip())
    style = ' displaystyle="true"' if display else ""
    return f'<math{style} alttext="{text}">{converted.partition(">")[2]}'


def _parts(latex: str) -> list[str]:
    """A statement in unbreakable parts: a relation or a sign begins a part, and so does a condition after a quad."""
    parts: list[list[Part]] = [[]]
    before, condition = "", False
    for part in read(latex):
        binary = part.token in BREAKS and before not in ("", *BREAKS, ",", "/")
        if part.token == r"\quad" or (binary and not condition):
            parts.append([])
        condition |= part.token == r"\quad"
        parts[-1].append(part)
        before = part.token
    first, *rest = (source(part) for part in parts)
    return [first, *(f"{{}}{part}" for part in rest)]


def _statements(latex: str) -> list[str]:
    """The formulas between the wide spaces at the top level."""
    parts: list[list[Part]] = [[]]
    for part in read(latex):
        if part.token == r"\qquad":
            parts.append([])
        else:
            parts[-1].append(part)
    return [source(part) for part in parts]


def anchor(tag: str, scope: str = "") -> str:
    return f"equation-{scope}{'-' * bool(scope)}{tag}"


def link(tag: str) -> str:
    return f'<a class="cite" href="#{anchor(tag)}">({escape(tag)})</a>'


def visit_inline(self: SphinxTranslator, node: nodes.math) -> None:
    *parts, last = mathml(node.astext(), display=False).rpartition("<wbr>")
    after = node.get("after", "")
    self.body.append("".join(parts) + (f'<span class="together">{last}{after}</span>' if after else last))
    raise nodes.SkipNode


def visit_block(self: SphinxTranslator, node: nodes.math_block) -> None:
    for shown in _equations(node):
        math = f'<div class="scroll" tabindex="0">{mathml(shown.latex)}</div>'
        remark = f'<p class="unexecuted">{escape(shown.remark)}</p>' if shown.unexecuted else ""
        if not shown.label:
            self.body.append(f'<div class="equation">{math}</div>{remark}')
            continue
        lines = node.get("cited", {}).get(shown.label, ())
        places = ", ".join(f'<a href="#line-{line}">{line}</a>' for line in lines)
        cited = f'<span class="cited">line{"s" if len(lines) > 1 else ""} {places}</span>' if lines else ""
        place = anchor(shown.label, node.get("scope", ""))
        label = f'<a class="eqno" href="#{place}" title="Link to this equation">({escape(shown.label)})</a>'
        self.body.append(f'<div class="equation" id="{place}">{math}<div>{label}{cited}</div></div>{remark}')
    raise nodes.SkipNode


def _equations(node: nodes.math_block) -> list[Equation]:
    return [equation(latex) for latex in re.split(r"\n\s*\n", node.astext().strip())]


class Punctuation(SphinxPostTransform):
    """Keeps the punctuation after an inline formula on its line, where a browser would break."""

    default_priority = 90
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        for formula in list(self.document.findall(nodes.math)):
            text = formula.next_node(descend=False, siblings=True)
            if isinstance(text, nodes.Text) and (found := re.match(r"[^\s\w(]+", text)):
                formula["after"] = escape(found[0])
                text.parent.replace(text, nodes.Text(text[found.end() :]))


class CitedEquations(SphinxPostTransform):
    """Turns equation numbers into links, and tells each equation which lines cite it.

    On a page of several modules, each of which numbers its equations, the scope of a number is its module.
    """

    default_priority = 100
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        folder, _, name = self.env.docname.rpartition("/")
        cited = code.citations(name) if folder == "losses" else {}
        scope, tags, texts = "", set(), []
        for node in self.document.findall():
            modules = [i for i in getattr(node, "attributes", {}).get("ids", ()) if i.startswith("module-")]
            if modules and folder != "losses":
                scope = modules[0].removeprefix("module-").replace(".", "-")
            if isinstance(node, nodes.math_block):
                node["cited"], node["scope"] = cited, scope
                tags |= {(scope, shown.label) for shown in _equations(node)}
            if isinstance(node, nodes.Text) and isinstance(
                node.parent, (nodes.paragraph, nodes.strong, nodes.emphasis)
            ):
                texts.append((scope, node))
        for scope, text in texts:
            pieces = CITATION.split(text.astext())
            known = {tag for tag in pieces[1::2] if (scope, tag) in tags}
            if known:
                text.parent.replace(text, list(_linked(pieces, known, scope)))


def _linked(pieces: list[str], known: set[str], scope: str) -> Iterator[nodes.Node]:
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            yield nodes.Text(piece)
        elif piece in known:
            place = f"#{anchor(piece, scope)}"
            yield nodes.reference("", f"({piece})", internal=True, refuri=place, classes=["cite"])
        else:
            yield nodes.Text(f"({piece})")


def write_font(app: Sphinx, exception: Exception | None) -> None:
    """Write STIX Two Math (SIL Open Font License), reduced to the characters that formulas use."""
    if exception or app.builder.format != "html":
        return
    options = subset.Options(flavor="woff", hinting=False, layout_features=["ssty", "dtls"])
    options.name_IDs = ["*"]  # the licence
    with resources.as_file(resources.files("ziamath") / "fonts/STIXTwoMath-Regular.ttf") as path:
        font = subset.load_font(str(path), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=CHARACTERS)
    subsetter.subset(font)
    subset.save_font(font, str(Path(app.outdir, "_static/math.woff")), options)


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.add_post_transform(Punctuation)
    app.add_post_transform(CitedEquations)
    app.connect("build-finished", write_font)
