"""The package as users get it: the contents of the wheel, and that it works with and without kernels."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import compile_kernels  # noqa: E402

KERNELS = Path("manual_grad", "kernels", "cpu")
KERNELS_HERE = sorted((ROOT / KERNELS).rglob("*.cpp"))
X86 = platform.machine() == "x86_64"
INSTRUCTION_SETS = ["baseline", "avx2", "avx512"] if X86 else ["baseline"]
COMPILER = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MANUAL_GRAD", "PYTHON", "ATEN"))}
    return subprocess.run([*map(str, command)], cwd=cwd, env=kept | environment, capture_output=True, text=True)


def build(tree: Path, what: str = "wheel", **environment: str) -> Path:
    """Call the build back end as pip does in a prepared environment; the result is in ``tree/dist``."""
    program = f"from setuptools import build_meta; print(build_meta.build_{what}('dist'))"
    done = run(sys.executable, "-c", program, cwd=tree, **environment)
    assert done.returncode == 0, done.stderr
    return tree / "dist" / done.stdout.splitlines()[-1]


def copy_sources(to: Path) -> Path:
    for name in ("manual_grad", "gradcheck", "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "not_built.txt"))
    for name in ("pyproject.toml", "setup.py", "compile_kernels.py", "dev.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to)
    return to


def not_optimized(tree: Path) -> Path:
    """These sources, which now compile in a fraction of the time."""
    script = tree / "compile_kernels.py"
    text = script.read_text(encoding="utf-8")
    assert " -O3 " in text
    script.write_text(text.replace(" -O3 ", " -O0 "), encoding="utf-8")
    return tree


def unpack(wheel: Path, to: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(to)
    return to


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with kernels for every instruction set."""
    tree = not_optimized(copy_sources(tmp_path_factory.mktemp("source")))
    return build(tree, MANUAL_GRAD_REQUIRE_KERNELS="1")


@pytest.fixture
def fake_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake compiler that logs its arguments and writes an empty output. It uses its own cache of objects."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = tmp_path / "fake-c++"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> "{tmp_path}/log"\n'
        'while [ $# -gt 0 ]; do if [ "$1" = -o ]; then : > "$2"; fi; shift; done\n'
    )
    script.chmod(0o755)
    return script


HUBER = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from manual_grad import kernels
from manual_grad.losses.pointwise.huber_loss import huber_loss

assert kernels.__file__.startswith(sys.argv[1]), kernels.__file__
print(kernels.show_config())
assert (kernels.op("huber_loss") is not None) == (sys.argv[2] == "kernels")
generator = torch.Generator().manual_seed(0)
for dtype in (torch.float32, torch.float64):
    x, t = (torch.randn(1000, 7, generator=generator, dtype=dtype).mul(2) for _ in range(2))
    results = []
    for loss in (huber_loss, torch.nn.functional.huber_loss):
        leaf = x.clone().requires_grad_()
        value = loss(leaf, t, reduction="sum", delta=1.5)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*results)
"""


def huber(site: Path, cwd: Path, expected: str, **environment: str) -> str:
    """Run the Huber loss of the package in ``site``, and return its ``show_config()``."""
    done = run(sys.executable, "-I", "-c", HUBER, site, expected, cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_compiler
def test_wheel_serves_every_python_and_holds_kernels_and_sources(wheel: Path) -> None:
    assert re.fullmatch(r"manual_grad-[\d.]+-py3-none-(linux|macosx)_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        tags = archive.read(next(name for name in names if name.endswith("/WHEEL"))).decode()
    assert "Root-Is-Purelib: false" in tags
    folder = KERNELS.as_posix()
    assert {n for n in names if n.endswith(".so")} == {f"{folder}/manual_grad_{i}.so" for i in INSTRUCTION_SETS}
    sources = {p.relative_to(ROOT).as_posix() for n in ("manual_grad", "gradcheck") for p in (ROOT / n).rglob("*.py")}
    sources |= {f"{folder}/{p.name}" for p in (ROOT / KERNELS).iterdir() if p.suffix in (".cpp", ".h")}
    study = ROOT / "manual_grad" / "study"
    texts = {p.relative_to(ROOT).as_posix() for p in (*study.glob("guides/*.md"), *study.glob("lessons/*.rst"))}
    assert len(texts) > 60
    assert names >= sources | texts | {"manual_grad/py.typed"}
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"manual_grad", "gradcheck"}


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files")
def test_kernels_export_one_function_and_know_nothing_of_python(wheel: Path, tmp_path: Path) -> None:
    for library in (unpack(wheel, tmp_path) / KERNELS).glob("*.so"):
        exported = run("nm", "-D", "--defined-only", library, cwd=tmp_path).stdout.split()[2::3]
        assert exported == ["manual_grad_register"]
        needed = run("nm", "-D", "--undefined-only", library, cwd=tmp_path).stdout
        assert "torch_library_impl" in needed
        assert not re.search(r"\b_?Py[A-Z_]", needed)


@needs_compiler
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_installed_kernels_run(isa: str, wheel: Path, tmp_path: Path) -> None:
    capability = {"baseline": "default"}.get(isa, isa)
    levels = ["DEFAULT", "AVX2", "AVX512"]
    if X86 and levels.index(capability.upper()) > levels.index(torch.backends.cpu.get_cpu_capability()):
        pytest.skip(f"this processor has no {isa}")
    site = unpack(wheel, tmp_path / "site")
    assert f"CPU kernels  {isa} " in huber(site, tmp_path, "kernels", ATEN_CPU_CAPABILITY=capability)


@needs_compiler
def test_kernels_can_be_switched_off(wheel: Path, tmp_path: Path) -> None:
    site = unpack(wheel, tmp_path / "site")
    assert "switched off by MANUAL_GRAD_KERNELS=0" in huber(site, tmp_path, "formulas", MANUAL_GRAD_KERNELS="0")


def test_without_compiler_losses_run_from_their_formulas(tmp_path: Path) -> None:
    wheel = build(copy_sources(tmp_path), PATH="", CXX="")
    assert wheel.name.endswith("-py3-none-any.whl")
    config = huber(unpack(wheel, tmp_path / "site"), tmp_path, "formulas")
    reason = "no C++ compiler was found (looked for c++, g++, clang++); install a C++17 compiler"
    assert f"CPU kernels  none, losses run from their formulas: {reason}" in config


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/c++ -O3", "no C++ compiler was found (looked for /nowhere/c++ -O3)"),
        ("false", "false failed: status 1"),
    ],
)
def test_wheel_tells_why_it_has_no_kernels(compiler: str, reason: str, tmp_path: Path) -> None:
    tree = copy_sources(tmp_path)
    leftover = tree / "build" / "lib" / KERNELS / "manual_grad_baseline.so"  # left by an earlier build with a compiler
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    site = unpack(build(tree, CXX=compiler), tmp_path / "site")
    assert not list(site.rglob("*.so"))
    assert (site / KERNELS / "not_built.txt").read_text(encoding="utf-8") == f"{reason}\n"


def test_gradcheck_is_a_distribution_of_its_own(tmp_path: Path) -> None:
    """It checks a function, and knows nothing of manual_grad."""
    tree = tmp_path / "gradcheck"
    shutil.copytree(ROOT / "gradcheck", tree, ignore=shutil.ignore_patterns("__pycache__"))
    site = unpack(build(tree), tmp_path / "site")
    program = (
        "import sys, torch, gradcheck; print(gradcheck.__file__); "
        "assert gradcheck.check(torch.sigmoid, torch.sigmoid, {'x': (3, 4)}); "
        "assert not any(name.startswith('manual_grad.') for name in sys.modules)"
    )
    done = run(sys.executable, "-c", program, cwd=site)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(site)
    assert "gradcheck.pytest_plugin" in (site / "gradcheck-0.1.0.dist-info" / "entry_points.txt").read_text()


def test_kernels_can_be_required(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no C\+\+ compiler was found"):
        build(copy_sources(tmp_path), CXX="/nowhere/c++", MANUAL_GRAD_REQUIRE_KERNELS="1")


def test_only_what_changed_is_compiled_again(fake_compiler: Path, tmp_path: Path) -> None:
    tree = copy_sources(tmp_path)
    sources = sorted(path.name for path in (tree / KERNELS).rglob("*.cpp"))

    def compiled() -> list[str]:
        (tmp_path / "log").write_text("")
        build(tree, CXX=str(fake_compiler))
        return sorted(re.findall(r" -c \S+/(\w+\.cpp) ", (tmp_path / "log").read_text(encoding="utf-8")))

    def append_to(name: str) -> None:
        with (tree / KERNELS / name).open("a") as file:
            file.write("// changed\n")

    everything = sorted(sources * len(INSTRUCTION_SETS))
    assert compiled() == everything
    assert compiled() == []
    append_to("library.cpp")
    assert compiled() == ["library.cpp"] * len(INSTRUCTION_SETS)
    append_to("abi.h")
    assert compiled() == everything
    shutil.rmtree(tree / "build")
    assert compiled() == []  # the cache of objects is the user's, shared by all clones
    append_to("pairwise.h")
    assert compiled() == sorted(["cosine.cpp", "triplet.cpp"] * len(INSTRUCTION_SETS))


def test_a_compiler_need_not_know_every_flag(fake_compiler: Path, tmp_path: Path) -> None:
    refuses = "#!/bin/sh\ncase \"$*\" in *-fsched*) echo 'error: unknown argument' >&2; exit 1;; esac\n"
    fake_compiler.write_text(fake_compiler.read_text().replace("#!/bin/sh\n", refuses))
    tree = copy_sources(tmp_path)
    program = [sys.executable, "compile_kernels.py"]
    done = run(*program, cwd=tree, CXX=str(fake_compiler), MANUAL_GRAD_INSTRUCTION_SETS="baseline")
    assert (tree / KERNELS / "manual_grad_baseline.so").exists()
    assert done.returncode == 0 and "error" not in done.stderr
    compiled = (tmp_path / "log").read_text(encoding="utf-8")
    assert "-include" in compiled and "-fsched" not in compiled


def test_editable_install_builds_into_the_source_tree(fake_compiler: Path, tmp_path: Path) -> None:
    tree = copy_sources(tmp_path)

    def built(**environment: str) -> set[str]:
        build(tree, "editable", CXX=str(fake_compiler), **environment)
        return {path.stem.removeprefix("manual_grad_") for path in (tree / KERNELS).glob("*.so")}

    assert built(MANUAL_GRAD_INSTRUCTION_SETS="all") == set(INSTRUCTION_SETS)
    assert built(MANUAL_GRAD_INSTRUCTION_SETS="baseline") == {"baseline"}
    assert built(ATEN_CPU_CAPABILITY="default") == {"baseline"}
    if sys.platform == "linux":  # without torch, the build selects the set that the installed torch chooses
        best = {"AVX512": "avx512", "AVX2": "avx2"}.get(capability_of_processor(), "baseline")
        assert built() == {best}


def capability_of_processor() -> str:
    program = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    return run(sys.executable, "-c", program, cwd=ROOT).stdout.strip()


@needs_compiler
def test_config_tells_that_the_set_torch_chooses_is_not_built(tmp_path: Path) -> None:
    tree = not_optimized(copy_sources(tmp_path))
    build(tree, "editable", MANUAL_GRAD_INSTRUCTION_SETS="baseline", MANUAL_GRAD_REQUIRE_KERNELS="1")
    library = tree / KERNELS / "manual_grad_baseline.so"
    library.rename(library.with_name("manual_grad_later.so"))  # a set that torch does not choose
    config = huber(tree, tmp_path, "formulas", ATEN_CPU_CAPABILITY="default")
    assert "none, losses run from their formulas: torch chooses baseline here, and only later is built;" in config


def test_unknown_instruction_set_is_refused(fake_compiler: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="MANUAL_GRAD_INSTRUCTION_SETS: no 'avx3' here; there are native, all"):
        build(copy_sources(tmp_path), CXX=str(fake_compiler), MANUAL_GRAD_INSTRUCTION_SETS="avx3")


@pytest.mark.parametrize("home", ["missing", "read-only"])
def test_objects_are_kept_in_the_tree_where_there_is_no_home(
    home: str, fake_compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = copy_sources(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    folder = tmp_path / "home"
    if home == "read-only":  # even root cannot create a folder below a file
        folder.mkdir()
        for name in (".cache", "Library"):
            Path(folder, name).touch()
    build(tree, CXX=str(fake_compiler), HOME=str(folder))
    assert len(list((tree / "build" / "kernels").glob("*.o"))) == len(INSTRUCTION_SETS) * len(KERNELS_HERE)


def test_objects_used_longest_ago_are_evicted(tmp_path: Path) -> None:
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    compile_kernels.evict(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_builds_at_the_same_time_compile_everything_once(fake_compiler: Path, tmp_path: Path) -> None:
    trees = [copy_sources(tmp_path / name) for name in ("one", "two")]
    command = [sys.executable, "compile_kernels.py"]
    environment = {**os.environ, "CXX": str(fake_compiler), "MANUAL_GRAD_INSTRUCTION_SETS": "baseline"}
    builds = [subprocess.Popen(command, cwd=tree, env=environment, stderr=subprocess.PIPE, text=True) for tree in trees]
    told = [process.communicate()[1] for process in builds]
    assert [process.returncode for process in builds] == [0, 0], told
    compiled = re.findall(r" -c \S+/(\w+\.cpp) ", (tmp_path / "log").read_text(encoding="utf-8"))
    assert sorted(compiled) == sorted(path.name for path in KERNELS_HERE)
    assert any(f"{len(compiled)}/{len(compiled)} " in text for text in told)  # and the progress is shown


def test_compiler_and_system_headers_belong_to_the_name_of_an_object(tmp_path: Path) -> None:
    for line in ("changed", "changed again"):
        (tmp_path / line).mkdir()
        script = tmp_path / line / "c++"
        script.write_text(f"#!/bin/sh\necho '{line}'\n")
        script.chmod(0o755)
    names = [compile_kernels.identify([str(tmp_path / line / "c++")], "") for line in ("changed", "changed again")]
    assert names == [b"changed\n", b"changed again\n"]


def test_wheel_can_be_built_from_sdist(fake_compiler: Path, tmp_path: Path) -> None:
    sdist = build(copy_sources(tmp_path), "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (tree,) = (tmp_path / "unpacked").iterdir()
    assert {"dev.py", "tests", "LICENSE", "README.md"} <= {path.name for path in tree.iterdir()}
    assert (tree / "tests" / Path(__file__).name).exists()
    wheel = build(tree, CXX=str(fake_compiler), MANUAL_GRAD_REQUIRE_KERNELS="1")
    assert not wheel.name.endswith("-any.whl")


# The kernels declare torch's C functions themselves, in abi.h. Compiled with torch's own declarations, a wrong one is
# an error, and so is one that torch 2.10 lacks.
BESIDE_TORCH = """
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/core/ScalarType.h>
{names_known_to_torch}
#include "abi.h"
#define SAME(ours, torchs) static_assert(static_cast<int>(mg::Dtype::ours) == static_cast<int>(c10::ScalarType::torchs))
SAME(u8, Byte); SAME(i32, Int); SAME(i64, Long); SAME(f16, Half); SAME(f32, Float); SAME(f64, Double);
SAME(bf16, BFloat16);
"""


def compile_beside_torch(abi: str, folder: Path) -> subprocess.CompletedProcess[str]:
    names = re.findall(r"AOTITorchError (\w+)\(", abi)
    assert len(names) > 10
    known = "\n".join(f"using known_{name} = decltype({name});" for name in names)
    (folder / "abi.h").write_text(abi)
    (folder / "beside_torch.cpp").write_text(BESIDE_TORCH.format(names_known_to_torch=known))
    include = Path(torch.__file__).parent / "include"
    flags = ["-std=c++17", "-fsyntax-only", "-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{include}"]
    return run(*str(COMPILER).split(), *flags, "beside_torch.cpp", cwd=folder)


@needs_compiler
def test_abi_is_the_one_that_torch_declares(tmp_path: Path) -> None:
    done = compile_beside_torch((ROOT / KERNELS / "abi.h").read_text(encoding="utf-8"), tmp_path)
    assert done.returncode == 0, done.stderr


@needs_compiler
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("torch_get_num_threads(uint32_t* out)", "torch_get_num_threads(uint64_t* out)", "conflicting"),
        ("aoti_torch_get_numel(", "aoti_torch_get_number_of_elements(", "aoti_torch_get_number_of_elements"),
        ("bf16 = 15", "bf16 = 14", "static assertion failed"),
    ],
)
def test_wrong_abi_is_found(right: str, wrong: str, message: str, tmp_path: Path) -> None:
    abi = (ROOT / KERNELS / "abi.h").read_text(encoding="utf-8")
    assert right in abi
    done = compile_beside_torch(abi.replace(right, wrong), tmp_path)
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("missing", ["mpmath", "numpy", "scipy"])
def test_gradcheck_names_the_extra_that_is_missing(missing: str, tmp_path: Path) -> None:
    module = tmp_path / f"{missing}.py"
    module.write_text(f"raise ModuleNotFoundError(\"No module named '{missing}'\", name='{missing}')\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    told = f"gradcheck needs {missing}: pip install 'manual_grad[gradcheck]'"
    done = run(sys.executable, "-W", "ignore", "-m", "gradcheck", cwd=tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (1, f"{told}\n")
    done = run(sys.executable, "-W", "ignore", "-c", "from gradcheck import check", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stderr.endswith(f"ImportError: {told}\n")
