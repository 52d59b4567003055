"""The parameters of ``__torch_function__``, which torch's own annotations leave open."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

Function: TypeAlias = Callable[..., Any]
Types: TypeAlias = Collection[type]
Arguments: TypeAlias = tuple[Any, ...]
Keywords: TypeAlias = dict[str, Any]
