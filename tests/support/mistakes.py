"""Factories with which something goes wrong; each is given to the command line as ``mistakes.py:name``."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

IMAGE = (torch.rand(1, 1, 8, 8),)


class Around(nn.Module):
    """A small net, and something done to its input first."""

    def __init__(self, action: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.action = action

    def forward(self, x: Tensor) -> Any:
        done = self.action(x)
        return self.conv(x) if done is None else done


def fine() -> tuple[nn.Module, tuple[Tensor]]:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), IMAGE


def without_inputs() -> nn.Module:
    return Around(lambda x: None)


def raises() -> nn.Module:
    raise ValueError("the weather is bad")


def leaves() -> nn.Module:
    raise SystemExit(5)


def gives_text() -> str:
    return "no model"


def needs(width: int, *, depth: int) -> nn.Module:
    return nn.Linear(width, depth)


def gives_too_many() -> Any:
    return nn.Linear(2, 2), (torch.rand(1, 2), torch.rand(1, 2))


def gives_a_list_as_input() -> Any:
    return nn.Linear(2, 2), ([1.0, 2.0],)


def gives_bfloat16() -> Any:
    return nn.Linear(2, 2).bfloat16(), (torch.rand(1, 2).bfloat16(),)


def on_meta() -> Any:
    with torch.device("meta"):
        return nn.Linear(2, 2), (torch.rand(1, 2, device="cpu"),)


def returns_text() -> Any:
    return Around(lambda x: {"label": "cat"}), IMAGE


def returns_nothing() -> Any:
    return Around(lambda x: ()), IMAGE


def raises_in_forward() -> Any:
    def refuse(x: Tensor) -> None:
        raise RuntimeError("no images today")

    return Around(refuse), IMAGE


def raises_for_some_values() -> Any:
    def refuse(x: Tensor) -> None:
        if bool((x < 0).any()):
            raise ValueError("pixels must not be negative")

    return Around(refuse), IMAGE


def raises_the_second_time() -> Any:
    count = iter(range(1000))

    def refuse(x: Tensor) -> None:
        if next(count) >= 5:
            raise RuntimeError("tired")

    return Around(refuse), IMAGE


def sleeps() -> Any:
    return Around(lambda x: time.sleep(600)), IMAGE


def tells_and_sleeps(file: str) -> Any:
    def sleep(x: Tensor) -> None:
        Path(file).write_text(str(os.getpid()))
        time.sleep(600)

    return Around(sleep), IMAGE


def hoards() -> Any:
    def fill(x: Tensor) -> None:
        kept = torch.ones(1 << 30, dtype=torch.uint8)
        time.sleep(600)
        assert kept.numel()

    return Around(fill), IMAGE


def crashes() -> Any:
    return Around(lambda x: ctypes.string_at(0)), IMAGE


def quits() -> Any:
    return Around(lambda x: os._exit(7)), IMAGE
