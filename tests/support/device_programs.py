"""The two programs of a kit, as a device has them: the C++ one is built against MNN's own Python package."""

from __future__ import annotations

import atexit
import functools
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

import mnnprep.targets

HEADERS = Path(__file__).parents[1] / "data" / "mnn"
LAID_OUT_AS = "3.6."  # the versions of MNN that the headers' layouts are those of
SOURCES = Path(mnnprep.targets.__file__).parent
STRICT = ("-std=c++11", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")


def compiler() -> str:
    """The C++ compiler; the test is skipped where there is none."""
    found = shutil.which("c++") or shutil.which("g++")
    if found is None:
        pytest.skip("there is no C++ compiler")
    return found


def library_flags() -> tuple[list[str], Path]:
    """The flags that link a program with the library inside MNN's package, and that library.

    It is a module of Python's, built with the C++ library's older ABI: it needs libpython beside it. The test
    is skipped where that can't be had, or MNN is not of the version that the headers were written for.
    """
    version = importlib.metadata.version("MNN")
    if not version.startswith(LAID_OUT_AS):
        pytest.skip(f"the headers are laid out as MNN {LAID_OUT_AS}x, and MNN {version} is installed")
    engine = importlib.util.find_spec("_mnncengine")
    assert engine is not None
    assert engine.origin is not None
    library, python = Path(engine.origin), Path(sysconfig.get_config_var("LIBDIR") or "")
    shared = f"libpython{sysconfig.get_config_var('LDVERSION')}.so"
    if not (python / shared).exists():
        pytest.skip(f"MNN's library needs {shared}, which this Python does not have")
    places = ":".join(map(str, (library.parent, library.parent / "mnn.libs", python)))
    linked = ("-Wl,--no-as-needed", str(python / shared), "-Wl,--allow-shlib-undefined")
    flags = [str(library), f"-Wl,-rpath,{places}", *linked]
    return flags, library


@functools.cache
def cpp_program() -> Path:
    """The C++ program, built once in this process; :func:`library_flags` says when the test is skipped."""
    flags, _ = library_flags()
    directory = Path(tempfile.mkdtemp(prefix="mnnprep-run-"))
    atexit.register(shutil.rmtree, directory)
    program = directory / "mnnprep-run"
    source = str(SOURCES / "program" / "mnnprep_run.cpp")
    done = subprocess.run(
        [
            *(compiler(), *STRICT, "-D_GLIBCXX_USE_CXX11_ABI=0", "-I", str(HEADERS), source),
            *("-o", str(program), *flags),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return program


def command(language: str, kit: Path) -> list[str]:
    """The beginning of the command that runs *kit*'s program in *language*: ``c++`` or ``python``."""
    return [str(cpp_program())] if language == "c++" else [sys.executable, str(kit / "mnnprep_run.py")]


def run_kit(language: str, kit: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run *kit* on this device; what its program printed, and its exit code."""
    return subprocess.run(
        [*command(language, kit), str(kit), "-o", str(output), *options],
        capture_output=True,
        text=True,
        timeout=300,
    )
