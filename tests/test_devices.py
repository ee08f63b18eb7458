"""A model that is moved to a device computes there: no operation mixes tensors of two devices, as a GPU would refuse.

No GPU is needed: the other device is torch's `meta`, which knows shapes and no values.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dgm.model_api.contracts import AutoregressiveModel, GradientTrained, Model
from dgm.registry import MODELS, model_class
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.tiny import SMALL, TRAINED, random_images, untrained_model

ELSEWHERE = torch.device("meta")
# autoregressive models visit every sub-pixel in Python, which is slow here: two rows, both borders, two columns between
# them and all channels have every kind of step
STEPS = ImageSpec(channels=3, height=2, width=4, levels=4)
READS_A_VALUE = ("Cannot copy out of meta tensor", "cannot be called on meta tensors")  # on a GPU: waits for it
READERS = {("ppca", "scores")}
READERS |= {
    (name, "samples")
    for name in (
        "mixture_of_gaussians",
        "made",
        "ride",
        "nice",
        "pixelcnn_pp",
        "neighbourhood",
        "hourglass",
        "real_nvp",
    )
}
aten = torch.ops.aten
MAY_MIX = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default}


class Elsewhere(torch.Generator):
    """Says that it is on the other device: what is drawn where it is cannot be read there."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return ELSEWHERE


class OneDevice(TorchDispatchMode):
    """Raises: AssertionError naming an operation on tensors (numbers aside) of more than one device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [value for value in tree_leaves((args, kwargs or {})) if isinstance(value, Tensor) and value.ndim]
        devices = {str(tensor.device) for tensor in tensors}
        assert len(devices) < 2 or func in MAY_MIX, f"{func} of tensors on {sorted(devices)}"
        return func(*args, **(kwargs or {}))


def learns(model: Model) -> None:
    assert isinstance(model, GradientTrained)
    model.train()
    images = random_images(model.spec, 4).to(ELSEWHERE)
    model.objective(images, Elsewhere().manual_seed(1), 0.5).loss.sum().backward()


def scores(model: Model) -> None:
    assert model.log_likelihood(random_images(model.spec, 4).to(ELSEWHERE), generator_for(1)).nats.device == ELSEWHERE


def samples(model: Model) -> None:
    assert model.sample(2, generator_for(1)).device == ELSEWHERE


def model_elsewhere(name: str, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # has no meta device
    spec = STEPS if issubclass(model_class(name), AutoregressiveModel) else SMALL
    return untrained_model(name, spec).eval().to(ELSEWHERE)


WORKS = [(name, work) for name in MODELS for work in (scores, samples)]
WORKS += [(name, learns) for name in TRAINED]


@pytest.mark.parametrize(("name", "work"), WORKS, ids=lambda part: getattr(part, "__name__", part))
def test_no_operation_mixes_devices(name: str, work: Callable[[Model], None], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_elsewhere(name, monkeypatch)
    with OneDevice():
        if (name, work.__name__) in READERS:
            with pytest.raises((RuntimeError, NotImplementedError), match="|".join(READS_A_VALUE)):
                work(model)
        else:
            work(model)


def test_a_forgotten_tensor_is_noticed() -> None:
    with pytest.raises(AssertionError, match="mm"), OneDevice():
        torch.mm(torch.zeros(2, 2), torch.zeros(2, 2, device=ELSEWHERE))
