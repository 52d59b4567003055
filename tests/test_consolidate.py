"""`mnnprep consolidate`: every layout to one file, equal tensor by tensor; filters, ties, dtypes; and every
way in which it is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402
from safetensors.torch import load_file, load_model, save_file  # noqa: E402
from torch import nn  # noqa: E402

from evaluation.nets.real_models import fetch  # noqa: E402
from mnnprep import consolidate  # noqa: E402
from mnnprep.cli.consolidate import command  # noqa: E402
from mnnprep.commands import consolidate as commands_consolidate  # noqa: E402
from mnnprep.commands.reading import read_aside  # noqa: E402
from mnnprep.errors import MnnprepError, RefusedError, UsageError  # noqa: E402
from mnnprep.weights.apply import load_into  # noqa: E402
from mnnprep.weights.places import Files  # noqa: E402
from mnnprep.weights.read import plan_state  # noqa: E402
from mnnprep.weights.select import Expected  # noqa: E402

DATA = Path(__file__).with_name("data") / "tensorflow"


class Net(nn.Module):
    """Parameters, buffers, a counter, and a tie."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.words(x)))


def make() -> Net:
    return Net()


@pytest.fixture
def trained() -> dict[str, Any]:
    torch.manual_seed(3)
    model = Net()
    with torch.no_grad():
        model.body[1].running_mean.normal_()
    return model.state_dict()


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def untied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != "head.weight"}


def assert_equal(path: Path, right: dict[str, Any]) -> None:
    found = load_file(path)
    assert found.keys() == right.keys()
    for name, value in right.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def shards(
    directory: Path, tensors: dict[str, Any], *, suffix: str = "safetensors", index: bool = True
) -> Path:
    names = list(tensors)
    weight_map = {}
    for number, part in enumerate((names[:2], names[2:]), 1):
        file = f"model-{number:05}-of-00002.{suffix}"
        content = {name: tensors[name].clone() for name in part}
        if suffix == "safetensors":
            save_file(content, directory / file)
        else:
            saved(directory / file, content)
        weight_map.update(dict.fromkeys(part, file))
    if index:
        (directory / f"model.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


# ---------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    "layout",
    ["safetensors", "shards", "numbered", "zip", "legacy", "deflated", "bin-shards", "lightning", "nested"],
)
@pytest.mark.parametrize("hashed", [True, False])
def test_every_layout_gives_the_bytes_that_safetensors_writes(
    tmp_path: Path, trained: dict[str, Any], layout: str, hashed: bool
) -> None:
    right = {name: value.clone() for name, value in untied(trained).items()}
    source = tmp_path / "source"
    source.mkdir()
    path = source / "model.bin"
    if layout == "safetensors":
        save_file(right, path)
    elif layout in ("shards", "numbered", "bin-shards"):
        path = shards(
            source,
            right,
            suffix="bin" if layout == "bin-shards" else "safetensors",
            index=layout != "numbered",
        )
    elif layout == "deflated":
        plain = saved(tmp_path / "plain.pt", right)
        with zipfile.ZipFile(plain) as one, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other:
            for record in one.infolist():
                other.writestr(record.filename, one.read(record))
    elif layout == "lightning":
        saved(
            path,
            {
                "pytorch-lightning_version": "2.1",
                "state_dict": right,
                "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
            },
        )
    elif layout == "nested":
        saved(
            path,
            {
                "epoch": 3,
                "all": [
                    {"ema": {"decay": torch.tensor(0.9)}},
                    {"net": {"module." + n: v for n, v in right.items()}},
                ],
            },
        )
    else:
        saved(path, right, _use_new_zipfile_serialization=layout != "legacy")
    made = consolidate(path, tmp_path / "out.safetensors", hashed=hashed)
    save_file(right, tmp_path / "right.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "right.safetensors").read_bytes()
    manifest = json.loads((tmp_path / "out.safetensors.manifest.json").read_text())
    assert str(tmp_path) not in json.dumps(manifest)
    if hashed:
        assert made.sha256 == hashlib.sha256((tmp_path / "out.safetensors").read_bytes()).hexdigest()
        for file in made.inputs:
            place = path if path.is_file() else path / file.name
            assert file.sha256 == hashlib.sha256(place.read_bytes()).hexdigest(), file.name
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("out")) == [
        "out.safetensors",
        "out.safetensors.manifest.json",
    ]


def test_views_strides_and_all_dtypes(tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    big = torch.arange(3000 * 700, dtype=torch.float32).reshape(3000, 700)
    content = {
        "view": whole[1:3, ::2],
        "turned": whole.T,
        "big": big.T,
        "sparse": big[::7, ::31],
        "expanded": torch.ones(1).expand(5, 6),
        "half": whole.half(),
        "bfloat": whole.bfloat16(),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 5),
        "mask": whole > 3,
        "unsigned": torch.arange(5).to(torch.uint16),
        "float8": whole.to(torch.float8_e4m3fn),
        "double": whole.double(),
        "channels": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    for legacy in (False, True):
        path = saved(tmp_path / "c.pt", content, _use_new_zipfile_serialization=not legacy)
        consolidate(path, tmp_path / "out.safetensors", force=True)
        found = load_file(tmp_path / "out.safetensors")
        assert found.keys() == content.keys()
        for name, value in content.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name].to(torch.float64), value.to(torch.float64)), name
    saved(tmp_path / "c.pt", content | {"complex": torch.complex(whole.double(), whole.double())})
    with pytest.raises(RefusedError, match="no such element type"):
        consolidate(tmp_path / "c.pt", None)


@pytest.mark.slow
def test_lightning_itself(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Task(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = make()

        def training_step(self, batch: Any, index: int) -> Any:
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(8) % 9), batch_size=4)
    task = Task()
    trainer = lightning.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    made = consolidate(tmp_path / "last.ckpt", tmp_path / "out.safetensors", strip=["model."])
    right = {name: value.cpu() for name, value in task.model.state_dict().items()}
    assert_equal(tmp_path / "out.safetensors", untied(right))
    assert made.aliases == {"head.weight": "words.weight"}
    assert any("optimizer_states" in entry.name for entry in made.left_out)


def test_tensorflow_checkpoint(tmp_path: Path) -> None:
    right = np.load(DATA / "values.npz")
    for source in (DATA / "variables", DATA / "variables.index"):
        made = consolidate(source, tmp_path / "out.safetensors", force=True)
        found = load_file(tmp_path / "out.safetensors")
        assert np.array_equal(found["first"].numpy(), right["first.0"])
        assert found["half"].tolist() == [1.5, -2]
        assert found["half"].dtype == torch.bfloat16
        assert (found["step"].item(), found["nested/mask"].tolist()) == (3, [True, False])
        assert any("text" in entry.name and entry.reason == "not numeric" for entry in made.left_out)
    for name in ("variables.index", "variables.data-00000-of-00001"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    (tmp_path / "variables.data-00000-of-00001").write_bytes(b"short")
    with pytest.raises(RefusedError, match="can't be read"):
        consolidate(tmp_path / "variables", None)
    (tmp_path / "variables.data-00000-of-00001").unlink()
    with pytest.raises(RefusedError, match="shards are missing"):
        consolidate(tmp_path / "variables", None)
    whole = (DATA / "variables.index").read_bytes()
    for keep in (47, 60, len(whole) - 1):
        (tmp_path / "variables.index").write_bytes(whole[:keep])
        with pytest.raises(RefusedError):
            consolidate(tmp_path / "variables.index", None)


def test_keras_weights(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    right = np.load(DATA / "values.npz")
    made = consolidate(DATA / "net.weights.h5", tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert len(found) == 8
    assert np.array_equal(found["layers/dense/vars/0"].numpy(), right["first.0"])
    assert np.array_equal(found["layers/dense_1/vars/1"].numpy(), right["second.1"])
    assert {entry.reason for entry in made.left_out} == {"optimizer state"}
    (tmp_path / "c.h5").write_bytes((DATA / "net.weights.h5").read_bytes()[:3000])
    with pytest.raises(RefusedError, match="can't be read"):
        consolidate(tmp_path / "c.h5", None)


@pytest.mark.parametrize(
    "options", [{"r": 2, "lora_alpha": 8}, {"r": 4, "lora_alpha": 4, "use_rslora": True}]
)
def test_peft_adapter(tmp_path: Path, options: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(9, 6)
            self.conv = nn.Conv2d(3, 4, 3)
            self.linear = nn.Linear(6, 5)
            self.head = nn.Linear(5, 2)

    torch.manual_seed(4)
    base = Adapted()
    saved(tmp_path / "base.pt", base.state_dict())
    config = peft.LoraConfig(target_modules=["words", "conv", "linear"], modules_to_save=["head"], **options)
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    model.save_pretrained(tmp_path / "adapter")
    right = model.merge_and_unload().state_dict()
    made = consolidate(tmp_path / "adapter", tmp_path / "out.safetensors", base=tmp_path / "base.pt")
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == right.keys()
    for name, value in right.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6, msg=name)
    assert torch.equal(found["head.weight"], right["head.weight"])
    assert f"rank {options['r']} for 3 tensors" in " ".join(made.notes)
    with pytest.raises(UsageError, match="base model is missing"):
        consolidate(tmp_path / "adapter", None)
    saved(tmp_path / "other.pt", {"words.weight": torch.ones(3, 3)})
    with pytest.raises(UsageError, match="does not fit its base"):
        consolidate(tmp_path / "adapter", None, base=tmp_path / "other.pt")
    described = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(described | {"use_dora": True}))
    with pytest.raises(RefusedError, match="can't be merged"):
        consolidate(tmp_path / "adapter", None, base=tmp_path / "base.pt")


def test_the_base_that_an_adapter_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a path as it is from the working directory, where the adapter was trained."""
    saved(tmp_path / "base.pt", {"linear.weight": torch.ones(2, 2)})
    (tmp_path / "adapter").mkdir()
    described = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": "base.pt"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(described))
    names = ("lora_A", "lora_B")
    shapes = ((1, 2), (2, 1))
    save_file(
        {
            f"base_model.model.linear.{name}.weight": torch.ones(shape)
            for name, shape in zip(names, shapes, strict=True)
        },
        tmp_path / "adapter" / "adapter_model.safetensors",
    )
    monkeypatch.chdir(tmp_path)
    consolidate("adapter", "out.safetensors")
    assert torch.equal(load_file("out.safetensors")["linear.weight"], torch.full((2, 2), 2.0))


def test_a_checkpoint_that_changes_after_it_was_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: dict[str, Any]
) -> None:
    path = saved(tmp_path / "c.pt", trained)

    def planned_then_changed(*arguments: Any) -> Any:
        found = read_aside(*arguments)
        os.utime(path, (0, 0))
        return found

    monkeypatch.setattr(commands_consolidate, "read_aside", planned_then_changed)
    with pytest.raises(RefusedError, match="changed while it was read"):
        consolidate(path, tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


# ------------------------------------------------------------------------------------ what is kept


def test_tied_weights_are_kept_once_and_restored(tmp_path: Path, trained: dict[str, Any]) -> None:
    made = consolidate(saved(tmp_path / "c.pt", trained), tmp_path / "out.safetensors")
    assert made.aliases == {"head.weight": "words.weight"}
    assert_equal(tmp_path / "out.safetensors", untied(trained))
    for load in (load_model, load_into):
        model = make()
        load(model, tmp_path / "out.safetensors")
        assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    consolidate(tmp_path / "out.safetensors", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()


def test_averages_beside_the_weights(tmp_path: Path, trained: dict[str, Any]) -> None:
    raw = untied(trained)
    averaged = {name: value + 1 for name, value in raw.items()}
    dotless = {"model_ema." + name.replace(".", ""): value for name, value in averaged.items()}
    contents = (
        {"state_dict": raw, "ema_state_dict": averaged},
        raw | {"ema." + name: value for name, value in averaged.items()} | {"ema.decay": torch.tensor(0.9)},
        raw | dotless | {"model_ema.num_updates": torch.tensor(3)},
    )
    for content in contents:
        path = saved(tmp_path / "c.pt", content)
        made = consolidate(path, tmp_path / "out.safetensors", force=True)
        assert_equal(tmp_path / "out.safetensors", raw)
        assert any("averag" in entry.reason for entry in made.left_out)
        consolidate(path, tmp_path / "out.safetensors", force=True, ema=True)
        assert_equal(tmp_path / "out.safetensors", averaged)
    with pytest.raises(UsageError, match="not contain averaged weights"):
        consolidate(saved(tmp_path / "c.pt", raw), None, ema=True)


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(("key", "averaged"), [("state_dict", False), ("ema_state_dict", True)])
def test_a_plan_says_whether_it_is_of_averages(
    tmp_path: Path, trained: dict[str, Any], key: str, averaged: bool, fitted: bool
) -> None:
    path = saved(tmp_path / "c.pt", {key: trained, "epoch": 3})
    expected = Expected({name: tuple(value.shape) for name, value in trained.items()}) if fitted else None
    with Files() as files:
        assert plan_state(files.at(path), expected).averaged is averaged


def test_filters_and_names(tmp_path: Path, trained: dict[str, Any]) -> None:
    leftovers = {
        "body.0.weight.grad": torch.ones(6, 6),
        "optim.exp_avg": torch.ones(3),
        "loss_scaler.scale": torch.ones(1),
    }
    path = saved(
        tmp_path / "c.pt", {"_orig_mod.module." + n: v for n, v in (untied(trained) | leftovers).items()}
    )
    out = tmp_path / "out.safetensors"
    made = consolidate(
        path,
        out,
        strip=["body."],
        rename=[r"^(\d)\.weight$=>layer\1.w", "words=>embedding"],
        drop=["running_"],
        counters=False,
    )
    assert set(load_file(out)) == {"layer0.w", "0.bias", "layer1.w", "1.bias", "embedding.weight"}
    assert {(entry.name, entry.reason) for entry in made.left_out} == {
        ("body.0.weight.grad", "gradient"),
        ("optim.exp_avg", "optimizer state"),
        ("loss_scaler.scale", "loss scaler"),
        ("body.1.running_mean", "dropped by --drop"),
        ("body.1.running_var", "dropped by --drop"),
        ("body.1.num_batches_tracked", "a counter that inference does not use"),
    }
    assert {t.name: t.source for t in made.tensors}["layer0.w"] == "body.0.weight"
    with pytest.raises(UsageError, match="the same name"):
        consolidate(path, None, rename=["weight|bias=>x", r"body\.\d\.=>"])
    with pytest.raises(UsageError, match="no name begins"):
        consolidate(path, None, strip=["absent."])
    with pytest.raises(UsageError, match="no tensor is left"):
        consolidate(path, None, drop=["."])
    for options in (
        {"rename": ["("]},
        {"rename": ["(=>x"]},
        {"drop": ["["]},
        {"rename": [r"words=>\3"]},
        {"dtype": "int8"},
    ):
        with pytest.raises(UsageError):
            consolidate(path, None, **options)


def test_a_factory_says_what_belongs_to_the_model(tmp_path: Path, trained: dict[str, Any]) -> None:
    out = tmp_path / "out.safetensors"
    content = {"net." + name: value.clone() for name, value in trained.items()} | {
        "net.extra": torch.ones(2),
        "critic.weight": torch.ones(3),
    }
    path = saved(tmp_path / "c.pt", {"state_dict": content})
    made = consolidate(path, out, factory=f"{Path(__file__)}:make")
    assert_equal(out, untied(trained))
    assert made.aliases == {"head.weight": "words.weight"}  # tied in the model, saved twice
    assert ("extra", "not in the model") in {(entry.name, entry.reason) for entry in made.left_out}
    del content["net.body.0.bias"]
    content["net.body.0.weight"] = torch.ones(2, 2)
    with pytest.raises(UsageError, match="don't fit") as caught:
        consolidate(saved(tmp_path / "c.pt", content), None, factory=f"{Path(__file__)}:make")
    assert "missing (1): body.0.bias" in caught.value.seen
    assert "body.0.weight: checkpoint [2, 2] vs model [6, 6]" in caught.value.seen
    with pytest.raises(UsageError):
        consolidate(path, None, factory=f"{Path(__file__)}:absent")


def test_one_of_several_state_dicts(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pt", {"nets": {"one": {"w": torch.ones(2)}, "two": {"w": torch.zeros(2)}}})
    with pytest.raises(UsageError, match="several state dicts"):
        consolidate(path, None)
    consolidate(path, tmp_path / "out.safetensors", at="nets.two")
    assert_equal(tmp_path / "out.safetensors", {"w": torch.zeros(2)})
    with pytest.raises(UsageError, match="no tensors at the place"):
        consolidate(path, None, at="nets.three")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_another_dtype_with_the_worst_rounding_error(tmp_path: Path, dtype: str) -> None:
    torch.manual_seed(5)
    content = {
        "a": torch.randn(70, 33),
        "b": torch.randn(9).double(),
        "turned": torch.randn(5, 8).T,
        "n": torch.tensor(7),
        "odd": torch.tensor([1.0, float("inf")]),
    }
    path = saved(tmp_path / "c.pt", content)
    made = consolidate(path, tmp_path / "out.safetensors", dtype=dtype)
    wanted = getattr(torch, dtype)
    assert_equal(
        tmp_path / "out.safetensors",
        {n: v.to(wanted) if v.is_floating_point() else v for n, v in content.items()},
    )
    for rounding in made.rounding:
        exact = content[rounding.name].double()
        error = (exact - exact.to(wanted).double()).nan_to_num(0).abs().max().item()
        assert rounding.worst == error
    again = consolidate(path, tmp_path / "again.safetensors", dtype=dtype, hashed=False)
    assert again.rounding == made.rounding
    if dtype == "float16":
        with pytest.raises(RefusedError, match="too large for float16"):
            consolidate(
                saved(tmp_path / "c.pt", {"a": torch.tensor([1e6])}),
                tmp_path / "big.safetensors",
                dtype=dtype,
            )
        assert not list(tmp_path.glob("big.safetensors*"))


def test_a_live_module(tmp_path: Path, trained: dict[str, Any]) -> None:
    model = make()
    model.load_state_dict(trained)
    made = consolidate(model, tmp_path / "live.safetensors")
    consolidate(saved(tmp_path / "c.pt", trained), tmp_path / "out.safetensors")
    assert (tmp_path / "live.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()
    assert made.aliases == {"head.weight": "words.weight"}
    with pytest.raises(UsageError, match="neither a path nor"):
        consolidate(3, None)
    with torch.device("meta"):
        empty = make()
    with pytest.raises(RefusedError, match="meta device"):
        consolidate(empty, None)


# ------------------------------------------------------------------------------- what is refused


def exit_code(*arguments: object) -> int:
    try:
        result = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
        if isinstance(result.exception, MnnprepError):
            return result.exception.exit_code
        assert result.exception is None, result.exception
        return int(result.return_value or 0)
    except MnnprepError as error:
        return error.exit_code


def test_exit_codes_of_the_command(tmp_path: Path, trained: dict[str, Any]) -> None:
    path = saved(tmp_path / "c.pt", trained)
    out = tmp_path / "out.safetensors"
    assert exit_code(path, "--dry-run") == 0
    assert not out.exists()
    assert exit_code(path, "-o", out, "--json") == 0
    assert exit_code(path, "-o", out) == 2  # it is there
    assert exit_code(path, "-o", out, "--force") == 0
    assert exit_code(path) == 2
    assert exit_code(path, "-o", out, "--dry-run") == 2
    assert exit_code(path, "-o", tmp_path) == 2
    assert exit_code(path, "-o", tmp_path / "absent" / "out") == 2
    assert exit_code(path, "-o", path, "--force") == 2
    assert exit_code(tmp_path / "absent.pt", "--dry-run") == 2
    assert exit_code("what://is/this", "--dry-run") == 3
    (tmp_path / "page.pt").write_text("<!DOCTYPE html>")
    assert exit_code(tmp_path / "page.pt", "--dry-run") == 3
    whole = path.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert exit_code(tmp_path / "cut.pt", "-o", tmp_path / "cut.safetensors") == 3
    assert not list(tmp_path.glob("cut.safetensors*"))


def test_a_header_that_lies(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4), "b": torch.zeros(4)}, tmp_path / "right.safetensors")
    data = (tmp_path / "right.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    changes: list[Any] = [
        lambda h: h["b"].update(data_offsets=[8, 24]),
        lambda h: h["b"].update(data_offsets=[16, 10**9]),
        lambda h: h["b"].update(shape=[9]),
        lambda h: h["b"].update(dtype="X9"),
        lambda h: h["b"].update(shape=[-4]),
        lambda h: h.pop("a"),
        lambda h: h.update(c=3),
    ]
    for change in changes:
        lying = json.loads(json.dumps(header))
        change(lying)
        text = json.dumps(lying).encode()
        (tmp_path / "c.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
        with pytest.raises(RefusedError, match="does not fit the file"):
            consolidate(tmp_path / "c.safetensors", None)


def test_overlapping_records_of_a_zip(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pt", {"a": torch.ones(400), "b": torch.zeros(400)})
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(name) for name in archive.namelist() if "/data/" in name)
    data = path.read_bytes()
    start = data.rindex(b"PK\x01\x02", 0, data.rindex(second.filename.encode()))
    at = start + 42  # of the local header, APPNOTE.TXT 4.3.12
    path.write_bytes(data[:at] + struct.pack("<I", first.header_offset) + data[at + 4 :])
    with pytest.raises(RefusedError, match="overlaps the next one"):
        consolidate(path, None)


def test_a_name_in_two_shards(tmp_path: Path, trained: dict[str, Any]) -> None:
    state = {name: value.clone() for name, value in untied(trained).items()}
    directory = shards(tmp_path, state)
    second = tmp_path / "model-00002-of-00002.safetensors"
    first_name = next(iter(state))
    content = load_file(second)
    save_file(content | {first_name: state[first_name]}, second)
    consolidate(directory, tmp_path / "out")
    save_file(content | {first_name: state[first_name] + 1}, second)
    with pytest.raises(RefusedError, match="different values"):
        consolidate(directory, None)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(RefusedError, match="different values"):
        consolidate(directory, None)
    second.unlink()
    with pytest.raises(RefusedError, match="1 of 2 shards are missing"):
        consolidate(directory, None)


# ------------------------------------------------------------------------------------- real files

REAL = [
    "facenet-pnet.pt",
    "facenet-rnet.pt",
    "facenet-onet.pt",
    "lpips-alex.pth",
    "lpips-vgg.pth",
    "lpips-squeeze.pth",
    "pesto-mir-1k.ckpt",
    "fracast.safetensors",
    "silero-vad.jit",
]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_files(tmp_path: Path, name: str) -> None:
    path = fetch(name)
    if name.endswith(".safetensors"):
        right = load_file(path)
    elif name.endswith(".jit"):
        right = dict(torch.jit.load(path, map_location="cpu").state_dict())
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        right = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
    made = consolidate(path, tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    found |= {alias: found[kept] for alias, kept in made.aliases.items()}
    assert found.keys() == right.keys()
    assert all(
        torch.equal(found[key], value.detach()) and found[key].dtype == value.dtype
        for key, value in right.items()
    )


@pytest.mark.real
def test_pesto_g7_with_pickled_configuration(tmp_path: Path) -> None:
    path = fetch("pesto-mir-1k_g7.ckpt")
    made = consolidate(path, tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert len(found) == 22
    assert any("omegaconf" in note for note in made.notes)
    with zipfile.ZipFile(path) as archive:
        records = [archive.read(name) for name in archive.namelist() if "/data/" in name]
    for name, value in found.items():
        assert any(value.numpy().tobytes() in record for record in records), name
