"""Prepare a module that is spread over a running process group; run by tests/test_live.py, one process a
rank.

usage: live_ranks.py KIND RANK WORLD PORT OUTPUT
"""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn

import mnnprep


class Net(nn.Module):
    """Keeps an alias of its layers in a plain list, as user code does."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(32, 4)
        self.order = [self.first, self.last]

    def forward(self, x):
        return self.order[1](self.drop(torch.relu(self.order[0](x))))


def make() -> Net:
    torch.manual_seed(7)
    return Net()


def spread(module: nn.Module, kind: str, world: int) -> nn.Module:
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(module)
    if kind == "fsdp1":
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(module, device_id=torch.device("cpu"), use_orig_params=True)
    mesh = dist.device_mesh.init_device_mesh("cpu", (world,))
    if kind == "tensor-parallel":
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

        return parallelize_module(module, mesh, {"first": ColwiseParallel(), "last": RowwiseParallel()})
    from torch.distributed.fsdp import fully_shard

    fully_shard(module.first, mesh=mesh)
    return fully_shard(module, mesh=mesh)


def snapshot(module: nn.Module) -> list:
    flags = [
        (n, m.training, len(m._forward_pre_hooks), len(m._forward_hooks), type(m).__name__)
        for n, m in module.named_modules()
    ]
    return flags + [
        (n, type(p).__name__, p.requires_grad, p.dtype, str(p.device), id(p))
        for n, p in module.named_parameters()
    ]


def main() -> None:
    kind, rank, world, port, output = (
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        sys.argv[5],
    )
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    module = spread(make(), kind, world)
    before, random_state = snapshot(module), torch.get_rng_state()
    manifest = mnnprep.prepare(
        module, output, inputs=["x=float32[batch,16]"], dims={"batch": (1, 4)}, opset=13
    )
    assert (manifest is None) == (rank != 0)
    assert snapshot(module) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    dist.barrier()
    module(torch.randn(4, 16)).sum().backward()
    if manifest is not None:
        print("verdict", manifest.verdict.value)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
