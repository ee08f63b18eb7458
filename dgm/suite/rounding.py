"""Weights in bfloat16 on their way between machines: half the bytes, and the same numbers at both ends.

A time-boxed row is rounded before it is evaluated, so that the figure is that of the weights which are kept. What is
rounded are the trained matrices; statistics, whitening and start values keep their precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

HALVED = "halved"  # the key of the metadata that names the tensors to be widened again


def rounded(model: nn.Module) -> dict[str, Tensor]:
    """The state of the model with its float32 parameters of two axes or more rounded to bfloat16, still float32."""
    matrices = {name for name, p in model.named_parameters() if p.dim() > 1 and p.dtype == torch.float32}
    state = model.state_dict()
    return {name: t.bfloat16().float() if name in matrices else t for name, t in state.items()}


def packed(path: Path) -> bytes:
    """A weights file with every float32 tensor that bfloat16 holds exactly in bfloat16."""
    state = load(path.read_bytes())
    halved = {name: t.bfloat16() for name, t in state.items() if t.dtype == torch.float32 and _is_half(t)}
    return save({**state, **halved}, metadata={HALVED: "\n".join(sorted(halved))})


def unpacked(data: bytes, scratch: Path) -> bytes:
    """The weights file that `packed` read. Raises: ValueError if the data are none."""
    scratch.write_bytes(data)
    try:
        with safe_open(scratch, "pt") as file:  # pyright: ignore[reportUnknownVariableType]
            metadata: Mapping[str, str] | None = file.metadata()
        state = load(data)
    except SafetensorError as error:
        raise ValueError(f"not weights ({error})") from None
    finally:
        scratch.unlink()
    names = {name for name in (metadata or {}).get(HALVED, "").split("\n") if name}
    if not names <= state.keys():
        raise ValueError("names tensors that are not there")
    return save({name: t.float() if name in names else t for name, t in state.items()})


def _is_half(tensor: Tensor) -> bool:
    return torch.equal(tensor.bfloat16().float(), tensor)
