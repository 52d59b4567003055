"""A slice of the hostile files of :mod:`evaluation.hostile`, read in this process: refused or described, and
no canary of theirs fires.
"""

import contextlib
import importlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from mnnprep.commands.check import count
from mnnprep.commands.consolidate import consolidate
from mnnprep.commands.consolidation import Options
from mnnprep.commands.inspect import read
from mnnprep.commands.reading import PathJob
from mnnprep.commands.resolve import FileJob, read_source
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.pickles import stored_tensors
from mnnprep.formats.sniff import identify
from mnnprep.model.messages import InputSpecs
from mnnprep.safety.beside import require_beside
from mnnprep.weights.entries import entries_of
from mnnprep.weights.files import LocalFile
from mnnprep.weights.pickle_scan import PickleError
from mnnprep.weights.safe_unpickler import load

pytest.importorskip("h5py")
MODULES = (
    "keras_files",
    "onnx_files",
    "paths",
    "hdf5",
    "pickle_files",
    "savedmodel",
    "streams",
    "tensorflow_files",
    "weights",
)
for _module in MODULES:
    importlib.import_module(f"evaluation.hostile.{_module}")
from evaluation.hostile import pickle_files, watch, weights  # noqa: E402
from evaluation.hostile.case import ALL, Canary  # noqa: E402

CHOSEN = (
    "keras-h5/lambda/nameless-functional",
    "keras/lambda/os-system",
    "keras-h5/tfoplambda/write-file",
    "keras/json/odd-class-number",
    "keras-h5/hdf5/external-storage",
    "keras-h5/hdf5/external-link",
    "frozen-graph/effects/write-file",
    "frozen-graph/effects/read-file",
    "savedmodel/assets/absolute",
    "torch-module/reduce/os-system",
    "torch-weights/reduce/nested",
    "torch-weights/stream/billion-lists",
    "torch-weights/archive/twice",
    "exported-program/reduce/sample-inputs",
    "npz/pickle/object-array",
    "onnx/external-data/parent",
    "onnx/external-data/symlink",
    "onnx/graph/cyclic",
    "onnx/names/escapes",
    "safetensors/header/deep",
    "path/kind/fifo",
    "path/kind/pipes",
    "path/name/not-utf8",
)


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
def test_reading_a_hostile_file_fires_no_canary(
    name: str, canary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(canary.model)
    path = ALL[name].make(canary)
    monkeypatch.chdir(canary.root / "cwd")
    before, said = watch.snapshot(canary.root), []
    job = FileJob(
        path=str(path),
        directory=str(path.parent),
        weights="",
        wants=InputSpecs(),
        trust=False,
        signature="",
        outputs=(),
    )
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


def test_a_pickle_whose_names_add_up_to_more_than_memory_is_damage(tmp_path: Path) -> None:
    """A key of 100 KB, said once, with 3,000 tensors under it: 200 KB would become 300 MB of names."""
    path = tmp_path / "storage"
    path.write_bytes(pickle_files.WEIGHT)
    stream = (
        b"\x80\x02}("
        + pickle_files.long("k" * 100_000)
        + b"}("
        + pickle_files.long("w")
        + pickle_files.tensor()
        + b"q\x01"
    )
    stream += b"".join(pickle_files.long(f"w{i}") + b"h\x01" for i in range(3_000)) + b"uu."
    with pytest.raises(PickleError, match="names of its tensors"):
        stored_tensors(io.BytesIO(stream))
    whole = load(io.BytesIO(stream), lambda key, element, count, view: LocalFile(path, key))
    with pytest.raises(PickleError, match="names of its tensors"):
        entries_of(whole)


def test_a_dictionary_that_holds_itself_many_times_is_looked_at_once() -> None:
    """20,000 times 20,000 members would take minutes."""
    stream = (
        b"\x80\x02}q\x00(" + b"".join(pickle_files.long(f"k{i}") + b"h\x00" for i in range(20_000)) + b"u."
    )
    assert stored_tensors(io.BytesIO(stream)).tensors == ()


def test_a_pipe_is_refused_before_it_is_opened(canary: Any) -> None:
    os.mkfifo(canary.model / "pipe.safetensors")
    with pytest.raises(RefusedError, match="not a regular file"):
        LocalFile(canary.model / "pipe.safetensors", "pipe")


def cached(root: Path) -> Path:
    """A checkpoint as a cache keeps it: the files in one directory under their hashes, links to them in
    another.
    """
    (root / "blobs").mkdir(parents=True)
    (root / "snapshots" / "1").mkdir(parents=True)
    for name, blob in (("model.safetensors.index.json", "b0"), ("model-1.safetensors", "b1")):
        os.symlink(f"../../blobs/{blob}", root / "snapshots" / "1" / name)
    weights.safetensors(root / "blobs" / "b1", {"w": weights.entry()})
    (root / "blobs" / "b0").write_text('{"weight_map": {"w": "model-1.safetensors"}}')
    return root / "snapshots" / "1"


def test_a_shard_that_is_a_link_is_read_where_the_whole_checkpoint_is_one_of_links(tmp_path: Path) -> None:
    place = cached(tmp_path)
    assert consolidate(str(place / "model.safetensors.index.json"), tmp_path / "out.safetensors", Options())
    assert consolidate(str(place), tmp_path / "other.safetensors", Options())


def test_a_shard_that_is_a_link_out_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    place = cached(tmp_path / "cache")
    (tmp_path / "own").mkdir()
    index = tmp_path / "own" / "model.safetensors.index.json"
    index.write_bytes((place / index.name).read_bytes())
    os.symlink(place / "model-1.safetensors", tmp_path / "own" / "model-1.safetensors")
    with pytest.raises(RefusedError, match="link that leads out of its directory"):
        consolidate(str(index), tmp_path / "out.safetensors", Options())
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, lambda path: os.symlink("/etc/hostname", path), lambda path: os.symlink("/dev/zero", path)],
)
def test_a_file_beside_a_model_that_is_a_pipe_or_leads_elsewhere_is_refused(
    make: Any, tmp_path: Path
) -> None:
    make(tmp_path / "model.mnn.weight")
    with pytest.raises(RefusedError, match="a file of the model is a"):
        require_beside(tmp_path / "model.mnn", [tmp_path / "model.mnn.weight"])


def test_a_saved_model_with_a_link_out_of_it_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "saved" / "assets").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    assert identify(tmp_path / "saved") == "savedmodel"
    os.symlink("/etc/hostname", tmp_path / "saved" / "assets" / "vocabulary.txt")
    with pytest.raises(RefusedError, match="link that leads out of its directory"):
        identify(tmp_path / "saved")
