"""Runs a kit's model in MNN on this device: every case's inputs in, every output out, as .npy files.

    python mnnprep_run.py KIT -o OUT [--precision high] [--memory normal] [--threads 1]

It needs numpy and MNN, nothing else, and does what the kit's C++ program does, on the CPU.

OUT must not exist. Each case runs twice: in one module that serves all cases (shared), and in a module of
its own (fresh). What MNN makes of case I goes to OUT/shared/I/J.npy and OUT/fresh/I/J.npy, J being the
output's place in kit.txt; OUT/run.txt says how it ran.

Exit codes: 0 every case ran, 1 a case failed, 2 the call is wrong, 3 the kit or OUT is unusable.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import unquote

try:
    import numpy as np
except ImportError as error:
    print(
        f"mnnprep-run: numpy can't be imported ({error}); install it with `pip install numpy`",
        file=sys.stderr,
    )
    raise SystemExit(3) from error

MODES = {"normal": 0, "high": 1, "low": 2}  # MNN's BackendConfig: PrecisionMode and MemoryMode alike
KNOWN = ("bundle", "model", "file", "layout", "hint", "input", "output", "case", "end")


class Failure(Exception):
    """What failed; one line."""


class Kit:
    """The kit in *directory*, as its ``kit.txt`` says.

    Raises:
        Failure: it is not whole, or says what this program does not know.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / "kit.txt"
        try:
            first, *lines = path.read_bytes().decode().removesuffix("\n").split("\n")
        except (OSError, ValueError) as error:
            raise Failure(f"{path} can't be read; give the directory that `mnnprep kit` wrote") from error
        if first != "mnnprep-kit 1":
            raise Failure(f"{path} begins with '{first}', not with 'mnnprep-kit 1'")
        facts: dict[str, list[str]] = {word: [] for word in KNOWN}
        for line in lines:
            word, _, rest = line.partition(" ")
            if word not in facts:
                raise Failure(f"{path} says '{word}', which this program does not know")
            facts[word].append(rest)
        if not all(facts[word] for word in ("end", "model", "layout", "output", "case")):
            raise Failure(f"{path} is not whole; copy the kit again")
        self.directory = directory
        self.bundle = "".join(facts["bundle"])
        self.model = directory / facts["model"][0]
        self.layout = facts["layout"][0]
        self.hints = [(int(mode), int(value)) for mode, _, value in (h.partition(" ") for h in facts["hint"])]
        self.inputs = [
            (layout, unquote(name)) for layout, _, name in (i.partition(" ") for i in facts["input"])
        ]
        self.outputs = [unquote(name) for name in facts["output"]]
        self.cases = facts["case"]
        for size, _, name in (f.partition(" ") for f in facts["file"]):
            _require_file(directory / name, size)


def _require_file(path: Path, size: str) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise Failure(f"{path} can't be read: {error.strerror}") from error
    if str(found) != size:
        raise Failure(f"{path} has {found} bytes, and the kit's had {size}; copy the kit again")


class Model:
    """The kit's model, loaded with the *options* of the call."""

    def __init__(self, kit: Kit, options: argparse.Namespace) -> None:
        from MNN import expr, nn

        self._expr = expr
        self._kit = kit
        config = {
            "backend": "CPU",
            "precision": MODES[options.precision],
            "memory": MODES[options.memory],
            "numThread": options.threads,
        }
        self._manager = nn.create_runtime_manager((config,))
        for mode, value in kit.hints:
            self._manager.set_hint(mode, value)
        try:
            self._module = nn.load_module_from_file(
                str(kit.model), [name for _, name in kit.inputs], kit.outputs, runtime_manager=self._manager
            )
        except SystemError as error:
            raise Failure("MNN could not load the model with these inputs and outputs") from error

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs for the inputs *arrays*, in the kit's order.

        Raises:
            Failure: MNN does not compute them.
        """
        fed = [self._fed(a, layout) for a, (layout, _) in zip(arrays, self._kit.inputs, strict=True)]
        results = self._module.forward(fed)
        if len(results) != len(self._kit.outputs):
            raise Failure(f"MNN returned {len(results)} outputs, but {len(self._kit.outputs)} were asked for")
        return [self._fetched(r) for r in results]

    def _fed(self, array: np.ndarray, layout: str) -> object:
        expr = self._expr
        written = array.astype(np.int32) if array.dtype == np.int8 else array  # MNN takes no int8: it casts
        types = {"float32": expr.float, "int32": expr.int, "uint8": expr.uint8}
        dense = expr.NHWC if layout == "NHWC" else expr.NCHW
        variable = expr.placeholder(list(array.shape), dense, types[str(written.dtype)])
        if written.size:
            variable.write(np.asarray(written, order="C"))
        if array.dtype == np.int8:
            variable = expr.cast(variable, expr.int8)
        return expr.convert(variable, expr.NC4HW4) if layout == "NC4HW4" else variable

    def _fetched(self, variable: object) -> np.ndarray:
        expr = self._expr
        if variable.data_format == expr.NC4HW4:  # type: ignore[attr-defined]
            variable = expr.convert(variable, expr.NHWC if self._kit.layout == "NHWC" else expr.NCHW)
        shape = tuple(variable.shape)  # type: ignore[attr-defined]
        if 0 in shape:  # such a variable can't be read
            types = {expr.float: "f4", expr.int: "i4", expr.uint8: "u1", expr.int8: "i1"}
            return np.zeros(shape, types[variable.dtype])  # type: ignore[attr-defined]
        return np.array(variable.read())  # type: ignore[attr-defined]


def run_all(kit: Kit, options: argparse.Namespace, output: Path, name: str) -> int:
    """Run every case in the pass *name*, ``shared`` or ``fresh``; return how many failed."""
    model: Model | None = None
    failed = 0
    for case in kit.cases:
        folder = output / name / case
        folder.mkdir(parents=True)
        try:
            if model is None or name == "fresh":
                model = None
                model = Model(kit, options)
            read = [np.load(kit.directory / "cases" / case / f"{i}.npy") for i in range(len(kit.inputs))]
            results = model.run(read)
            for place, array in enumerate(results):
                np.save(folder / f"{place}.npy", np.asarray(array, order="C"), allow_pickle=False)
            said = f"{len(results)} outputs written"
        except (Failure, OSError, SystemError, RuntimeError, ValueError, TypeError) as error:
            failed += 1
            words = " ".join(str(error).split()) or type(error).__name__
            (folder / "error.txt").write_text(words + "\n", encoding="utf-8")
            said = f"failed: {words}"
        print(f"mnnprep-run: {name} case {case}: {said}", flush=True)
    return failed


def run(options: argparse.Namespace) -> int:
    """Run the kit as the call says, and return the exit code.

    Raises:
        Failure: the kit or the directory for the outputs is unusable.
    """
    kit, output = Kit(Path(options.kit)), Path(options.output)
    try:
        import MNN
    except ImportError as error:
        raise Failure(f"MNN can't be imported ({error}); install it with `pip install MNN`") from error
    try:
        output.mkdir()
    except OSError as error:
        raise Failure(f"{output} can't be made: {error.strerror}") from error
    record = [
        "mnnprep-run 1",
        f"bundle {kit.bundle}",
        "backend cpu",
        f"precision {options.precision}",
        f"memory {options.memory}",
        f"threads {options.threads}",
        f"engine {MNN.version()}",
    ]
    with (output / "run.txt").open("w", encoding="utf-8", newline="\n") as file:
        print(*record, sep="\n", file=file, flush=True)
        failed = sum(run_all(kit, options, output, name) for name in ("shared", "fresh"))
        print("end", file=file)
    count = 2 * len(kit.cases)
    print(f"mnnprep-run: {count - failed} of {count} runs done; the outputs are in {output}")
    return 1 if failed else 0


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="mnnprep_run.py", description="Run a kit's model in MNN.")
    parser.add_argument("kit")
    parser.add_argument("-o", dest="output", required=True)
    parser.add_argument("--precision", choices=list(MODES), default="high")
    parser.add_argument("--memory", choices=list(MODES), default="normal")
    parser.add_argument("--threads", type=int, choices=range(1, 1025), metavar="N", default=1)
    options = parser.parse_args()
    try:
        return run(options)
    except Failure as failure:
        print(f"mnnprep-run: {failure}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
