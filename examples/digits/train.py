"""Train the net of model.py and write digits.safetensors. Seeded; under a minute on a CPU."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from model import Digits
from safetensors.torch import save_file
from torch import nn

import data

EPOCHS = 20
BATCH = 64


def main() -> None:
    start = time.monotonic()
    torch.manual_seed(data.SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    train, held_out = data.load()
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=EPOCHS * -(-len(labels) // BATCH)
    )
    for _ in range(EPOCHS):
        for index in torch.randperm(len(labels)).split(BATCH):
            loss = nn.functional.cross_entropy(model(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        right = int(
            (model(torch.from_numpy(held_out.images)).argmax(1) == torch.from_numpy(held_out.labels)).sum()
        )
    path = Path(__file__).with_name("digits.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    print(f"held-out accuracy {right}/{len(held_out.labels)} = {right / len(held_out.labels):.4f}")
    print(f"{path.name}: {path.stat().st_size} bytes, after {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
