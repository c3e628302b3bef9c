"""``python docs/notebooks/generate.py``: write the notebook from the chapter of cross entropy and the code below.

The chapter is copied unchanged, and each piece of code follows the equation that it illustrates. Needs nbclient,
ipykernel and matplotlib.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradcheck.chapter import Equation
from manual_grad.study.chapters import chapter

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = Path(__file__).with_name("softmax_cross_entropy.ipynb")
TITLE = """
# Softmax cross entropy by hand

The text is the chapter of `manual_grad/losses/rowwise/cross_entropy.py`. Code between the equations evaluates them on
one row of scores.
"""
START = """
import matplotlib.pyplot as plt
import torch
from torch.func import grad, hessian

import manual_grad.functional as F
from manual_grad.study.plot import PANELS, style

z = torch.tensor([2.0, 1.0, -1.0])  # the logits of one example
y = torch.tensor(0)  # its class
"""
# from a fragment that occurs in exactly one equation to the code that follows it
CODE = {
    r"p_c = \frac{e^{z_c}}": """
p = z.exp() / z.exp().sum()
p, (z - z.logsumexp(0)).exp()
""",
    r"\ell = \sum_c q_c\, d_c": """
one_hot = torch.nn.functional.one_hot(y, 3).float()
d = z.logsumexp(0) - z
d, (one_hot * d).sum(), F.cross_entropy(z, y)
""",
    r"q_c = w_c\, \tilde t_c": """
smoothed = 0.9 * one_hot + 0.1 / 3
by_formula = (smoothed * d).sum()
by_formula, F.cross_entropy(z, y, label_smoothing=0.1), F.cross_entropy(z, smoothed)
""",
    r"= Q\, p_j - q_j": """
def difference(h):  # in float64, where a difference leaves digits enough
    return (F.cross_entropy(z + h, y) - F.cross_entropy(z - h, y)) / (2 * h.sum())


by_brute_force = torch.stack([difference(h) for h in 1e-3 * torch.eye(3).double()])
p - one_hot, grad(F.cross_entropy)(z, y), by_brute_force.float()
""",
    r"\frac{\partial \ell}{\partial q_c} = d_c": """
grad(F.cross_entropy, argnums=1)(z, smoothed), d  # for a target of probabilities
""",
    r"\log(1 + \rho), \qquad \rho": """
huge = torch.tensor([1000.0, 990.0, -1000.0])
naive = huge.exp().sum().log()  # overflows
m, others = huge[0], huge[1:]
naive, m + torch.log1p((others - m).exp().sum())
""",
    r"d_c = (m - z_c)": """
gaps = torch.tensor([5.0, 10.0, 15.0, 20.0, 40.0])
rows = torch.stack([gaps, 0 * gaps, 0 * gaps], 1)  # ever more certain of class 0
rho = 2 * (-gaps).exp()
losses = F.cross_entropy(rows, y.expand(5), reduction="none")
torch.log(1 + rho), torch.log1p(rho), losses
""",
    r"\sum_{c \ne k} q_c - Q": """
def of_the_class(loss):
    return grad(lambda z: loss(z, y.expand(5), reduction="sum"))(rows)[:, 0]


exact = -rho.double() / (1 + rho.double())
print("exact  ", exact.float())
print("by hand", of_the_class(F.cross_entropy))
torchs = of_the_class(torch.nn.functional.cross_entropy)
print("torch's is off by more than 1 %:", (torchs / exact - 1).abs() > 0.01)
""",
    r"(H v)_{z_j}": """
H = torch.diag(p) - torch.outer(p, p)
print(H)
print(hessian(F.cross_entropy)(z, y))
v = torch.tensor([1.0, 0.0, -1.0])
H @ v, p * (v - (p * v).sum())  # the product, without the matrix
""",
    r"t_c \log t_c": """
log_p, t = z.log_softmax(0), smoothed
eta = -(t * t.log()).sum()
print(F.nll_loss(log_p, y), F.cross_entropy(z, y))
print(F.kl_div(log_p, t, reduction="sum") + eta, F.cross_entropy(z, t))
""",
}
END = (
    """
**Summary.** The loss, its slope and its curvature as the logit of the class grows, while the other two logits are 0.
""",
    """
s = torch.linspace(-6, 8, 200, dtype=torch.float64)


def along(s):
    return F.cross_entropy(torch.stack([s, 0 * s, 0 * s]), y)


slope = grad(along)
curves = {"loss": along, "slope": slope, "curvature": grad(slope)}
with style("softmax cross entropy"):  # colors to be read on white and on black
    figure, ax = plt.subplots(facecolor="none")
    for (name, curve), color in zip(curves.items(), PANELS.values(), strict=True):
        ax.plot(s, torch.stack([curve(u) for u in s]), label=name, color=color)
    ax.set(xlabel="logit of the class", facecolor="none")
    ax.legend(framealpha=0)
    ax.grid(alpha=0.3)
    plt.show()
""",
)


def cells() -> Iterator[tuple[str, str]]:
    """The kind and the source of each cell."""
    blocks = chapter("cross_entropy").blocks
    for fragment in CODE:
        places = sum(isinstance(block, Equation) and fragment in block.latex for block in blocks)
        if places != 1:
            raise ValueError(f"{fragment} must occur in exactly one equation of the chapter, but occurs in {places}")
    yield "markdown", TITLE
    yield "code", START
    prose: list[str] = []
    for block in blocks:
        if not isinstance(block, Equation):
            prose.append(markdown(block))
            continue
        prose.append(f"$$\n{block.latex} \\tag{{{block.label}}}\n$$")
        if block.unexecuted:
            prose.append(f"*{block.remark}*")
        for fragment, code in CODE.items():
            if fragment in block.latex:
                yield "markdown", "\n\n".join(prose)
                yield "code", code
                prose = []
    yield "markdown", "\n\n".join(prose)
    yield "markdown", END[0]
    yield "code", END[1]


def markdown(paragraph: str) -> str:
    """Convert from reStructuredText; bold and italic text need no conversion."""
    if paragraph.startswith(">>>"):
        return f"```python\n{paragraph}\n```"
    for pattern, replacement in {
        r":math:`([^`]+)`": r"$\1$",
        r":\w+:`~?([^`]+)`": r"`\1`",
        r"``([^`]+)``": r"`\1`",
        r"`([^`<]+?)\s+<([^`>]+)>`_": r"[\1](\2)",
    }.items():
        paragraph = re.sub(pattern, replacement, paragraph)
    return paragraph


def build() -> Any:
    """The notebook, not executed yet."""
    from nbformat import v4

    made = v4.new_notebook(metadata={"kernelspec": dict(name="python3", display_name="Python 3", language="python")})
    for i, (kind, source) in enumerate(cells()):
        new = v4.new_code_cell if kind == "code" else v4.new_markdown_cell
        made.cells.append(new(source.strip(), id=f"cell-{i}"))
    return made


def execute(notebook: Any) -> Any:
    from nbclient import NotebookClient

    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # when it was executed
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    import nbformat

    nbformat.write(execute(build()), NOTEBOOK)
