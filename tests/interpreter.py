"""``python tests/interpreter.py MODULE …``: run a module with the kernels in Triton on CPU tensors, in the interpreter.

Triton patches its language anew in every call of a jit function, also from within a kernel, where it is patched
already: most of the time would go there. Here it is patched once for each launch.
"""

from __future__ import annotations

import os
import runpy
import sys
from types import ModuleType
from typing import Any

os.environ.update(TRITON_INTERPRET="1", MANUAL_GRAD_KERNELS="triton")

import triton.language as tl
from triton.runtime import interpreter

patch, restore = interpreter._patch_lang, interpreter._LangPatchScope.restore
scopes: dict[frozenset[str], interpreter._LangPatchScope] = {}  # by what the function knows of the language


def patch_once(fn: Any) -> interpreter._LangPatchScope:
    known = frozenset(v.__name__ for v in vars_of(fn) if v in (tl, tl.core))
    if known not in scopes:
        scopes[known] = patch(fn)
    return scopes[known]


def vars_of(fn: Any) -> list[ModuleType]:
    return [v for v in fn.__globals__.values() if isinstance(v, ModuleType)]


def restore_all(scope: interpreter._LangPatchScope) -> None:
    while scopes:
        restore(scopes.popitem()[1])


interpreter._patch_lang, interpreter._LangPatchScope.restore = patch_once, restore_all

if __name__ == "__main__":
    _, module, *sys.argv[1:] = sys.argv
    sys.path.insert(0, os.getcwd())
    runpy.run_module(module, run_name="__main__")
