"""What a checkpoint must hold to be taken over by a training: all of it is checked before any of it is used.

Its file is whole (dgm.runs.checkpoint) and its key is that of this training, so only a file made by hand fails here.
What is not as this training writes it raises ValueError, or another error of Python's where a container is missing.
What is taken over is copied: two tensors of a file that share their memory do not share it later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dgm.engine.optimizers import Muon
from dgm.runs.records import CurvePoint

OF_EVERY_SESSION = ("model", "curve", "seconds", "run")
OF_NO_EFFECT = ("lr", "foreach", "fused")  # the next step sets the rate; how steps are computed is of this machine


def check_progress(
    saved: Mapping[str, Any],
    names: Sequence[str],
    limit: int,
    points: Iterable[tuple[int, int]],
    curve: list[CurvePoint],
) -> None:
    """Raises: ValueError or KeyError naming what is not as a training leaves it before its step `limit`.

    names: of the entries beside those of every session; the first counts the steps.
    points: step and images seen of each point that the curve has by then.
    """
    expected = {*OF_EVERY_SESSION, *names}
    if different := sorted(map(repr, saved.keys() ^ expected)):
        raise ValueError(f"missing or unknown: {', '.join(different)}")
    if saved[names[0]] >= limit:
        raise ValueError(f"{names[0]} {saved[names[0]]} of {limit}")
    if [(point.step, point.images_seen) for point in curve] != list(points):
        raise ValueError(f"its curve is not that of {names[0]} {saved[names[0]]}")


def check_tensors(found: Any, expected: Mapping[str, Tensor], what: str) -> None:
    """Raises: ValueError naming a tensor that is missing, unknown, of another shape or dtype, or not finite."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{what} is {type(found).__name__}")
    saved: Mapping[Any, Any] = found
    if different := sorted(map(repr, saved.keys() ^ expected.keys())):
        raise ValueError(f"{what}: missing or unknown: {', '.join(different)}")
    for name, like in expected.items():
        tensor = saved[name]
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_meta:
            raise ValueError(f"{what}: {name} is no plain tensor")
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            kinds = [f"{tuple(each.shape)} {each.dtype}" for each in (tensor, like)]
            raise ValueError(f"{what}: {name} is {kinds[0]}, not {kinds[1]}")
        if not tensor.isfinite().all():
            raise ValueError(f"{what}: {name} is not finite")


def check_optimizers(optimizers: Sequence[Optimizer], saved: Sequence[Any], step: int) -> None:
    """Raises: ValueError naming what is not as `step` steps with the settings of now leave it."""
    if len(saved) != len(optimizers):
        raise ValueError(f"{len(saved)} optimizers, not {len(optimizers)}")
    for optimizer, state in zip(optimizers, saved, strict=True):
        what, parameters = type(optimizer).__name__, _parameters(optimizer)
        groups = optimizer.state_dict()["param_groups"]
        if [_settings(group) for group in state["param_groups"]] != [_settings(group) for group in groups]:
            raise ValueError(f"{what}: groups or settings of another training")
        if different := sorted(map(repr, state["state"].keys() ^ set(range(len(parameters)) if step else ()))):
            raise ValueError(f"{what}: missing or unknown state: of parameter {', '.join(different)}")
        for index, values in state["state"].items():
            check_tensors(values, _state_like(optimizer, parameters[index]), f"{what}, parameter {index}")
            _check_moments(values, f"{what}, parameter {index}", step)


def restore_optimizers(optimizers: Sequence[Optimizer], saved: Sequence[Any]) -> None:
    """Takes over states that `check_optimizers` has passed; the settings stay those of now."""
    for optimizer, state in zip(optimizers, saved, strict=True):
        parameters = _parameters(optimizer)
        states = {
            index: {
                name: torch.empty_like(like).copy_(values[name])
                for name, like in _state_like(optimizer, parameters[index]).items()
            }
            for index, values in state["state"].items()
        }
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """In the order by which a state numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _state_like(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """Tensors of the kinds that the optimizer keeps for a parameter."""
    if isinstance(optimizer, Muon):
        return {"momentum": parameter}
    return {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}


def _check_moments(values: Mapping[str, Tensor], what: str, step: int) -> None:
    """Raises: ValueError if AdamW counts other steps, or a mean of squares is negative."""
    if "step" in values and not (1 <= (count := float(values["step"])) <= step and count.is_integer()):
        raise ValueError(f"{what}: {count:g} steps at step {step}")
    if "exp_avg_sq" in values and (values["exp_avg_sq"] < 0).any():
        raise ValueError(f"{what}: exp_avg_sq is negative")


def _settings(group: Mapping[str, Any]) -> list[str]:
    return sorted(f"{name!r}: {value!r}" for name, value in group.items() if name not in OF_NO_EFFECT)
