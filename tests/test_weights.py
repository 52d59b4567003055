"""Weights of every layout into a model, nothing of them executed, and every way in which they don't fit."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from evaluation.nets.real_models import fetch  # noqa: E402
from mnnprep.errors import RefusedError, UsageError  # noqa: E402
from mnnprep.weights import safe_unpickler  # noqa: E402
from mnnprep.weights.apply import load_into  # noqa: E402
from mnnprep.weights.read import read_state  # noqa: E402
from mnnprep.weights.safe_unpickler import Foreign  # noqa: E402
from support import nets  # noqa: E402


class Net(nn.Module):
    """A convolution, a norm and a linear layer: parameters, buffers and a counter."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 2)
        self.register_buffer("window", torch.ones(3), persistent=False)


def net(seed: int = 0, **options: Any) -> Net:
    torch.manual_seed(seed)
    module = Net(**options)
    with torch.no_grad():
        module.norm.running_mean.normal_()
        module.norm.num_batches_tracked.fill_(seed + 3)
    return module


def saved(path: Path, content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def assert_same(module: nn.Module, tensors: Any) -> None:
    state = module.state_dict()
    assert list(state) == list(tensors)
    for name, value in state.items():
        assert value.dtype == tensors[name].dtype
        assert torch.equal(value, tensors[name]), name


@pytest.fixture
def trained() -> dict[str, Any]:
    return net(seed=1).state_dict()


# ------------------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors", "zip-compressed", "zip-protocol-4"])
def test_reads_a_single_file(tmp_path: Path, trained: dict[str, Any], layout: str) -> None:
    path = tmp_path / "weights.bin"  # the bytes decide, not the suffix
    if layout == "safetensors":
        save_file(trained, path)
    elif layout == "zip-compressed":
        plain = saved(tmp_path / "plain.pt", trained)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for record in source.infolist():
                target.writestr(record.filename, source.read(record))
    elif layout == "zip-protocol-4":
        torch.save(trained, path, pickle_protocol=4)
    else:
        saved(path, trained, legacy=layout == "legacy")
    module = net()
    assert load_into(module, path) == []
    assert_same(module, trained)


def _shards(directory: Path, tensors: dict[str, Any], form: str) -> Path:
    """Two shards with an index, as transformers writes them."""
    names = list(tensors)
    stem, suffix = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    weight_map = {}
    for i, part in enumerate((names[:3], names[3:]), 1):
        file = f"{stem}-{i:05}-of-00002.{suffix}"
        content = {name: tensors[name].clone() for name in part}
        if form == "safetensors":
            save_file(content, directory / file)
        else:
            saved(directory / file, content)
        weight_map.update(dict.fromkeys(part, file))
    index = directory / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_reads_shards_by_index_or_directory(tmp_path: Path, trained: dict[str, Any], form: str) -> None:
    index = _shards(tmp_path, trained, form)
    for path in (index, tmp_path):
        module = net()
        assert load_into(module, path) == ["read from 2 shards"]
        assert_same(module, trained)


def test_a_directory_with_a_training_state_beside_the_weights(
    tmp_path: Path, trained: dict[str, Any]
) -> None:
    saved(tmp_path / "pytorch_model.bin", trained)
    saved(tmp_path / "optimizer.pt", {"state": {0: {"exp_avg": torch.ones(3)}}})
    module = net()
    load_into(module, tmp_path)
    assert_same(module, trained)


def test_a_directory_that_leaves_the_file_open(tmp_path: Path, trained: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="does not contain weights"):
        read_state(tmp_path)
    saved(tmp_path / "a.pt", trained)
    assert read_state(tmp_path).tensors.keys() == trained.keys()
    saved(tmp_path / "b.pt", trained)
    with pytest.raises(UsageError, match=r"a\.pt, b\.pt"):
        read_state(tmp_path)


def test_shard_errors(tmp_path: Path, trained: dict[str, Any]) -> None:
    index = _shards(tmp_path, trained, "safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]

    def refused(changed: Any, match: str) -> None:
        index.write_text(json.dumps(changed))
        with pytest.raises(RefusedError, match=match):
            read_state(index)

    refused(
        {"weight_map": weight_map | {"absent.weight": "model-00001-of-00002.safetensors"}},
        r"lacks 1 of the tensors[^$]*absent\.weight",
    )
    refused(
        {"weight_map": weight_map | {"x": "model-00003-of-00003.safetensors"}}, "1 of 3 shards are missing"
    )
    refused({"weight_map": {"x": "../outside.safetensors"}}, "can't be its shard")
    refused({"weight_map": {"x": "/etc/passwd"}}, "can't be its shard")
    refused({"weight_map": {"x": index.name}}, "can't be its shard")
    refused({"weight_map": {}}, "names no shards")
    refused({"weight_map": {"x": 3}}, "names no shards")
    refused([], "not the index")
    index.write_text("<html>")
    with pytest.raises(RefusedError, match="not the index"):
        read_state(index)


def test_entries_of_a_shard_that_the_index_does_not_name_are_left_out(
    tmp_path: Path, trained: dict[str, Any]
) -> None:
    index = _shards(tmp_path, trained, "safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    del weight_map["conv.weight"]
    index.write_text(json.dumps({"weight_map": weight_map}))
    state = read_state(index)
    assert "conv.weight" not in state.tensors
    assert "1 entries of the shards are not in the index and were left out" in state.origin


def test_views_of_one_storage_and_other_dtypes(tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    content = {
        "view": whole[1:3, ::2],
        "transposed": whole.T,
        "half": whole.half(),
        "bfloat": whole.bfloat16(),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 5),
        "mask": whole > 3,
        "complex": torch.complex(whole, whole),
        "unsigned": torch.arange(5).to(torch.uint16),
        "parameter": nn.Parameter(whole.clone()),
        "float8": whole.to(torch.float8_e4m3fn),
    }
    for legacy in (False, True):
        found = read_state(saved(tmp_path / "c.pt", content, legacy=legacy)).tensors
        assert list(found) == list(content)
        for name, value in content.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name].to(torch.complex64), value.detach().to(torch.complex64)), name
            assert not found[name].requires_grad


def test_the_file_is_not_changed_by_writing_to_a_mapped_tensor(
    tmp_path: Path, trained: dict[str, Any]
) -> None:
    path = saved(tmp_path / "c.pt", trained)
    before = path.read_bytes()
    read_state(path).tensors["conv.weight"].zero_()
    assert path.read_bytes() == before


def test_the_variable_that_forces_weights_only_is_respected_and_kept(
    tmp_path: Path, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    assert read_state(saved(tmp_path / "c.pt", trained)).tensors.keys() == trained.keys()
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"


# ----------------------------------------------------------------------------- files that are none


def test_what_is_no_checkpoint(tmp_path: Path, trained: dict[str, Any]) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(UsageError, match="do not exist"):
        read_state(path)
    for content in (
        b"",
        b"<!DOCTYPE html><html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x08\x07\x12\x07pytorch" * 9,
    ):
        path.write_bytes(content)
        with pytest.raises(RefusedError, match="not a checkpoint of a known layout"):
            read_state(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(RefusedError, match="can't be read"):
        read_state(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "")
    with pytest.raises(RefusedError, match=r"not written by torch\.save"):
        read_state(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(RefusedError, match="layout"):
        read_state(path)
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("sys_info"))
    with pytest.raises(RefusedError, match="tar archive"):
        read_state(path)
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(RefusedError, match="TorchScript"):
        read_state(path)


@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors"])
def test_truncated_anywhere(tmp_path: Path, trained: dict[str, Any], layout: str) -> None:
    path = tmp_path / "weights.pt"
    if layout == "safetensors":
        save_file(trained, path)
    else:
        saved(path, trained, legacy=layout == "legacy")
    whole = path.read_bytes()
    for keep in [*range(1, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:keep])
        with pytest.raises(RefusedError) as caught:
            read_state(path)
        assert caught.value.seen
        assert caught.value.next


def test_no_weights_in_it(tmp_path: Path) -> None:
    for content in ({}, {"epoch": 3}, [1, 2], 7, None, {"optimizer": {"state": {}}}):
        with pytest.raises(RefusedError, match="does not contain weights"):
            read_state(saved(tmp_path / "c.pt", content))


# ----------------------------------------------------------------------------------------- safety


class Call:
    """Pickles as a call of *function* with *arguments*."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_a_command(tmp_path: Path, trained: dict[str, Any], legacy: bool) -> None:
    witness = tmp_path / "executed"
    pickle.loads(pickle.dumps(Call(open, str(witness), "w")))
    witness.unlink()  # so this is how one looks that is executed
    attacks = [
        Call(os.system, f"touch {witness}"),
        Call(eval, f"open({str(witness)!r}, 'w')"),
        Call(exec, f"open({str(witness)!r}, 'w')"),
        Call(open, str(witness), "w"),
        Call(torch.save, {}, str(witness)),
        Call(torch.hub.load_state_dict_from_url, "file:///etc/passwd"),
        Call(list, Call(map, os.system, [f"touch {witness}"])),
        Call(io.FileIO, str(witness), "w"),
    ]
    path = saved(tmp_path / "c.pt", {"attacks": attacks, "state_dict": trained}, legacy=legacy)
    module = net()
    notes = load_into(module, path)
    assert_same(module, trained)
    assert not witness.exists()
    assert any("importing and running nothing" in note and "exec" in note for note in notes)
    with pytest.raises(RefusedError) as caught:
        read_state(saved(tmp_path / "d.pt", attacks[0], legacy=legacy))
    assert "posix.system" in str(caught.value) or "nt.system" in str(caught.value)
    assert not witness.exists()


def _unpickle(program: bytes) -> Any:
    return safe_unpickler.load(io.BytesIO(program))


def test_every_way_to_make_or_change_an_object_is_inert() -> None:
    assert isinstance(_unpickle(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00exit\x85R."), Foreign)  # REDUCE
    assert isinstance(_unpickle(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00exit\x85\x81."), Foreign)  # NEWOBJ
    assert isinstance(_unpickle(b"(S'exit'\nios\nsystem\n."), Foreign)  # INST
    assert isinstance(_unpickle(b"(cos\nsystem\nS'exit'\no."), Foreign)  # OBJ
    assert isinstance(
        _unpickle(b"\x80\x04\x8c\x02os\x8c\x0bpath.exists\x93)R."), Foreign
    )  # STACK_GLOBAL, dotted
    program = b"\x80\x02cconfig\nNode\n)\x81}X\x01\x00\x00\x00aK\x01sb."  # NEWOBJ, BUILD
    assert _unpickle(program).state == {"a": 1}
    chained = _unpickle(b"\x80\x02cbuiltins\ngetattr\nK\x01K\x02\x86R)R.")  # a call of what a call gave
    assert isinstance(chained, Foreign)


@pytest.mark.parametrize(
    "target",
    [
        "torch._utils\n_rebuild_tensor_v2",
        "collections\nOrderedDict",
        "torch\nSize",
        "torch\nUntypedStorage",
        "os\nsystem",
    ],
)
def test_a_pickle_cannot_change_what_an_allowed_name_stands_for(target: str) -> None:
    attributes = b"}X\x0c\x00\x00\x00dump_patchesK\x01s"
    program = (
        b"\x80\x02c" + target.encode() + b"\nN" + attributes + b"\x86b."
    )  # BUILD with (None, {"dump_patches": 1}) on a class
    before = (
        dict(vars(torch._utils._rebuild_tensor_v2)),
        torch.Size.__dict__.keys(),
        torch.UntypedStorage.__dict__.keys(),
    )
    with contextlib.suppress(pickle.UnpicklingError, TypeError, AttributeError):
        assert not getattr(_unpickle(program), "dump_patches", False)
    assert (
        dict(vars(torch._utils._rebuild_tensor_v2)),
        torch.Size.__dict__.keys(),
        torch.UntypedStorage.__dict__.keys(),
    ) == before
    assert not hasattr(Foreign, "dump_patches")


def test_storages_that_lie_about_their_size(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.pt", {"a": torch.ones(4), "b": torch.zeros(64)})
    path = tmp_path / "lying.pt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            data = source.read(record)
            if record.filename.endswith("data.pkl"):
                assert data.count(b"K\x04t") == 1  # the number of elements ends the persistent id of "a"
                data = data.replace(b"K\x04t", b"K\x20t")
            target.writestr(record.filename, data)
    with pytest.raises(RefusedError, match="claims 128 bytes; its record holds 16"):
        read_state(path)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (4, (1,), (1,)), (-1, (1,), (1,)), (0, (2, 2), (3, 1)), (0, (2,), (-1,))],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_beyond_its_storage(
    tmp_path: Path, legacy: bool, offset: int, size: Any, stride: Any
) -> None:
    storage = torch.ones(4).storage()
    path = saved(
        tmp_path / "c.pt",
        {"a": Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())},
        legacy=legacy,
    )
    with pytest.raises(RefusedError, match=r"a tensor of shape"):
        read_state(path)


def test_objects_beside_the_weights_are_read_past(tmp_path: Path, trained: dict[str, Any]) -> None:
    numpy = pytest.importorskip("numpy")
    beside = {
        "args": argparse.Namespace(lr=0.1, layers=[1, 2]),
        "score": numpy.float64(0.5),
        "history": numpy.arange(3),
        "counts": collections.Counter("abca"),
        "groups": collections.defaultdict(list, {"a": [1]}),
        "where": Path("somewhere"),
        "scheduler": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], 0.1), 1).state_dict(),
        "kind": torch.float16,
        "device": torch.device("cpu"),
        "shape": torch.Size([1, 2]),
    }
    for legacy in (False, True):
        module = net()
        notes = load_into(
            module, saved(tmp_path / "c.ckpt", {**beside, "state_dict": trained}, legacy=legacy)
        )
        assert_same(module, trained)
        assert "taken from ['state_dict']" in notes
        assert any("argparse.Namespace" in note for note in notes)


def test_a_subclass_of_dict_that_is_not_imported_still_gives_its_items(
    tmp_path: Path, trained: dict[str, Any]
) -> None:
    module = net()
    load_into(module, saved(tmp_path / "c.pt", {"net": AttributeDict(trained)}))
    assert_same(module, trained)


class AttributeDict(dict):  # type: ignore[type-arg]
    """As Lightning's."""


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_a_whole_pickled_module_is_refused_with_what_it_would_import(
    tmp_path: Path, legacy: bool, nested: bool
) -> None:
    module = net()
    path = saved(
        tmp_path / "whole.pt",
        {"model": module, "optimizer": {"state": [torch.ones(3)]}} if nested else module,
        legacy=legacy,
    )
    with pytest.raises(RefusedError) as caught:
        load_into(net(), path)
    assert f"class {__name__}.Net" in caught.value.what
    assert "torch.nn.modules.conv.Conv2d" in caught.value.seen
    assert "--trust" in caught.value.next


def test_a_pickle_that_holds_itself(tmp_path: Path, trained: dict[str, Any]) -> None:
    content: dict[str, Any] = {"state_dict": trained}
    content["self"] = [content]
    module = net()
    load_into(module, saved(tmp_path / "c.pt", content))
    assert_same(module, trained)


# ------------------------------------------------------------------------------ finding the weights


def _renamed(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in tensors.items()}


@pytest.mark.parametrize(
    "key",
    [
        "state_dict",
        "model",
        "model_state_dict",
        "module",
        "ema",
        "params",
        "params_ema",
        "net",
        "network",
        "weights",
        "generator",
        "anything",
    ],
)
def test_nested_under_any_key(tmp_path: Path, trained: dict[str, Any], key: str) -> None:
    module = net()
    content = {
        key: trained,
        "epoch": 3,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 3, 3, 3)}}, "param_groups": [{"lr": 0.1}]},
    }
    notes = load_into(module, saved(tmp_path / "c.pt", content))
    assert_same(module, trained)
    assert f"taken from ['{key}']" in notes
    assert "1 other tensors of the checkpoint left out" in notes


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.model.", "encoder.backbone."]
)
def test_prefixes_are_stripped(tmp_path: Path, trained: dict[str, Any], prefix: str) -> None:
    module = net()
    assert load_into(module, saved(tmp_path / "c.pt", _renamed(trained, prefix))) == [
        f"prefix {prefix!r} stripped"
    ]
    assert_same(module, trained)


def test_a_prefix_that_the_model_has_is_kept(tmp_path: Path, trained: dict[str, Any]) -> None:
    module = nn.Module()
    module.model = net()
    assert load_into(module, saved(tmp_path / "c.pt", _renamed(trained, "model."))) == []
    assert_same(module.model, trained)


def test_wrappers_inside_the_names_on_either_side(tmp_path: Path, trained: dict[str, Any]) -> None:
    inside = {
        name.replace("conv.", "conv._orig_mod.").replace("fc.", "fc.module."): value
        for name, value in trained.items()
    }
    module = net()
    notes = load_into(module, saved(tmp_path / "c.pt", inside))
    assert_same(module, trained)
    assert "names of wrappers stripped: _orig_mod, module" in notes
    wrapped = nn.DataParallel(net())
    load_into(wrapped, saved(tmp_path / "c.pt", trained))
    assert_same(wrapped.module, trained)


def test_one_of_several_nets_in_one_state_dict(tmp_path: Path, trained: dict[str, Any]) -> None:
    lightning = {
        "pytorch-lightning_version": "2.1.0",
        "state_dict": _renamed(trained, "generator.")
        | {"discriminator.conv.weight": torch.ones(8, 3, 3, 3), "loss.weight": torch.ones(2)},
        "hyper_parameters": {"lr": 0.1},
    }
    module = net()
    notes = load_into(module, saved(tmp_path / "c.ckpt", lightning))
    assert_same(module, trained)
    assert notes == [
        "taken from ['state_dict']",
        "prefix 'generator.' stripped",
        "2 other tensors of the checkpoint left out",
    ]


def test_parts_saved_in_dictionaries_of_their_own(tmp_path: Path, trained: dict[str, Any]) -> None:
    content: dict[str, Any] = {"conv": {}, "norm": {}, "fc": {}, "optimizer": {"exp_avg": torch.ones(1)}}
    for name, value in trained.items():
        part, _, rest = name.partition(".")
        content[part][rest] = value
    module = net()
    load_into(module, saved(tmp_path / "c.pt", content))
    assert_same(module, trained)


def test_raw_weights_go_before_averaged_ones(tmp_path: Path, trained: dict[str, Any]) -> None:
    averaged = net(seed=2).state_dict()
    for content in (
        {"params_ema": averaged, "params": trained},
        {"model": trained, "model_ema": _renamed(averaged, "module.")},
    ):
        module = net()
        notes = load_into(module, saved(tmp_path / "c.pt", content))
        assert_same(module, trained)
        assert any("averaged ones that fit as well left out" in note and "ema" in note for note in notes)
    module = net()
    assert "these are averaged weights (EMA)" in load_into(
        module, saved(tmp_path / "c.pt", {"params_ema": averaged})
    )
    assert_same(module, averaged)


def test_several_that_fit_equally_well_are_ambiguous_unless_equal(
    tmp_path: Path, trained: dict[str, Any]
) -> None:
    other = net(seed=2).state_dict()
    module = net()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UsageError, match="fit the model equally well") as caught:
        load_into(module, saved(tmp_path / "c.pt", {"student": trained, "teacher": other}))
    assert "['student'], ['teacher']" in caught.value.seen
    assert_same(module, before)
    copies = {name: value.clone() for name, value in trained.items()}
    load_into(module, saved(tmp_path / "c.pt", {"student": trained, "again": copies, "third": trained}))
    assert_same(module, trained)


def test_a_part_that_fits_better_is_taken(tmp_path: Path, trained: dict[str, Any]) -> None:
    larger = net(seed=2, width=6).state_dict()
    module = net()
    load_into(module, saved(tmp_path / "c.pt", {"large": larger, "small": trained}))
    assert_same(module, trained)
    del trained["norm.num_batches_tracked"]
    load_into(module, saved(tmp_path / "c.pt", {"large": larger, "small": trained}))
    assert torch.equal(module.fc.weight, trained["fc.weight"])


def test_without_a_model_the_usual_name_stands_out(tmp_path: Path, trained: dict[str, Any]) -> None:
    content = {
        "state_dict": trained,
        "ema": trained,
        "optimizer": {"m": torch.ones(2)},
        "stats": {"mean": torch.ones(1)},
    }
    state = read_state(saved(tmp_path / "c.pt", content))
    assert state.tensors.keys() == trained.keys()
    assert state.origin[0] == "taken from ['state_dict']"
    with pytest.raises(UsageError, match="several state dicts"):
        read_state(saved(tmp_path / "d.pt", {"a": {"w": torch.ones(1)}, "b": {"w": torch.ones(2)}}))


_KEYS = st.sampled_from(
    ["state_dict", "model", "module", "ema", "net", "params", "checkpoint", "0", "weights"]
)
_PREFIXES = st.sampled_from(["module.", "_orig_mod.", "model.", "net.", "encoder.", "0."])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(_KEYS, max_size=4),
    prefixes=st.lists(_PREFIXES, max_size=3),
    legacy=st.booleans(),
    byte_keys=st.booleans(),
    in_list=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_nesting_and_prefix_loads_equal(
    tmp_path: Path,
    keys: list[str],
    prefixes: list[str],
    legacy: bool,
    byte_keys: bool,
    in_list: bool,
    seed: int,
) -> None:
    trained = net(seed=seed).state_dict()
    content: Any = OrderedDict(
        (key.encode() if byte_keys else key, value)
        for key, value in _renamed(trained, "".join(prefixes)).items()
    )
    for i, key in enumerate(keys):
        optimizer = {"state": {0: {"step": torch.tensor(i), "exp_avg": torch.ones(4)}}}
        content = {
            f"optimizer{i}": optimizer,
            f"epoch{i}": i,
            f"args{i}": argparse.Namespace(i=i),
            key: [content] if in_list else content,
        }
    module = net(seed=100)
    load_into(module, saved(tmp_path / "c.pt", content, legacy=legacy))
    assert_same(module, trained)


# ------------------------------------------------------------------------------------ what does not fit


def _misfit(path: Path, module: nn.Module | None = None) -> UsageError:
    module = module or net()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UsageError) as caught:
        load_into(module, path)
    assert caught.value.exit_code == 2
    assert_same(module, before)
    return caught.value


def test_all_that_does_not_fit_in_one_error(tmp_path: Path, trained: dict[str, Any]) -> None:
    del trained["norm.running_var"]
    trained["head.weight"] = trained.pop("fc.weight")
    trained["conv.weight"] = torch.ones(8, 3, 3, 3)
    trained["conv.bias"] = torch.ones(4, dtype=torch.int8)
    error = _misfit(saved(tmp_path / "c.pt", {"state_dict": trained}))
    assert "missing from the checkpoint (2): norm.running_var, fc.weight" in error.seen
    assert "unexpected in the checkpoint (1): head.weight" in error.seen
    assert "misshapen (1): conv.weight: checkpoint [8, 3, 3, 3] vs model [4, 3, 3, 3]" in error.seen
    assert "of another type (1): conv.bias: checkpoint int8 vs model float32" in error.seen
    assert "taken from ['state_dict']" in error.seen
    assert "the model's 'fc.weight' looks like the checkpoint's 'head.weight'" in error.next


def test_long_lists_are_cut(tmp_path: Path) -> None:
    module = nn.Sequential(*(nn.Linear(2, 2) for _ in range(15)))
    error = _misfit(saved(tmp_path / "c.pt", {f"other{i}": torch.ones(1) for i in range(25)}), module)
    assert "missing from the checkpoint (30): 0.weight, 0.bias" in error.seen
    assert "and 20 more" in error.seen
    assert "and 15 more" in error.seen


def test_quantized_weights_are_not_taken_for_numbers(tmp_path: Path, trained: dict[str, Any]) -> None:
    trained["fc.weight"] = torch.ones(2, 4, dtype=torch.int8)
    assert "before any quantization" in _misfit(saved(tmp_path / "c.pt", trained)).next


def test_a_renaming_by_wrappers_that_makes_two_names_one(tmp_path: Path, trained: dict[str, Any]) -> None:
    trained = {name.replace("conv.", "module.conv."): value for name, value in trained.items()} | {
        "conv.module.weight": torch.ones(4, 3, 3, 3)
    }
    error = _misfit(saved(tmp_path / "c.pt", trained))
    assert "same name" in error.what


# -------------------------------------------------------------------------------- what is tolerated


def test_counters_missing_or_superfluous(tmp_path: Path, trained: dict[str, Any]) -> None:
    counter = trained.pop("norm.num_batches_tracked")
    module = net()
    notes = load_into(module, saved(tmp_path / "c.pt", trained))
    assert notes == ["1 num_batches_tracked missing from the checkpoint; they play no part in inference"]
    assert torch.equal(module.norm.running_mean, trained["norm.running_mean"])
    trained |= {"norm.num_batches_tracked": counter, "fc.num_batches_tracked": counter}
    notes = load_into(module, saved(tmp_path / "c.pt", trained))
    assert notes == ["ignored 1 entries that the model does not persist: fc.num_batches_tracked"]


def test_buffers_that_the_model_does_not_persist(tmp_path: Path, trained: dict[str, Any]) -> None:
    module = net()
    notes = load_into(module, saved(tmp_path / "c.pt", trained | {"window": torch.zeros(3)}))
    assert notes == ["ignored 1 entries that the model does not persist: window"]
    assert torch.equal(module.window, torch.ones(3))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_need_one_name(tmp_path: Path) -> None:
    values = torch.rand(5, 3)
    for name, other in (("embedding.weight", "head.weight"), ("head.weight", "embedding.weight")):
        module = Tied()
        notes = load_into(module, saved(tmp_path / "c.pt", {name: values}))
        assert notes == [f"tied weights, given under another name: {other}"]
        assert module.head.weight is module.embedding.weight
        assert torch.equal(module.head.weight, values)
    module = Tied()
    assert (
        load_into(
            module, saved(tmp_path / "c.pt", {"head.weight": values, "embedding.weight": values.clone()})
        )
        == []
    )
    error = _misfit(saved(tmp_path / "c.pt", {"head.weight": values, "embedding.weight": values + 1}), Tied())
    assert "embedding.weight and head.weight" in error.seen


def test_floating_types_are_converted_with_a_note(tmp_path: Path, trained: dict[str, Any]) -> None:
    halved = {name: value.half() if value.is_floating_point() else value for name, value in trained.items()}
    module = net()
    assert load_into(module, saved(tmp_path / "c.pt", halved)) == [
        "8 tensors converted from float16 to float32"
    ]
    assert_same(module, {name: value.to(trained[name].dtype) for name, value in halved.items()})
    module = net().half()
    assert load_into(module, saved(tmp_path / "c.pt", trained)) == [
        "8 tensors converted from float32 to float16"
    ]
    trained["fc.bias"] = torch.tensor([1.0, 1e6])
    assert (
        "fc.bias: checkpoint float32 vs model float16: values too large for it"
        in _misfit(saved(tmp_path / "c.pt", trained), net().half()).seen
    )


def test_whole_numbers_are_converted_only_when_they_come_out_equal(tmp_path: Path) -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.zeros(3, dtype=torch.bool))
    load_into(module, saved(tmp_path / "c.pt", {"mask": torch.tensor([0, 1, 1], dtype=torch.uint8)}))
    assert module.mask.tolist() == [False, True, True]
    assert (
        "values that it can't hold"
        in _misfit(saved(tmp_path / "c.pt", {"mask": torch.tensor([0, 1, 2])}), module).seen
    )


def test_a_scalar_of_torch_0_3(tmp_path: Path) -> None:
    module = nn.Module()
    module.scale = nn.Parameter(torch.tensor(1.0))
    load_into(module, saved(tmp_path / "c.pt", {"scale": torch.tensor([2.5])}))
    assert module.scale.item() == 2.5


def test_a_model_on_the_meta_device_is_given_the_tensors(tmp_path: Path, trained: dict[str, Any]) -> None:
    class OnMeta(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()
            self.tied = Tied()

    with torch.device("meta"):
        module = OnMeta()
    halved = {
        f"net.{name}": value.half() if value.is_floating_point() else value for name, value in trained.items()
    }
    del halved["net.norm.num_batches_tracked"]
    path = saved(tmp_path / "c.pt", halved | {"tied.head.weight": torch.rand(5, 3)})
    with pytest.raises(UsageError, match="meta device"):
        load_into(module, path)
    assert all(value.is_meta for value in module.state_dict().values())
    module.net.window = torch.ones(3)
    load_into(module, path)
    assert not any(value.is_meta for value in [*module.parameters(), *module.buffers()])
    assert module.net.conv.weight.dtype == torch.float32
    assert torch.equal(module.net.conv.weight, halved["net.conv.weight"].float())
    assert module.tied.embedding.weight.data_ptr() == module.tied.head.weight.data_ptr()
    assert module.net.norm.num_batches_tracked.item() == 0


def test_names_that_the_models_own_hooks_change(tmp_path: Path) -> None:
    old = torch.nn.utils.weight_norm(nn.Linear(3, 2))
    new = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    notes = load_into(new, saved(tmp_path / "c.pt", old.state_dict()))
    assert notes == ["keys renamed by the model's own loading hooks"]
    assert torch.allclose(new.weight, old.weight)
    assert (
        "missing"
        in _misfit(saved(tmp_path / "c.pt", {"bias": torch.ones(2), "weight_g": torch.ones(2, 1)}), new).seen
    )


def test_a_lazy_model_takes_its_shapes_from_the_checkpoint(tmp_path: Path) -> None:
    module = nn.LazyLinear(2)
    values = nn.Linear(7, 2).state_dict()
    load_into(module, saved(tmp_path / "c.pt", values))
    assert_same(module, values)


# ---------------------------------------------------------------------------------------- real files


class Shell(nn.Module):
    """A module with exactly these names and shapes, filled with zeros."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        super().__init__()
        for name, value in tensors.items():
            *path, last = name.split(".")
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            place.register_buffer(last, torch.zeros_like(value))


@pytest.mark.parametrize("stage", ["pnet", "rnet", "onet"])
def test_facenet(stage: str) -> None:
    path = fetch(f"facenet-{stage}.pt")
    module, (image,) = getattr(nets, stage)()
    assert load_into(module, path) == []
    assert_same(module, torch.load(path, weights_only=True))
    probability = module.eval()(image)[-1]
    assert torch.allclose(probability.sum(1), torch.ones_like(probability.sum(1)))


@pytest.mark.parametrize("backbone", ["alex", "vgg", "squeeze"])
def test_lpips_with_the_byte_strings_of_python_2(backbone: str) -> None:
    path = fetch(f"lpips-{backbone}.pth")
    right = {
        (k.decode() if isinstance(k, bytes) else k): v
        for k, v in torch.load(path, map_location="cpu", weights_only=True).items()
    }
    assert {name.split(".")[1] for name in right} == {"model"}
    module = Shell(right)
    load_into(module, path)
    assert_same(module, right)


@pytest.mark.parametrize(("name", "count"), [("pesto-mir-1k.ckpt", 16), ("pesto-mir-1k_g7.ckpt", 22)])
def test_pesto_with_pickled_configuration(name: str, count: int) -> None:
    path = fetch(name)
    state = read_state(path)
    assert len(state.tensors) == count
    assert "taken from ['state_dict']" in state.origin
    module = Shell(state.tensors)
    load_into(module, path)
    assert_same(module, state.tensors)
    assert all(bool(torch.isfinite(value).all()) and value.numel() for value in state.tensors.values())
    if "g7" in name:
        assert any("omegaconf" in note for note in state.origin)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)
    else:
        assert torch.equal(state.tensors["shift"], torch.load(path, weights_only=True)["state_dict"]["shift"])


def test_fracast_safetensors() -> None:
    path = fetch("fracast.safetensors")
    right = load_file(path)
    module = Shell(right)
    assert load_into(module, path) == []
    assert {name: value.shape for name, value in module.state_dict().items()} == {
        name: value.shape for name, value in right.items()
    }
    assert all(torch.equal(value, right[name]) for name, value in module.state_dict().items())


def test_a_header_that_lies_in_safetensors(tmp_path: Path, trained: dict[str, Any]) -> None:
    path = tmp_path / "c.safetensors"
    save_file(trained, path)
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["conv.weight"]["data_offsets"] = [0, 10**9]
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[8 + size :])
    with pytest.raises(RefusedError, match="does not fit the file"):
        read_state(path)
