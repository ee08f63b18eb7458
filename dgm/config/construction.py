"""What watches over the construction of a model: its size, and whether it has values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

MAX_NUMBERS = 2_000_000_000  # that a construction may make: weights and tables, 8 GB in float32
_MAKERS: tuple[Callable[..., Any], ...] = (torch.empty, torch.zeros, torch.ones, torch.full)
_FILLS = frozenset(
    [
        "uniform_",
        "normal_",
        "fill_",
        "zero_",
        "copy_",
        "mul_",
        "div_",
        "add_",
        "sub_",
        "clamp_",
        "erfinv_",
        "constant_",
        "trunc_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "xavier_uniform_",
        "xavier_normal_",
    ]
)


class OfBoundedSize(TorchFunctionMode):
    """Raises: ValueError inside if a model makes more than MAX_NUMBERS numbers, before they take memory."""

    def __init__(self) -> None:
        super().__init__()
        self.num_made = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _MAKERS:
            self.num_made += _num_numbers(given.get("size", args))
            if self.num_made > MAX_NUMBERS:
                raise ValueError(f"the model would take more than {MAX_NUMBERS:,} numbers; make it smaller")
        return func(*args, **given)


class _Unfilled(TorchFunctionMode):
    """Leaves tensors without values as they are, where a fill of each would take milliseconds.

    is_only_weights: only what is made with torch.empty has no values, as weights are.
    """

    def __init__(self, is_only_weights: bool) -> None:
        super().__init__()
        self.is_only_weights = is_only_weights

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "") in _FILLS:
            tensor = args[0] if args else given["tensor"]  # as torch.nn.init names it
            if tensor.is_meta:
                return tensor
        if func is torch.empty and self.is_only_weights:
            given = {**given, "device": "meta"}
        return func(*args, **given)


@contextlib.contextmanager
def without_weights(has_tables: bool = False) -> Generator[None]:
    """Tensors that are made in here have shapes and no values; where a model has_tables, only its weights have none."""
    with torch.device("cpu" if has_tables else "meta"), _Unfilled(has_tables):
        yield


def _num_numbers(size: Any) -> int:
    """Of a size that is given as numbers, or as a sequence first of all."""
    return math.prod(size[0] if size and isinstance(size[0], Sequence) else size)
