r"""LaTeX's mathematics in a terminal: ``∂e/∂x = max(−δ, min(r, δ))``, in one line or, displayed, in several.

Of the converters to plain text none keeps the meaning: :math:`e^{a - b}` becomes e^a - b, the lines of cases run
together, :math:`\tfrac12` is read as 12. This one reads what the chapters use, and leaves a command that it does not
know as it is.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from manual_grad.study import box
from manual_grad.study.box import Box

_SYMBOLS = {
    "ord": {
        r"\infty": "∞", r"\top": "⊤", r"\dots": "…", r"\ldots": "…", r"\cdots": "⋯", r"\emptyset": "∅",
        r"\forall": "∀", r"\exists": "∃", r"\star": "⋆", r"\prime": "′",
    },
    "letter": {r"\ell": "ℓ", r"\epsilon": "ε", r"\varepsilon": "ε", r"\lambda": "λ", r"\varphi": "φ"},
    "prefix": {r"\partial": "∂", r"\nabla": "∇"},
    "slash": {"/": "/"},
    "bin": {
        "+": "+", "-": "−", r"\pm": "±", r"\mp": "∓", r"\cdot": "·", r"\times": "×", r"\oplus": "⊕", r"\otimes": "⊗",
        r"\odot": "⊙", r"\circ": "∘", r"\cup": "∪", r"\cap": "∩", r"\setminus": "∖", r"\wedge": "∧", r"\vee": "∨",
    },
    "rel": {
        "=": "=", "<": "<", ">": ">", ":": ":", r"\le": "≤", r"\leq": "≤", r"\ge": "≥", r"\geq": "≥", r"\ne": "≠",
        r"\neq": "≠", r"\approx": "≈", r"\sim": "∼", r"\simeq": "≃", r"\propto": "∝", r"\equiv": "≡", r"\ll": "≪",
        r"\gg": "≫", r"\in": "∈", r"\notin": "∉", r"\subset": "⊂", r"\subseteq": "⊆", r"\to": "→",
        r"\rightarrow": "→", r"\leftarrow": "←", r"\mapsto": "↦", r"\Rightarrow": "⇒", r"\implies": "⟹",
        r"\iff": "⟺", r"\mid": "|", r"\perp": "⊥",
    },
    "sum": {r"\sum": "∑", r"\prod": "∏", r"\int": "∫", r"\bigoplus": "⨁", r"\bigcup": "⋃", r"\bigcap": "⋂"},
    "punct": {",": ",", ";": ";"},
    "open": {"(": "(", "[": "[", r"\{": "{", r"\langle": "⟨", r"\lfloor": "⌊", r"\lceil": "⌈"},
    "close": {")": ")", "]": "]", r"\}": "}", r"\rangle": "⟩", r"\rfloor": "⌋", r"\rceil": "⌉"},
    "bar": {"|": "|", r"\lvert": "|", r"\rvert": "|", r"\|": "‖", r"\lVert": "‖", r"\rVert": "‖"},
    "space": {r"\,": " ", r"\;": " ", r"\:": " ", r"\ ": " ", "~": " ", r"\quad": "  ",
              r"\qquad": "    "},
    "none": {r"\!": "", r"\big": "", r"\Big": "", r"\bigg": "", r"\bigl": "", r"\bigr": "", r"\Bigl": "",
             r"\Bigr": "", r"\left": "", r"\right": "", r"\displaystyle": "", r"\textstyle": "", r"\limits": ""},
}  # fmt: skip
_KINDS = {command: (kind, sign) for kind, signs in _SYMBOLS.items() for command, sign in signs.items()}
_FUNCTIONS = frozenset(r"\log \exp \max \min \sup \inf \arg \sin \cos \tan \tanh \lim \det \ln \Pr".split())
_NAMES = {r"\mathrm", r"\operatorname", r"\text", r"\textrm", r"\mathbf", r"\boldsymbol", r"\mathcal", r"\mathit"}
_ACCENTS = {r"\hat": "\u0302", r"\tilde": "\u0303", r"\bar": "\u0304", r"\dot": "\u0307", r"\ddot": "\u0308",
            r"\vec": "\u20d7"}  # fmt: skip
_BLACKBOARD = {"R": "ℝ", "N": "ℕ", "Z": "ℤ", "Q": "ℚ", "C": "ℂ", "E": "𝔼", "P": "ℙ"}
_PARTS = {("1", "2"): "½", ("1", "3"): "⅓", ("2", "3"): "⅔", ("1", "4"): "¼", ("3", "4"): "¾"}
_BRACKETS = {"cases": ("{", ""), "pmatrix": ("(", ")"), "bmatrix": ("[", "]")}
_SUPERSCRIPTS = str.maketrans(
    "0123456789+−=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWβγδ⊤′",
    "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵝᵞᵟᵀ′",
)
_SUBSCRIPTS = str.maketrans("0123456789+−=()aehijklmnoprstuvxβγρφχ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ")
_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\s+|.", re.DOTALL)
_INDENT = 4


class Atom(NamedTuple):
    """A part of a formula, and its kind, which tells the space around it."""

    kind: str
    box: Box


def inline(tex: str) -> str:
    """The formula in one line."""
    return _join(_Reader(tex, flat=True).whole()).lines[0]


def display(tex: str, number: str = "", width: int = 80) -> str:
    """The formula in as many lines as it needs, its number at the right end."""
    end = f"({number})" if number else ""
    rows = _pack(_Reader(tex, flat=False).whole(), width - _INDENT - len(end) - 1)
    lines: list[str] = []
    for row in rows:
        apart = bool(lines) and len(row.lines) + len(rows[0].lines) > 2
        lines += [""] * apart + [" " * _INDENT + line for line in row.lines]
    last = len(lines) - len(rows[-1].lines) + rows[-1].base
    if box.width(lines[last].rstrip()) + len(end) >= width:
        last = len(lines)
        lines.append("")
    lines[last] = lines[last].rstrip()
    lines[last] += " " * (width - box.width(lines[last]) - len(end)) + end
    return "\n".join(line.rstrip() for line in lines)


def _pack(atoms: list[Atom], room: int) -> list[Box]:
    """Statements side by side while they fit; one that is too wide is broken at a wide space, a relation, a sign."""
    rows: list[Box] = []
    for part in _split(atoms, "qquad", keep=False):
        whole = _join(part)
        if rows and rows[-1].width + _INDENT + whole.width <= room:
            rows[-1] = box.beside(rows[-1], box.text(" " * _INDENT), whole)
        elif whole.width <= room:
            rows.append(whole)
        else:
            first, *rest = _broken(part, room - _INDENT, ["quad", "rel", "bin"])
            blank = Atom("ord", box.text(" " * (_INDENT - 1)))  # behind it a sign is still between two things
            rows += [_join(first), *(_join([blank, *line]) for line in rest)]
    return rows


def _broken(atoms: list[Atom], room: int, kinds: list[str]) -> list[list[Atom]]:
    if _join(atoms).width <= room or not kinds:
        return [atoms]
    parts = _split(atoms, kinds[0], keep=True)
    if kinds[0] == "rel":  # what is defined stays beside its definition
        parts[:2] = [[atom for part in parts[:2] for atom in part]]
    lines: list[list[Atom]] = []
    for part in parts:
        if lines and _join(lines[-1] + part).width <= room:
            lines[-1] += part
        else:
            lines += _broken(part, room, kinds[1:])
    return lines


def _split(atoms: list[Atom], kind: str, keep: bool) -> list[list[Atom]]:
    parts: list[list[Atom]] = [[]]
    for atom in atoms:
        if atom.kind == kind:
            parts.append([atom] if keep else [])
        else:
            parts[-1].append(atom)
    return [part for part in parts if part]


def _join(atoms: list[Atom], tight: bool = False) -> Box:
    """Side by side, with the space that the kinds ask for; ``tight`` as in an index."""
    boxes, before, gap = [box.text("")], Atom("start", box.text("")), 0
    for atom in atoms:
        if atom.kind in ("space", "quad", "qquad"):
            gap = max(gap, atom.box.width)
            continue
        if atom.kind == "bin" and before.kind in (
            "start",
            "open",
            "rel",
            "bin",
            "sign",
            "slash",
            "punct",
            "name",
            "sum",
        ):
            atom = atom._replace(kind="sign")
        if before.kind in ("start", "open", "slash") or atom.kind in ("close", "punct", "slash"):
            gap = 0
        elif not gap and _apart(before, atom, tight):
            gap = 1
        boxes += [box.text(" " * gap), atom.box]
        before, gap = atom, 0
    return box.beside(*boxes)


def _apart(before: Atom, atom: Atom, tight: bool) -> bool:
    kinds = {before.kind, atom.kind}
    if before.kind == "sign":
        return len(atom.box.lines) > 1
    if kinds & {"bin", "rel"} or before.kind == "punct":
        return not tight
    if before.kind == "prefix" or (atom.kind == "group" and before.kind != "sum"):
        return "fraction" in kinds
    if kinds == {"letter"}:  # a product; but dx is one
        return not tight and before.box.flat != "d"
    return bool(kinds & {"fraction", "name", "sum"})


class _Reader:
    """Recursive descent through the tokens of a formula."""

    def __init__(self, tex: str, flat: bool) -> None:
        self.tex = tex.strip()
        self.tokens = _TOKEN.findall(self.tex)
        self.at = 0
        self.flat = flat

    def whole(self) -> list[Atom]:
        atoms = self.row()
        if self.peek():
            raise ValueError(f"{self.peek()} without a beginning: {self.tex}")
        return atoms

    def peek(self) -> str:
        """The next token that is no white space, or nothing at the end."""
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise ValueError(f"something is missing at the end: {self.tex}")
        self.at += 1
        return token

    def raw(self) -> str:
        """The text of an argument as it stands, spaces included."""
        if self.take() != "{":
            return self.tokens[self.at - 1]
        start = self.at
        self.at = self.tokens.index("}", start) + 1
        return "".join(self.tokens[start : self.at - 1])

    def row(self, *ends: str) -> list[Atom]:
        """Atoms up to one of ``ends``, which is left, or to the end of a group or cell."""
        atoms: list[Atom] = []
        bars = 0
        while (token := self.peek()) and token not in (*ends, "}", "&", r"\\", r"\end"):
            bars += token in _SYMBOLS["bar"]
            atoms += self.atom(bar="open" if bars % 2 else "close")
        return atoms

    def atom(self, bar: str = "open") -> list[Atom]:
        token = self.take()
        kind, sign = _KINDS.get(token, ("", ""))
        if kind == "none":
            return []
        if kind == "space":
            return [Atom(token[1:] if token.startswith(r"\q") else kind, box.text(sign))]
        if kind == "open":
            return [self.scripts(self.bracket(sign))]
        return [self.scripts(Atom(bar if kind == "bar" else kind, box.text(sign)) if kind else self.command(token))]

    def argument(self) -> list[Atom]:
        """A group, or what the next token alone stands for."""
        if self.peek() == "{":
            self.take()
            atoms = self.row()
            self.take()
            return atoms
        kind, sign = _KINDS.get(token := self.take(), ("", ""))
        return [Atom(kind, box.text(sign)) if kind else self.command(token)]

    def line(self, tight: bool = False) -> tuple[list[Atom], str]:
        """An argument, and its text in one line."""
        outer, self.flat = self.flat, True
        atoms = self.argument()
        self.flat = outer
        return atoms, _join(atoms, tight).lines[0]

    def command(self, token: str) -> Atom:
        if token == "{":
            self.at -= 1
            atoms = self.argument()
            return atoms[0] if len(atoms) == 1 else Atom("ord", _join(atoms))
        if token in (r"\frac", r"\dfrac", r"\tfrac"):
            return self.fraction(small=token == r"\tfrac")
        if token in _FUNCTIONS:
            return Atom("name", box.text(token[1:]))
        if token in _NAMES:
            name = self.raw()
            return Atom("name" if len(name) > 1 and not token.startswith(r"\text") else "ord", box.text(name))
        if token in _ACCENTS:
            _, letter = self.line()
            return Atom("letter", box.text(unicodedata.normalize("NFC", letter + _ACCENTS[token])))
        if token == r"\mathbb":
            letter = self.raw()
            return Atom("letter", box.text(_BLACKBOARD.get(letter, letter)))
        if token == r"\sqrt":
            return Atom("letter", box.text("√" + _factor(*self.line())))
        if token == r"\begin":
            return self.environment()
        sign = _greek(token)
        return Atom("letter" if sign.isalpha() else "ord", box.text(sign))

    def bracket(self, opening: str) -> Atom:
        """All up to the closing bracket, of whatever form; without one the sign alone."""
        start = self.at
        content = _join(self.row(*_SYMBOLS["close"]))
        if self.peek() not in _SYMBOLS["close"]:
            self.at = start
            return Atom("open", box.text(opening))
        return Atom("group", box.delimited(opening, content, _KINDS[self.take()][1]))

    def fraction(self, small: bool) -> Atom:
        start = self.at
        (top, above), (bottom, below) = self.line(), self.line()
        if (above, below) in _PARTS:
            return Atom("ord", box.text(_PARTS[above, below]))
        if above.startswith("∂") and below.startswith("∂"):
            return Atom("fraction", box.text(f"{above}/{below.replace(' ', '')}"))
        if self.flat or small:
            above = f"({above})" if any(atom.kind == "bin" for atom in top) else above
            return Atom("fraction", box.text(f"{above}/{_factor(bottom, below)}"))
        self.at = start
        return Atom("fraction", box.fraction(_join(self.argument()), _join(self.argument())))

    def scripts(self, atom: Atom) -> Atom:
        below, above = "", ""
        while (token := self.peek()) in ("_", "^", "'"):
            self.take()
            if token == "_":
                _, below = self.line(tight=True)
            else:
                above += "′" if token == "'" else self.line(tight=True)[1]
        if not below and not above:
            return atom
        kind = "letter" if atom.kind == "prefix" and below else atom.kind
        if kind == "sum" and not self.flat:
            lines = [box.text(above)] * bool(above) + [atom.box] + [box.text(below)] * bool(below)
            return Atom(kind, box.stack(lines, base=bool(above), centred=True))
        index, exponent = self.in_line(below, "_"), self.in_line(above, "^")
        content = box.at_corner(box.at_corner(atom.box, index, top=False), exponent, top=True)
        return Atom(kind, box.with_scripts(content, "" if exponent else above, "" if index else below))

    def in_line(self, script: str, sign: str) -> str:
        """The script in small letters, or behind its sign where that reads well; else nothing."""
        small = _small(script, _SUBSCRIPTS if sign == "_" else _SUPERSCRIPTS)
        if small or not script:
            return small
        if _is_word(script):
            return sign + script if self.flat or sign == "_" else ""
        return f"{sign}({script})" if self.flat else ""

    def environment(self) -> Atom:
        opening, closing = _BRACKETS.get(self.raw(), ("", ""))
        rows: list[list[Box]] = [[]]
        while True:
            rows[-1].append(_join(self.row()))
            end = self.take()
            if end == r"\\":
                rows.append([])
                if self.peek() == "[":  # the space between two lines
                    self.at = self.tokens.index("]", self.at) + 1
            elif end != "&":
                break
        self.raw()
        if self.flat:
            content = box.text("; ".join(" if ".join(cell.lines[0] for cell in row) for row in rows))
            return Atom("group", box.delimited(opening, content, closing or (opening and "}")))
        return Atom("group", box.delimited(opening, box.beside(box.text(" "), box.grid(rows, gap=3)), closing))


def _factor(atoms: list[Atom], line: str) -> str:
    """The line, in brackets unless it is one thing."""
    return line if len(atoms) == 1 or line.isdigit() else f"({line})"


def _small(script: str, table: dict[int, int]) -> str:
    """The script in the small letters of ``table``; nothing where one is missing, or for a word, hard to read so."""
    if script.isalpha() and script.isascii() and len(script) > 3:
        return ""
    return script.translate(table) if all(ord(c) in table for c in script) else ""


def _is_word(script: str) -> bool:
    """Whether it can stand behind _ or ^ without brackets: nothing in it is an operator or a script itself."""
    return script.isalnum() and unicodedata.is_normalized("NFKC", script)


def _greek(token: str) -> str:
    """The letter of a command like alpha or Gamma; anything else is returned as it is."""
    name = token.removeprefix("\\")
    if name == token:
        return token
    try:
        return unicodedata.lookup(f"GREEK {'CAPITAL' if name[0].isupper() else 'SMALL'} LETTER {name}")
    except KeyError:
        return token
