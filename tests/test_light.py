"""Starting is light: frameworks stay out of the command-line process, and no module needs one to be
imported.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mnnprep

HEAVY = (
    "torch",
    "tensorflow",
    "onnxruntime",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "cv2",
    "MNN",
    "_tools",
    "_mnncengine",
    "ray",
    "matplotlib",
)
ABSENT = ("torch", "tensorflow", "cv2", "ray", "jinja2", "onnxscript", "MNN", "_tools")

REPORT = f"import sys; print('IMPORTED', *sorted(set(sys.modules) & {set(HEAVY)}))"
REPORT_NUMPY = f"import sys; print('IMPORTED', *sorted(set(sys.modules) & {{*{HEAVY}, 'numpy'}}))"
HELP = """
import sys
from mnnprep.cli.main import main
sys.argv = ['mnnprep', *sys.argv[1:]]
try:
    main()
except SystemExit as leaving:
    assert not leaving.code, leaving.code
"""
BLOCKER = f"""
import importlib, importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {ABSENT}:
            raise ModuleNotFoundError(f'{{name}} is kept away by this test', name=name)
sys.meta_path.insert(0, Absent())
"""


def run(code: str, *arguments: str) -> str:
    """The output of *code* in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def marked(mark: str, output: str) -> str:
    """The rest of the one line of *output* that begins with *mark*: what is imported may print lines of its
    own.
    """
    (line,) = [line for line in output.splitlines() if line.startswith(f"{mark} ") or line == mark]
    return line.removeprefix(mark).strip()


def imported(code: str, *arguments: str) -> list[str]:
    return marked("IMPORTED", run(code, *arguments)).split()


def commands() -> list[str]:
    """The names under "Commands:" in `mnnprep --help`."""
    _, _, listing = run(HELP, "--help").partition("Commands:")
    lines = [line for line in listing.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    return [line.split()[0] for line in lines]


def modules() -> list[str]:
    root = Path(mnnprep.__file__).parent
    return sorted(
        m.name for m in pkgutil.walk_packages([str(root)], "mnnprep.") if not m.name.endswith("__main__")
    )


@pytest.mark.parametrize("module", ["mnnprep", "mnnprep.cli", "mnnprep.cli.main"])
def test_importing_brings_no_framework(module: str) -> None:
    assert imported(f"import {module}\n{REPORT}") == []


def test_every_help_brings_neither_a_framework_nor_numpy() -> None:
    assert imported(HELP + REPORT_NUMPY, "--help") == []
    names = commands()
    assert {"prepare", "inspect", "verify", "doctor"} <= set(names)
    brought = {name: imported(HELP + REPORT_NUMPY, name, "--help") for name in names}
    assert not any(brought.values()), brought


def test_every_module_can_be_imported_without_the_frameworks() -> None:
    """One process: a module that imports a framework at its top level fails, by name.

    But for what torch.jit.script compiles: it looks its names up in its module.
    """
    code = (
        BLOCKER
        + """
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        failed[name] = str(error)
print('FAILED', failed)
"""
    )
    of_torch = {f"mnnprep.formats.torch.{name}" for name in ("attention", "parameter_trail")}
    names = [name for name in modules() if name not in of_torch]
    assert marked("FAILED", run(code, *names)) == "{}"


def test_the_blocker_blocks() -> None:
    """The test above can fail: a blocked module is not found, installed or not."""
    code = BLOCKER + "try:\n    import jinja2\nexcept ModuleNotFoundError:\n    print('blocked')\n"
    assert run(code).strip() == "blocked"


def test_no_module_hides_a_function_of_the_package() -> None:
    """Importing a submodule sets its name on the package, over the function of that name."""
    package = Path(mnnprep.__file__ or "").parent
    modules = {path.stem for path in package.iterdir()}
    assert not modules & set(mnnprep.__all__)
