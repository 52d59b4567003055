"""What one rank of a process group does for `test_consolidate_ranks.py`: build a net, shard it, save it,
consolidate it live.

    python distributed_saves.py KIND RANK WORLD PORT DIRECTORY

KIND is fsdp1, fsdp2, tp, 2d (both), or zero1, zero2, zero3 (DeepSpeed). Everything on CPU, over gloo.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


class Block(nn.Module):
    """Extents that no number of ranks divides, a bias, buffers and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(33, 50)
        self.down = nn.Linear(50, 33, bias=False)
        self.norm = nn.BatchNorm1d(33)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.down(self.up(x).relu()))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block(), nn.Linear(33, 7))


def sharded(kind: str, model: nn.Sequential, world: int) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    if kind == "fsdp1":
        return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    mesh = (
        init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
        if kind == "2d"
        else init_device_mesh("cpu", (world,))
    )
    for block in list(model)[:2]:
        if kind in ("tp", "2d"):
            parallelize_module(
                block,
                mesh["tp"] if kind == "2d" else mesh,
                {"up": ColwiseParallel(), "down": RowwiseParallel()},
            )
        if kind in ("fsdp2", "2d"):
            fully_shard(block, mesh=mesh["dp"] if kind == "2d" else mesh)
    if kind in ("fsdp2", "2d"):
        fully_shard(model, mesh=mesh["dp"] if kind == "2d" else mesh)
    return model


def save_sharded(kind: str, rank: int, world: int, directory: str) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    import mnnprep

    dist.init_process_group("gloo", rank=rank, world_size=world)
    model = net()
    if rank == 0:
        torch.save(
            {name: value.clone() for name, value in model.state_dict().items()}, f"{directory}/right.pt"
        )
    module = sharded(kind, model, world)
    dcp.save(
        {"model": get_model_state_dict(module), "optim": {"moment": torch.ones(100)}, "epoch": 3},
        checkpoint_id=f"{directory}/saved",
    )
    made = mnnprep.consolidate(module, f"{directory}/live.safetensors")
    assert (made is None) == (rank > 0)
    dist.barrier()
    dist.destroy_process_group()


def save_deepspeed(stage: int, rank: int, world: int, directory: str) -> None:
    os.environ.update(DS_ACCELERATOR="cpu", DS_BUILD_OPS="0", LOCAL_RANK=str(rank))
    import deepspeed
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    model = net()
    model.add_module("frozen", nn.Linear(3, 5))
    for parameter in model.frozen.parameters():
        parameter.requires_grad = False
    model.forward = lambda x: model[2](model[1](model[0](x)))  # type: ignore[method-assign]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.backward(engine(torch.rand(4, 33)).square().mean())
    engine.step()
    engine.save_checkpoint(f"{directory}/saved", tag="step1")
    dist.barrier()
    if rank == 0:
        right = get_fp32_state_dict_from_zero_checkpoint(f"{directory}/saved")
        torch.save({name: value.clone() for name, value in right.items()}, f"{directory}/right.pt")
    dist.barrier()


def main() -> None:
    kind, rank, world, port, directory = (
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        sys.argv[5],
    )
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE=str(world))
    if kind.startswith("zero"):
        save_deepspeed(int(kind[-1]), rank, world, directory)
    else:
        save_sharded(kind, rank, world, directory)


if __name__ == "__main__":
    main()
