"""A training that a GPU replays takes the steps of the plain loop: the same images, noise, dropout and statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dgm.config.sections import TrainingConfig
from dgm.engine.graphed import GraphedTrainer
from dgm.engine.loop import Trainer
from dgm.engine.result import TrainingResult
from dgm.engine.session import Session
from dgm.runs.checkpoint import Scratch
from dgm.seeds import seed_global
from tests.tiny import SMALL, UntrackedRun, random_images, tiny_training, untrained_model

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dropout": ("pixelcnn_pp", {"dropout": 0.5}, {"optimizer": "muon"}),
    "batch_norm": ("real_nvp", {"norm": "batch_norm"}, {"horizontal_flip": True}),
    "scored_pixels": ("pixelcnn", {"num_start_images": 0, "scored_fraction": 0.5}, {"optimizer": "muon"}),
    "scan": ("diagonal_bilstm", {}, {}),
    "mixture_of_scans": ("ride", {}, {}),
    "latents": ("conv_draw", {}, {"horizontal_flip": True}),
    "glimpses": ("draw", {}, {}),
    "crops": ("hourglass", {}, {"optimizer": "muon"}),
    "positions": ("neighbourhood", {}, {}),
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def trained(
    kind: type[Trainer], case: str, folder: Path, device: str, stop_after: float | None = None
) -> TrainingResult:
    """Five steps, or those after the checkpoint that an earlier call left."""
    name, model_changes, training_changes = CASES[case]
    changes = {"batch_size": 6, "max_steps": 5, "validate_every": 2, "validation_batch_size": 7, **training_changes}
    config = TrainingConfig.model_validate(tiny_training(**changes))
    seed_global(1)
    model: Any = untrained_model(name, SMALL, changes=model_changes).to(device)
    images, held_out = (random_images(SMALL, *size).to(device) for size in ((50,), (20, 1)))
    with Scratch("smoke", name, "key", folder / kind.__name__) as scratch:
        session = Session(scratch, UntrackedRun(), scratch.load(), 1e9, stop_after)
        return kind(model, images, held_out, config, 1, session).run()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_the_steps_are_those_of_the_plain_loop(case: str, device: str, tmp_path: Path) -> None:
    plain, graphed = (trained(kind, case, tmp_path, device) for kind in (Trainer, GraphedTrainer))
    tolerance = 0.0 if device == "cpu" else 1e-4  # a GPU may choose another kernel
    for expected, point in zip(plain.curve, graphed.curve, strict=True):
        bits = (expected.train_bits_per_subpixel or 0.0, expected.validation_bits_per_subpixel)
        of_graph = (point.train_bits_per_subpixel or 0.0, point.validation_bits_per_subpixel)
        assert of_graph == pytest.approx(bits, abs=tolerance, rel=0)
    for name, tensor in plain.state.items():
        difference = (graphed.state[name].double() - tensor.double()).abs().max() if tensor.numel() else 0.0
        assert difference <= (0.0 if device == "cpu" else 2e-3), name  # rates of 0.01: the sign of a gradient near zero


@pytest.mark.parametrize("device", DEVICES)
def test_a_paused_training_ends_as_one_that_was_not(device: str, tmp_path: Path) -> None:
    whole = trained(GraphedTrainer, "batch_norm", tmp_path / "whole", device)
    steps = [trained(GraphedTrainer, "batch_norm", tmp_path, device, stop_after=0.0).num_steps for _ in range(5)]
    assert steps == [1, 2, 3, 4, 5]
    resumed = trained(GraphedTrainer, "batch_norm", tmp_path, device)
    assert resumed.is_finished and [point.step for point in resumed.curve] == [0, 2, 4, 5]
    for name, tensor in whole.state.items():
        torch.testing.assert_close(resumed.state[name], tensor, rtol=0, atol=0 if device == "cpu" else 1e-4)
