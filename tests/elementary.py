"""The elementary functions of the kernels, compiled alone.

``python tests/elementary.py`` measures the errors of those of float over all 2³² arguments (some minutes each).
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from manual_grad import kernels

SOURCES = Path(kernels.__file__).parent / "cpu"
FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"],
}
CAPABILITY = {"DEFAULT": 1, "AVX2": 2, "AVX512": 3}.get(torch.backends.cpu.get_cpu_capability(), 1)

HARNESS = """
#include "simd.h"
using namespace mg;
#define TEST(name, T, f) extern "C" void name(const T* x, T* y, long n) { \\
    for (long i = 0; i < n; i += kLanes<T>) store<T>(y + i, f<T>(load(x + i))); }
TEST(exp_f64, double, mg::exp) TEST(exp_f32, float, mg::exp)
TEST(log1p_f64, double, mg::log1p) TEST(log1p_f32, float, mg::log1p)
TEST(log1p_unit_f64, double, log1p_unit) TEST(log1p_unit_f32, float, log1p_unit)
TEST(exp_signed_f64, double, exp_signed) TEST(exp_signed_f32, float, exp_signed)
TEST(log_f64, double, mg::log) TEST(log_f32, float, mg::log)
TEST(expm1_f64, double, mg::expm1) TEST(expm1_f32, float, mg::expm1)
TEST(sqrt_f64, double, mg::sqrt) TEST(sqrt_f32, float, mg::sqrt)
template <class S, class T> void powers(const T* x, T y, T* to, long n) {
    for (long i = 0; i < n; i += kLanes<T>) store<T>(to + i, mg::pow<S, T>(load(x + i), y));
}
extern "C" void pow_f64(const double* x, double y, double* to, long n) { powers<double>(x, y, to, n); }
extern "C" void pow_to_f32(const double* x, double y, double* to, long n) { powers<float>(x, y, to, n); }
extern "C" void exp_of_difference_f32(const float* a, const float* b, float* y, long n) {
    for (long i = 0; i < n; i += kLanes<float>)
        store<float>(y + i, exp_of_difference<float>(load(a + i), load(b + i)));
}
#define OF(name, S, T, f) extern "C" void name(const T* x, T* y, long n) { \\
    for (long i = 0; i < n; i += kLanes<T>) store<T>(y + i, f<S, T>(load(x + i))); }
OF(exp_to_float, float, double, exp_signed) OF(expm1_to_float, float, double, expm1_for)
OF(exp_minus_1_to_float, float, double, exp_minus_1) OF(exp_remainder_to_float, float, double, exp_remainder)
OF(exp_minus_1_f64, double, double, exp_minus_1) OF(exp_remainder_f64, double, double, exp_remainder)
OF(exp_minus_1_f32, float, float, exp_minus_1) OF(exp_remainder_f32, float, float, exp_remainder)
extern "C" void fma_f32(const float* a, const float* b, const float* c, float* y, long n) {
    for (long i = 0; i < n; i += kLanes<float>)
        store<float>(y + i, mg::fma(load(a + i), load(b + i), load(c + i)));
}
#if defined(__AVX2__)
#define IN_TWO(f) extern "C" void f(const float* x, float* high, float* low, long n) { \\
    for (long i = 0; i < n; i += kLanes<float>) { \\
        const TwoFloats y = mg::f(load(x + i)); \\
        store<float>(high + i, y.high); \\
        store<float>(low + i, y.low); \\
    } }
IN_TWO(exp_two_floats) IN_TWO(log_two_floats)
#endif
"""


def build(folder: Path, instruction_set: str) -> ctypes.CDLL | None:
    """The compiled functions, or None without a compiler."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    (folder / "harness.cpp").write_text(HARNESS)
    flags = FLAGS[instruction_set] if CAPABILITY > 1 else []
    subprocess.run(
        [compiler, "-std=c++17", "-O2", "-fPIC", "-shared", *flags, f"-I{SOURCES}", "harness.cpp", "-o", "simd.so"],
        cwd=folder,
        check=True,
    )
    return ctypes.CDLL(str(folder / "simd.so"))


def call(function: Callable[..., None], *arrays: np.ndarray) -> None:
    """Call a function with arrays of one length, a multiple of the vectors' length."""
    function(*(a.ctypes.data_as(ctypes.c_void_p) for a in arrays), ctypes.c_long(len(arrays[0])))


# argument bits of the functions' domains; a low float of exp below e^-70 would be subnormal
POSITIVE, NEGATIVE = (1, 0x7F800000), (0x80000000, 0xFF800000)
EVERY = {
    "exp_f32": (np.exp, (NEGATIVE,)),
    "exp_signed_f32": (np.exp, (POSITIVE, NEGATIVE)),
    "log_f32": (np.log, (POSITIVE,)),
    "log1p_f32": (np.log1p, (POSITIVE, (0x80000000, 0xBF800000))),
    "log1p_unit_f32": (np.log1p, ((0, 0x3F800001),)),
    "exp_two_floats": (np.exp, ((0x80000000, 0xC28C0000),)),
    "log_two_floats": (np.log, (POSITIVE,)),
}


def worst(functions: ctypes.CDLL, name: str) -> tuple[float, float]:
    """The largest error over all arguments, in ulp of the result or relative to it for two floats, and where it is."""
    exact, spans = EVERY[name]
    found, at = 0.0, 0.0
    for begin, end in spans:
        for start in range(begin, end, 1 << 22):
            bits = np.arange(start, min(end, start + (1 << 22)), dtype=np.int64).astype(np.uint32)
            x = np.pad(bits, (0, -len(bits) % 16), mode="edge").view(np.float32)
            y, low = np.empty_like(x), np.zeros_like(x)
            two = (low,) if name.endswith("two_floats") else ()
            call(getattr(functions, name), x, y, *two)
            with np.errstate(all="ignore"):
                expected = exact(x.astype(np.float64))
                unit = np.abs(expected) if two else np.spacing(np.abs(expected.astype(np.float32))).astype(np.float64)
                errors = np.abs(y.astype(np.float64) + low - expected) / unit
            errors[(y == expected) | (np.isinf(y) & (expected > np.finfo(np.float32).max))] = 0
            k = int(np.argmax(errors))
            if not errors[k] <= found:
                found, at = float(errors[k]), float(x[k])
    return found, at


def main() -> None:
    for instruction_set in list(FLAGS)[:CAPABILITY]:
        with tempfile.TemporaryDirectory() as folder:
            functions = build(Path(folder), instruction_set)
            if functions is None:
                sys.exit("there is no C++ compiler")
            for name in EVERY:
                if hasattr(functions, name):
                    error, at = worst(functions, name)
                    text = f"2^{np.log2(error):.2f}" if name.endswith("two_floats") else f"{error:.3f} ulp"
                    print(f"{instruction_set:9} {name:16} {text:>10} at {at!r}", flush=True)


if __name__ == "__main__":
    main()
