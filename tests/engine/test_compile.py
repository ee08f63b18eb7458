"""Models that params.yaml compiles become one graph each, which computes what the model's own code computes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor

from dgm.config.params import PROFILES, load_params
from dgm.config.sections import TrainingConfig
from dgm.engine.loop import Trainer
from dgm.engine.session import Session
from dgm.model_api.contracts import GradientTrained
from dgm.runs.checkpoint import Scratch
from dgm.runs.records import CurvePoint
from dgm.seeds import generator_for, seed_global
from tests.tiny import SMALL, TRAINED, UntrackedRun, random_images, tiny_model, tiny_training

PARAMS = load_params()
COMPILED = [
    name for name in TRAINED if any(PARAMS.model_section(name, profile, "training")["compile"] for profile in PROFILES)
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def loss_and_gradients(model: Any) -> list[Tensor]:
    seed_global(3)  # dropout
    loss = model.objective(random_images(SMALL, 6), generator_for(1), 0.5).loss
    loss.sum().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return [loss.detach(), *gradients]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", COMPILED)
def test_the_hot_method_is_one_graph_that_computes_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the code generator, which takes minutes: `fullgraph` fails where Python would have to step in."""
    model = tiny_model(name, SMALL).train()
    expected = loss_and_gradients(model)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    model.compile_hot_method()
    for actual, exact in zip(loss_and_gradients(model), expected, strict=True):
        torch.testing.assert_close(actual, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", COMPILED)
def test_it_is_one_graph_in_half_precision_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(name, SMALL).float().train()
    if name == "deep_diffusion":
        model.start.double()  # type: ignore[union-attr, operator]
    # what makes one graph is in front of the backend, and the test above has seen the backward pass of that
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = loss_and_gradients(model)
        model.compile_hot_method()
        actual = loss_and_gradients(model)
    torch.testing.assert_close(actual[0], expected[0], rtol=0.02, atol=0)


def test_training_compiles_one_shape_and_validation_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append([len(value) for value in inputs if value.dtype == torch.uint8])
        return graph.forward

    def train(is_compiled: bool) -> Sequence[CurvePoint]:
        seed_global(1)
        model = tiny_model("pixelcnn", SMALL)
        assert isinstance(model, GradientTrained)
        config = TrainingConfig.model_validate(tiny_training(compile=is_compiled, validation_batch_size=7))
        images, held_out = random_images(SMALL, 50), random_images(SMALL, 20, 1)
        with Scratch("smoke", "pixelcnn", "key", tmp_path) as scratch:
            session = Session(scratch, UntrackedRun(), None, checkpoint_seconds=1e9)
            return Trainer(model, images, held_out, config, 1, session).run().curve

    expected = train(is_compiled=False)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    assert train(is_compiled=True) == expected
    assert graphs == [[8]]
