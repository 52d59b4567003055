"""A slice of the hostile files of ``benchmarks/hostile.py``, read in this process: refused or described, and no canary of theirs fires."""

import contextlib
import importlib
import io
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from mnnprep.checking import count
from mnnprep.core.messages import Wants
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.pickles import stored_tensors
from mnnprep.inspecting import read
from mnnprep.pipeline.reading import PathJob
from mnnprep.pipeline.resolve import FileJob, read_source
from mnnprep.weights import select
from mnnprep.weights.files import LocalFile
from mnnprep.weights.opcodes import PickleError

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
pytest.importorskip("h5py")
for _module in ("keras", "onnx", "paths", "pickle", "tensorflow", "weights"):
    importlib.import_module(f"hostile_{_module}")
hostile_case, hostile_pickle, watch = (importlib.import_module(f"hostile_{name}") for name in ("case", "pickle", "watch"))
ALL, Canary = hostile_case.ALL, hostile_case.Canary

CHOSEN = (
    "keras-h5/lambda/nameless-functional", "keras/lambda/os-system", "keras-h5/tfoplambda/write-file", "keras/json/odd-class-number",
    "keras-h5/hdf5/external-storage", "keras-h5/hdf5/external-link", "frozen-graph/effects/write-file", "frozen-graph/effects/read-file",
    "savedmodel/assets/absolute", "torch-module/reduce/os-system", "torch-weights/reduce/nested", "torch-weights/stream/billion-lists",
    "torch-weights/archive/twice", "exported-program/reduce/sample-inputs",
    "npz/pickle/object-array", "onnx/external-data/parent", "onnx/external-data/symlink", "onnx/graph/cyclic", "onnx/names/escapes",
    "safetensors/header/deep", "path/kind/fifo", "path/kind/pipes", "path/name/not-utf8",
)  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Any:
    made = Canary(tmp_path / "sandbox")
    made.make()
    return made


def output(canary: Any, text: str = "") -> Path:
    """The directory that the judge looks in, with what was said."""
    out = canary.root / "out"
    (out / "stdout").write_text(text, errors="backslashreplace")
    (out / "stderr").write_text("")
    return out


@pytest.mark.parametrize("name", CHOSEN)
def test_reading_a_hostile_file_fires_no_canary(name: str, canary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(canary.model)
    path = ALL[name].make(canary)
    monkeypatch.chdir(canary.root / "cwd")
    before, said = watch.snapshot(canary.root), []
    job = FileJob(path=str(path), directory=str(path.parent), weights="", wants=Wants(), trust=False, signature="", outputs=())
    for step in (lambda: read(PathJob.of(path)), lambda: count(PathJob.of(path)), lambda: read_source(job)):
        with contextlib.suppress(RefusedError, UsageError):
            said.append(repr(step()))
    call = watch.Call("read", 0)
    watch.judge(call, canary, output(canary, "\n".join(said)), before)
    assert not call.faults.keys() & {"executed", "written", "read"}, call.faults


@pytest.mark.parametrize("name", ["torch-module/protocol/plain-0", "torch-module/protocol/plain-4"])
def test_the_canary_of_a_pickle_fires_where_nobody_stands_in_its_way(name: str, canary: Any) -> None:
    path = ALL[name].make(canary)
    before = watch.snapshot(canary.root)
    pickle.loads(path.read_bytes())
    call = watch.Call("load", 0)
    watch.judge(call, canary, output(canary), before)
    assert "executed" in call.faults


def test_a_secret_in_an_output_is_found_in_any_spelling(canary: Any) -> None:
    for number, text in enumerate((canary.token.hex(), repr(canary.token), str(list(canary.token)))):
        call = watch.Call("read", 0)
        watch.judge(call, canary, output(canary, text), watch.snapshot(canary.root))
        assert ("read" in call.faults) == (number < 2)


def nested(depth: int) -> object:
    value: object = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_dictionaries_without_end_are_damage_before_their_names_are_written_out() -> None:
    with pytest.raises(PickleError, match="more than 500 deep"):
        select.entries_of(nested(1000))
    assert select.entries_of(nested(300)) == ([], [])


def test_a_pickle_whose_names_add_up_to_more_than_memory_is_damage() -> None:
    """A key of 100 KB, said once, with 3,000 tensors under it: 200 KB would become 300 MB of names."""
    stream = b"\x80\x02}(" + hostile_pickle.long("k" * 100_000) + b"}(" + hostile_pickle.long("w") + hostile_pickle.tensor() + b"q\x01"
    stream += b"".join(hostile_pickle.long(f"w{i}") + b"h\x01" for i in range(3_000)) + b"uu."
    with pytest.raises(PickleError, match="names of its tensors"):
        stored_tensors(io.BytesIO(stream))


def test_a_dictionary_that_holds_itself_many_times_is_looked_at_once() -> None:
    """20,000 times 20,000 members would take minutes."""
    stream = b"\x80\x02}q\x00(" + b"".join(hostile_pickle.long(f"k{i}") + b"h\x00" for i in range(20_000)) + b"u."
    assert stored_tensors(io.BytesIO(stream)).tensors == ()


def test_a_pipe_is_refused_before_it_is_opened(canary: Any) -> None:
    os.mkfifo(canary.model / "pipe.safetensors")
    with pytest.raises(RefusedError, match="no regular file"):
        LocalFile(canary.model / "pipe.safetensors", "pipe")
