"""Floating-point operations of a gradient-trained model, counted while it runs, so that no formula can go stale."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dgm.model_api.contracts import GradientTrained
from dgm.seeds import Stream, generator_for
from dgm.types import Images

PROGRESS = 0.5  # of the training, where schedules inside an objective have begun
Shape = Sequence[int]


def _matrix_vector_flops(matrix: Shape, vector: Shape, **_: Any) -> int:
    return 2 * prod(matrix)


def _lstm_flops(inputs: Shape, weight_ih: Shape, weight_hh: Shape, *_: Any, **__: Any) -> int:
    """One layer in one direction, as a CPU runs it."""
    return 2 * prod(inputs[:-1]) * (prod(weight_ih) + prod(weight_hh))


def _cudnn_lstm_flops(inputs: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    """All layers and directions at once, as CUDA runs them: every matrix is applied at every position."""
    return 2 * prod(inputs[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


def _twice(forward: Callable[..., int]) -> Callable[..., int]:
    """The backward pass of matrix products: the gradient of the input and the gradient of the matrix."""
    return lambda *args, **kwargs: 2 * forward(*args, **kwargs)


# what the counter does not know: recurrent kernels are whole layers to it
FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.mv: _matrix_vector_flops,
    torch.ops.aten.mkldnn_rnn_layer: _lstm_flops,
    torch.ops.aten.mkldnn_rnn_layer_backward: _twice(_lstm_flops),
    torch.ops.aten._cudnn_rnn: _cudnn_lstm_flops,
    torch.ops.aten._cudnn_rnn_backward: _twice(_cudnn_lstm_flops),
}


def count_flops(model: GradientTrained, images: Images, seed: int) -> tuple[int, int]:
    """Floating-point operations per image: of the training objective forward, and of forward and backward together.

    Counted are matrix products, convolutions and recurrent layers as they run, a multiplication and an addition as
    two; elementwise work, reductions and the optimizer are not. What a mask sets to zero is computed and so counted,
    what is computed twice to save memory counts twice. A copy of the model runs on all of `images`, which share what
    is computed once a step: as many as a batch has give the exact figure, where layers are wide a few are enough. The
    model, which may be unprepared, compiled or on a GPU, and the global random state stay as they are.
    """
    replica = copy.deepcopy(model).train()
    vars(replica).pop(replica.hot_method, None)  # a compiled method would run the weights of the original
    device = replica.device
    generator = generator_for(seed, Stream.STEP, device=device)
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.enable_grad(),
        FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter,
    ):
        objective = replica.objective(images.to(device), generator, PROGRESS)
        forward = counter.get_total_flops()
        objective.loss.sum().backward()
        training = counter.get_total_flops()
    return round(forward / len(images)), round(training / len(images))
