"""LaTeX commands and their symbols, by kind, which determines the spacing."""

from __future__ import annotations

import unicodedata

SYMBOLS = {
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
        "=": "=", "<": "<", ">": ">", ":": ":", r"\le": "≤", r"\ge": "≥", r"\ne": "≠", r"\approx": "≈",
        r"\sim": "∼", r"\simeq": "≃", r"\propto": "∝", r"\equiv": "≡", r"\ll": "≪", r"\gg": "≫", r"\in": "∈",
        r"\notin": "∉", r"\subset": "⊂", r"\subseteq": "⊆", r"\to": "→", r"\leftarrow": "←", r"\mapsto": "↦",
        r"\Rightarrow": "⇒", r"\implies": "⟹", r"\iff": "⟺", r"\mid": "|", r"\perp": "⊥",
    },
    "sum": {r"\sum": "∑", r"\prod": "∏", r"\int": "∫", r"\bigoplus": "⨁", r"\bigcup": "⋃", r"\bigcap": "⋂"},
    "punct": {",": ",", ";": ";"},
    "open": {"(": "(", "[": "[", r"\{": "{", r"\langle": "⟨", r"\lfloor": "⌊", r"\lceil": "⌈"},
    "close": {")": ")", "]": "]", r"\}": "}", r"\rangle": "⟩", r"\rfloor": "⌋", r"\rceil": "⌉"},
    "bar": {"|": "|", r"\|": "‖", r"\lVert": "‖", r"\rVert": "‖"},
    "space": {r"\,": " ", r"\;": " ", r"\:": " ", r"\ ": " ", "~": " ", r"\quad": "  ", r"\qquad": "    "},
}  # fmt: skip
KINDS = {command: (kind, sign) for kind, signs in SYMBOLS.items() for command, sign in signs.items()}
FUNCTIONS = frozenset(r"\log \exp \max \min \sup \inf \arg \sin \cos \tan \sinh \cosh \tanh \lim \det \ln \Pr".split())
ACCENTS = {r"\hat": "\u0302", r"\tilde": "\u0303", r"\bar": "\u0304", r"\dot": "\u0307", r"\ddot": "\u0308",
            r"\vec": "\u20d7"}  # fmt: skip
BLACKBOARD = {"R": "ℝ", "N": "ℕ", "Z": "ℤ", "Q": "ℚ", "C": "ℂ", "E": "𝔼", "P": "ℙ"}
PARTS = {("1", "2"): "½", ("1", "3"): "⅓", ("2", "3"): "⅔", ("1", "4"): "¼", ("3", "4"): "¾"}
BRACKETS = {r"\begin{cases}": ("{", ""), r"\begin{pmatrix}": ("(", ")"), r"\begin{bmatrix}": ("[", "]")}
SUPERSCRIPTS = str.maketrans(
    "0123456789+−=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWβγδ⊤′",
    "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵝᵞᵟᵀ′",
)
SUBSCRIPTS = str.maketrans("0123456789+−=()aehijklmnoprstuvxβγρφχ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ")


def small(script: str, table: dict[int, int]) -> str:
    """The script in the small letters of ``table``; empty if one is missing, or for words, which are hard to read."""
    if script.isalpha() and script.isascii() and len(script) > 3:
        return ""
    return script.translate(table) if all(ord(c) in table for c in script) else ""


def is_word(script: str) -> bool:
    """Whether the script needs no brackets after _ or ^, as it contains neither operators nor scripts."""
    return script.isalnum() and unicodedata.is_normalized("NFKC", script)


def greek(token: str) -> str:
    """The letter of a command like alpha or Gamma; anything else is returned unchanged."""
    name = token.removeprefix("\\")
    if name == token:
        return token
    try:
        return unicodedata.lookup(f"GREEK {'CAPITAL' if name[0].isupper() else 'SMALL'} LETTER {name}")
    except KeyError:
        return token
