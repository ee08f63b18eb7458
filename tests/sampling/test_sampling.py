"""Completion keeps what is given; pictures show every image; a sampler's uniform noise decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dgm.model_api.ancestral import invert_distribution, sample_ancestrally
from dgm.model_api.contracts import AutoregressiveModel
from dgm.runs.picture import GAP, SCALE, save_picture, tile
from dgm.sampling.completion import upper_half
from dgm.sampling.fixed_point import sample_by_fixed_point
from dgm.types import ImageSpec
from tests.tiny import random_images, tiny_model

SPEC = ImageSpec(3, 4, 4, levels=4)


def uniform_model() -> AutoregressiveModel:
    model = tiny_model("uniform", SPEC)
    assert isinstance(model, AutoregressiveModel)
    return model


def test_levels_are_drawn_with_their_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    drawn = invert_distribution(probabilities.log().expand(1000, -1), uniforms)
    assert torch.bincount(drawn, minlength=4).tolist() == [100, 0, 600, 300]
    cold = invert_distribution(probabilities.log().expand(1000, -1), uniforms, temperature=0.01)
    assert torch.bincount(cold, minlength=4).tolist() == [0, 0, 1000, 0]


def test_a_completion_keeps_the_upper_half_and_draws_the_rest() -> None:
    model, images = uniform_model(), random_images(SPEC, 3)
    given = upper_half(model, images)
    assert given is not None
    uniforms = torch.rand(3, SPEC.num_subpixels, dtype=torch.float64)
    completed = sample_ancestrally(model, model.conditionals(3), uniforms, 1.0, given)
    assert torch.equal(completed[:, :, :2], images[:, :, :2])
    free = sample_ancestrally(model, model.conditionals(3), uniforms, 1.0)
    assert torch.equal(completed[:, :, 2:], free[:, :, 2:])
    assert not torch.equal(free[:, :, :2], images[:, :, :2])


def test_an_order_that_jumps_has_no_exact_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    model = uniform_model()
    monkeypatch.setattr(model, "order", lambda: torch.arange(SPEC.num_subpixels).flip(0))
    assert upper_half(model, random_images(SPEC, 1)) is None


def test_the_parallel_sampler_refuses_a_model_that_is_not_causal(monkeypatch: pytest.MonkeyPatch) -> None:
    model = uniform_model()

    def contrary(images: Tensor) -> Tensor:
        is_zero = (images == 0).unsqueeze(-1)
        one, zero = torch.eye(4)[1] * 100, torch.eye(4)[0] * 100
        return torch.where(is_zero, one, zero).log_softmax(dim=-1)

    monkeypatch.setattr(model, "log_pmf", contrary)
    with pytest.raises(RuntimeError, match="not causal"):
        sample_by_fixed_point(model, torch.rand(2, SPEC.num_subpixels, dtype=torch.float64))


def test_a_picture_holds_every_sample_and_each_completion_below_its_original(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples, originals, completions = (rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8) for n in (10, 3, 3))
    save_picture(tmp_path / "p.png", samples, originals, completions)
    picture = np.asarray(Image.open(tmp_path / "p.png"))[::SCALE, ::SCALE]
    assert np.array_equal(picture[GAP : GAP + 4, GAP : GAP + 4], samples[0].transpose(1, 2, 0))
    second_row = GAP + 4 + GAP
    assert np.array_equal(picture[second_row : second_row + 4, GAP : GAP + 4], samples[8].transpose(1, 2, 0))
    top = len(tile(samples, 8)) + 4 * GAP + GAP
    third = GAP + 2 * (4 + GAP)
    assert np.array_equal(picture[top : top + 4, third : third + 4], originals[2].transpose(1, 2, 0))
    below = top + 4 + GAP
    assert np.array_equal(picture[below : below + 4, third : third + 4], completions[2].transpose(1, 2, 0))
    save_picture(tmp_path / "q.png", samples, originals[:0], completions[:0])
    assert Image.open(tmp_path / "q.png").height == len(tile(samples, 8)) * SCALE
