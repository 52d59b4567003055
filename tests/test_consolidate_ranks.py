"""Checkpoints of several ranks, saved by the frameworks themselves, against the unsharded state dict; and
what is wrong with them.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from mnnprep import consolidate  # noqa: E402
from mnnprep.errors import RefusedError, UsageError  # noqa: E402

SCRIPT = Path(__file__).parent / "support" / "distributed_saves.py"


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def save(kind: str, world: int, directory: Path) -> None:
    """Run one process a rank."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | {
        "OMP_NUM_THREADS": "1"
    }
    ranks = []
    for rank in range(world):
        with (directory / f"log{rank}").open("w") as log:
            command = [sys.executable, str(SCRIPT), kind, str(rank), str(world), port, str(directory)]
            ranks.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment))
    codes = [process.wait(timeout=300) for process in ranks]
    assert not any(codes), (directory / "log0").read_text()[-3000:]


def assert_equal(path: Path, right: dict[str, Any]) -> None:
    found = load_file(path)
    assert found.keys() == right.keys()
    for name, value in right.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "world"),
    [("fsdp1", 2), ("fsdp1", 4), ("fsdp2", 2), ("fsdp2", 4), ("tp", 2), ("tp", 4), ("2d", 4)],
)
def test_fsdp_and_tensor_parallel(tmp_path: Path, kind: str, world: int) -> None:
    save(kind, world, tmp_path)
    right = torch.load(tmp_path / "right.pt")
    made = consolidate(tmp_path / "saved", tmp_path / "out.safetensors")
    assert_equal(tmp_path / "out.safetensors", right)
    assert {entry.name for entry in made.left_out} == {"optim.moment", "epoch"}
    assert_equal(tmp_path / "live.safetensors", right)
    assert (tmp_path / "live.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed(tmp_path: Path, stage: int) -> None:
    save(f"zero{stage}", 2, tmp_path)
    made = consolidate(tmp_path / "saved", tmp_path / "out.safetensors")
    assert_equal(tmp_path / "out.safetensors", torch.load(tmp_path / "right.pt"))
    assert made.layout == f"DeepSpeed ZeRO {stage}"
    (tmp_path / "saved" / "step1" / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    with pytest.raises(RefusedError, match="don't add up"):
        consolidate(tmp_path / "saved", None)


def zero_files(directory: Path, stage: int, world: int) -> dict[str, Any]:
    """ZeRO files written to DeepSpeed's format (utils/zero_to_fp32.py), with the state dict that they
    hold.
    """
    torch.manual_seed(1)
    right = {
        "a.weight": torch.randn(5, 3),
        "a.bias": torch.randn(7),
        "b": torch.randn(2, 2, 2),
        "mean": torch.randn(3),
    }
    shapes = {name: right[name].shape for name in ("a.weight", "a.bias", "b")}
    flat = [right[name].reshape(-1) for name in shapes]
    if stage == 3:
        ranks: list[list[Any]] = [[] for _ in range(world)]
        for value in flat:
            part = -(-value.numel() // world)
            padded = torch.cat([value, torch.zeros(part * world - value.numel())])
            for rank in range(world):
                ranks[rank].append(padded[rank * part : (rank + 1) * part])
        partitions = [{"fp32_flat_groups": [torch.cat(rank[:1]), torch.cat(rank[1:])]} for rank in ranks]
    else:
        whole = torch.cat(flat)
        whole = torch.cat([whole, torch.zeros(-whole.numel() % (2 * world))])
        partitions = [{"single_partition_of_fp32_groups": [part.clone()]} for part in whole.chunk(world)]
    tag = directory / "global_step5"
    tag.mkdir(parents=True)
    (directory / "latest").write_text("global_step5")
    for rank, partition in enumerate(partitions):
        state = {"zero_stage": stage, "partition_count": world if stage == 3 else [world], **partition}
        torch.save(
            {"optimizer_state_dict": state}, tag / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        )
        model = {
            "module": {name: value.bfloat16() for name, value in right.items()} | {"mean": right["mean"]},
            "param_shapes": [shapes],
            "buffer_names": ["mean"],
            "shared_params": {"tied": "b"},
        }
        name = (
            f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt" if stage == 3 else "mp_rank_00_model_states.pt"
        )
        torch.save(model, tag / name)
    return right


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("world", [1, 3])
def test_deepspeed_files_written_to_its_format(tmp_path: Path, stage: int, world: int) -> None:
    right = zero_files(tmp_path / "c", stage, world)
    made = consolidate(tmp_path / "c", tmp_path / "out.safetensors")
    assert_equal(tmp_path / "out.safetensors", right)
    assert made.aliases == {"tied": "b"}


def dcp(directory: Path, state: dict[str, Any]) -> Path:
    from torch.distributed import checkpoint

    checkpoint.save(state, checkpoint_id=str(directory), no_dist=True)
    return directory


def test_a_distributed_checkpoint_of_one_process(tmp_path: Path) -> None:
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    right = {
        "plain": whole,
        "turned": whole.T,
        "half": whole.half(),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 5),
    }
    path = dcp(tmp_path / "c", {"model": right, "optimizer": {"state": {"exp_avg": torch.ones(3)}}})
    consolidate(path, tmp_path / "out.safetensors")
    assert_equal(tmp_path / "out.safetensors", right)


def test_a_distributed_checkpoint_goes_into_a_module_without_a_file_between(tmp_path: Path) -> None:
    from mnnprep.weights.apply import load_into

    torch.manual_seed(0)
    right = torch.nn.Linear(5, 7)
    path = dcp(
        tmp_path / "c",
        {
            "model": {"net." + n: v.detach() for n, v in right.state_dict().items()},
            "optim": {"m": torch.ones(7, 5)},
        },
    )
    module = torch.nn.Linear(5, 7)
    notes = load_into(module, path)
    assert torch.equal(module.weight, right.weight)
    assert torch.equal(module.bias, right.bias)
    assert "prefix 'net.' stripped" in notes


def test_what_is_wrong_with_a_distributed_checkpoint(tmp_path: Path) -> None:
    path = dcp(tmp_path / "c", {"model": {"a": torch.ones(50, 60), "b": torch.ones(3)}})
    data = next(path.glob("*.distcp"))
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RefusedError, match="can't be read"):
        consolidate(path, None)
    data.write_bytes(whole.replace(b"PK\x01\x02", b"XX\x01\x02"))
    with pytest.raises(RefusedError, match="can't be read"):
        consolidate(path, tmp_path / "out.safetensors")
    data.unlink()
    with pytest.raises(RefusedError, match="1 files of the checkpoint are missing"):
        consolidate(path, None)
    data.write_bytes(whole)
    metadata = path / ".metadata"
    described = pickle.loads(metadata.read_bytes())

    def refused(match: str) -> None:
        metadata.write_bytes(pickle.dumps(described))
        with pytest.raises(RefusedError, match=match):
            consolidate(path, None)

    chunk = described.state_dict_metadata["model.a"].chunks[0]
    chunk.sizes = torch.Size((40, 60))
    refused("don't add up")
    chunk.sizes = torch.Size((50, 60))
    described.state_dict_metadata["model.a"].chunks.append(
        type(chunk)(torch.Size((0, 0)), torch.Size((50, 60)))
    )
    refused("don't add up")
    described.state_dict_metadata["model.a"].chunks.pop()
    for info in described.storage_data.values():
        info.relative_path = "../outside"
    refused("can't be its shard")
    metadata.write_bytes(b"\x80\x04garbage")
    with pytest.raises(RefusedError, match="can't be read"):
        consolidate(path, None)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.fixture
def ranks(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Two tensor-parallel ranks as Megatron saves them."""
    torch.manual_seed(2)
    right = {
        "query.weight": torch.randn(8, 4),
        "dense.weight": torch.randn(4, 8),
        "norm.weight": torch.randn(4),
    }
    for rank in range(2):
        part = {
            "query.weight": right["query.weight"].chunk(2, 0)[rank].clone(),
            "dense.weight": right["dense.weight"].chunk(2, 1)[rank].clone(),
            "norm.weight": right["norm.weight"],
        }
        place = tmp_path / "iter_0000100" / f"mp_rank_{rank:02}"
        place.mkdir(parents=True)
        torch.save(
            {"model": {"language_model": part}, "optimizer": {"m": torch.ones(3) * rank}, "iteration": 100},
            place / "model_optim_rng.pt",
        )
    return tmp_path / "iter_0000100", right


def test_tensor_parallel_ranks_by_rules(tmp_path: Path, ranks: tuple[Path, dict[str, Any]]) -> None:
    directory, right = ranks
    out = tmp_path / "out.safetensors"
    consolidate(directory, out, join=["query=>0", "dense=>-1"])
    assert_equal(out, right)
    with pytest.raises(UsageError, match="no rule says how to join") as caught:
        consolidate(directory, None, join=["query=>0"])
    assert "dense.weight: [4, 4], [4, 4]" in caught.value.seen
    with pytest.raises(UsageError, match="does not fit"):
        consolidate(directory, None, join=["query=>0", "dense=>5"])
    with pytest.raises(UsageError, match="could not be read"):
        consolidate(directory, None, join=["query"])
    (directory / "mp_rank_01").rename(directory / "mp_rank_02")
    with pytest.raises(RefusedError, match="don't add up"):
        consolidate(directory, None, join=["query=>0", "dense=>1"])
