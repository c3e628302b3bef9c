"""``python tests/interpreter.py MODULE …``: run a module with the Triton kernels on CPU tensors, in the interpreter.

Triton patches its language in every call of a jit function, even inside a kernel, where it is already patched. That
would take most of the time, so here it is patched once per launch.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import sys
from types import ModuleType
from typing import Any

os.environ.update(TRITON_INTERPRET="1", MANUAL_GRAD_KERNELS="triton")

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

patch, restore = interpreter._patch_lang, interpreter._LangPatchScope.restore
scopes: dict[
    frozenset[str], interpreter._LangPatchScope
] = {}  # by the names under which the function knows the language


def patch_once(fn: Any) -> interpreter._LangPatchScope:
    known = frozenset(v.__name__ for v in vars_of(fn) if v in (tl, tl.core))
    if known not in scopes:
        scopes[known] = patch(fn)
        # Triton 3.6 calls int() on an array with one element, for which numpy 2.4 raises an error
        scopes[known].set_attr(tl.core.tensor, "__index__", lambda self: self.handle.data.item())
    return scopes[known]


def vars_of(fn: Any) -> list[ModuleType]:
    return [v for v in fn.__globals__.values() if isinstance(v, ModuleType)]


def restore_all(scope: interpreter._LangPatchScope) -> None:
    while scopes:
        restore(scopes.popitem()[1])


interpreter._patch_lang, interpreter._LangPatchScope.restore = patch_once, restore_all


def of_libm(name: str, number: type) -> np.ufunc:
    function = getattr(ctypes.CDLL(None), name)
    function.argtypes, function.restype = [number] * 3, number
    return np.frompyfunc(function, 3, 1)


FMA = {np.dtype(np.float32): of_libm("fmaf", ctypes.c_float), np.dtype(np.float64): of_libm("fma", ctypes.c_double)}


def create_fma(self: Any, x: Any, y: Any, z: Any) -> Any:
    dtype = z.data.dtype
    return interpreter.TensorHandle(np.asarray(FMA[dtype](x.data, y.data, z.data)).astype(dtype), z.dtype.scalar)


if not hasattr(interpreter._interpreter, "fma_fp32"):  # Triton 3.6 multiplies, rounds, and adds
    interpreter.InterpreterBuilder.create_fma = create_fma

if __name__ == "__main__":
    _, module, *sys.argv[1:] = sys.argv
    sys.path.insert(0, os.getcwd())
    runpy.run_module(module, run_name="__main__")
