"""What the failures of a function come from: one cause, in words, before the comparisons that it spoils.

A gradient that overwrites an input fails in a dozen checks, of which eleven only show that it did. The causes are
tried in order, from what invalidates everything to what invalidates nothing else; the first that applies is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from gradcheck.compare import Result


class Cause(NamedTuple):
    """``said``, with the groups of ``what``, of a failure of ``check`` (any, if empty) whose name matches ``what``.

    It may also name the ``{dtype}``.
    """

    check: str
    what: str
    said: str
    message: str = ""  # to be matched as well


NO_DIGIT = r"^(zero|infinite|NaN|got (nan|-?inf)|-?[\d.e+]+ times|the gradient|the transpose|what is)"  # is right
CAUSES = (
    Cause("", r"^spec$", "the description of the function fails"),
    Cause("", r"^memory around tensors$", "memory is written to that belongs to no tensor"),
    Cause("purity", r"^upstream unchanged$", "backward writes to the upstream gradient"),
    Cause("purity", r"^(?!saved tensors)(.+) unchanged$", "input {0} is written to"),
    Cause("purity", r"^saved tensors unchanged$", "a saved tensor is written to"),
    Cause("parity", r"^(.+), memory poisoned$", "the {0} holds what its memory held before", "NaN"),
    Cause("purity", r"^(.+), run again$", "the {0} is not the same when it is computed again"),
    Cause("parity", r"^(.+), memory poisoned$", "the {0} depends on what its memory held before"),
    Cause("definition|differences|purity|claims|parity", r"^call$", "the call fails"),
    Cause("sharded", r"^hang$", "it hangs"),
    Cause("sharded", r"^process (\d+)$", "process {0} fails"),
    Cause("sharded", r"^(value|gradient of [^\s,]+)(.*)$", "the {0} is wrong{1}"),
    Cause("sharded", r"^(.+) unchanged$", "input {0} is written to"),
    Cause("sharded", r"^(d/d\S+ of d/d[^\s,]+)(.*)$", "the second derivative {0} is wrong{1}"),
    Cause("", r"^(.+), between guards$", "the {0} depends on the memory beside a tensor"),
    Cause("definition", r"^value$", "the value is wrong"),
    Cause("claims", r"^type of the value$", "the value has another type or shape than the definition's"),
    Cause("claims", r"^type of gradient of (.+)$", "the gradient of {0} has another type than the input"),
    Cause("definition|differences", r"^gradient of (.+)$", "the gradient of {0} is wrong", "NaN"),
    Cause("layout", r"^gradient of (.+), upstream 0$", "the gradient of {0} does not depend on the upstream gradient"),
    Cause("layout", r"^gradient of (.+), second backward$", "the gradient of {0} is another in the second backward"),
    Cause("layout", r"^gradient of (.+), after create_graph$", "the gradient of {0} is another in the second backward"),
    Cause("layout", r"^gradient of (.+), first backward$", "the gradient of {0} is another in a graph that is kept"),
    Cause("definition|differences", r"^gradient of (.+)$", "the gradient of {0} is missing", r"^got None"),
    Cause("definition|differences", r"^gradient of (.+)$", "the gradient of {0} is wrong"),
    Cause("claims", r"^gradient of (\S+) alone$", "the gradient of {0} is another when no other is asked for"),
    Cause("claims", r"^gradient of (\S+) (with .+) alone$", "the gradient of {0} is another {1} alone"),
    Cause("layout", r"^gradient of (.+), (upstream .+)$", "the gradient of {0} is wrong for an {1}"),
    Cause("layout", r"^(value|gradient of .+), (.+)$", "the {0} is wrong for {1}"),
    Cause("layout", r"^call$", "the call fails for a memory layout"),
    Cause("kinks", r"^pinned (.+)$", "the pinned {0} is another"),
    Cause("kinks", r"^integral of the slope$", "the gradient does not integrate to the value"),
    Cause("kinks", r".", "a kink is not as declared"),
    Cause("oracle", r"^(.+)$", "the {0} loses digits"),
    Cause("equations", r".", "the chapter says something else than the code"),
    Cause("second", r"^(.+)$", "the second derivative is wrong"),
    Cause("forward", r"^(.+)$", "forward mode is wrong"),
    Cause("transforms", r"^(vmap.*)$", "{0} is wrong"),
    Cause("transforms", r"^(.+)$", "{0} gives something else"),
    Cause("purity", r"^memory released$", "memory is not released"),
    Cause("purity", r"^asynchronous$", "the host waits for the device"),
    Cause("differences", r"^inputs$", "the inputs cannot be compared"),
    Cause("claims", r"^no_grad$", "there is a graph under torch.no_grad"),
    Cause("claims", r"^plain inputs$", "there is a graph though no input requires a gradient"),
    Cause("claims", r"^no gradient of (.+)$", "the gradient of {0} was not to be expected"),
    Cause("claims", r"^(.+)$", "a claim does not hold: {0}"),
    Cause("modules", r"^(\w+\.\w+): (.+)$", "the {1} of {0} is wrong"),
    Cause("modules", r"^(\w+): (.+) in a buffer$", "{0} keeps {1} outside its buffers"),
    Cause("modules", r"^(\w+): (?!call$)(.+)$", "the {1} of {0} is not that of its function"),
    Cause("modules", r"^(\w+): call$", "{0} cannot be called as its function"),
    Cause("definition", r"^blocks: (.+)$", "the spec's {0} are no other blocks"),
    Cause("parity", r"^(.+), in blocks$", "the {0} is another in blocks of another size"),
    Cause("parity", r"^(.+), by kernel$", "the kernel's {0} is not the formula's"),
    Cause("parity", r"^(value|gradient of .+)$", "the {0} is wrong in {dtype}", NO_DIGIT),
    Cause("parity", r"^(.+)$", "the {0} is less exact than it should be"),
)


def first(failures: Sequence[Result]) -> tuple[str, Result]:
    """The cause of these failures of one function, and the failure that shows it."""
    said, (shown, *_) = next(iter(grouped(failures).items()))
    return said, shown


def grouped(failures: Sequence[Result]) -> dict[str, list[Result]]:
    """Cause -> the failures that it explains, in the order of the causes."""
    found: dict[tuple[int, str], list[Result]] = {}
    for failure in failures:
        found.setdefault(of(failure), []).append(failure)
    causes = sorted(found, key=lambda key: key[0])
    for i, first_call in enumerate(causes):  # what raises the same in every check is one failure
        raised = {r.message for r in found[first_call] if r.what == "call"}
        for later in causes[i + 1 :]:
            found[first_call] += [r for r in found[later] if r.what == "call" and r.message in raised]
            found[later] = [r for r in found[later] if r.what != "call" or r.message not in raised]
    merged: dict[str, list[Result]] = {}
    for rank, said in causes:  # several causes may be told in the same words
        if found[rank, said]:
            merged.setdefault(said, []).extend(found[rank, said])
    return merged


def of(failure: Result) -> tuple[int, str]:
    """How early a cause it is, and what is said of it."""
    told = f"{failure.relation} {failure.message}".strip()
    for rank, cause in enumerate(CAUSES):
        found = re.search(cause.what, failure.what)
        if found and re.fullmatch(cause.check or ".*", failure.check) and re.search(cause.message, told):
            return rank, cause.said.format(*found.groups(), dtype=failure.dtype)
    return len(CAUSES), failure.what
