"""Weights on disk: one safetensors file, read without executing anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dgm.errors import StageError
from dgm.runs.atomic import atomic_file


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes parameters and buffers, whole or not at all."""
    with atomic_file(path) as file:
        file.write(save({name: tensor.contiguous().clone() for name, tensor in state.items()}))


def load_weights(path: Path, model: nn.Module, remedy: str) -> None:
    """Fills a freshly built model. Raises: StageError naming the file if it is absent, damaged or of another model."""
    if not path.exists():
        raise StageError(f"{path}: no trained weights; {remedy}")
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise StageError(f"{path}: damaged ({error}); delete it and {remedy}") from None
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise StageError(f"{path}: weights of another architecture ({first}); {remedy}") from None
