"""Every image is scored once, in order, and a non-finite number stops the stage."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgm.errors import StageError
from dgm.model_api.contracts import ELBO, EXACT, LogLikelihood
from dgm.model_api.scoring import score_images


def mean_pixel(images: Tensor, generator: torch.Generator) -> LogLikelihood:
    noise = torch.rand(len(images), generator=generator)
    mean = images.double().mean(dim=(1, 2, 3))
    return LogLikelihood(mean, EXACT, {"mean": mean, "noise": noise})


def numbered(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_no_image_is_dropped_whatever_the_batch_size(batch_size: int) -> None:
    scored = score_images(mean_pixel, numbered(10), range(0, 10, batch_size), batch_size, 1)
    assert scored.nats.tolist() == list(range(10))
    assert scored.kind == "exact"


def test_noise_depends_on_seed_and_position_only() -> None:
    def noise(*arguments: int) -> list[float]:
        return score_images(mean_pixel, numbered(4), range(0, 4, 2), 2, *arguments).terms["noise"].tolist()

    assert noise(1, 0) == noise(1, 0)
    assert noise(1, 0) != noise(1, 1)
    assert noise(1, 0) != noise(2, 0)
    assert noise(1, 0)[:2] != noise(1, 0)[2:]


def test_batches_that_do_not_cover_the_images_are_refused() -> None:
    with pytest.raises(ValueError, match="4 of 5"):
        score_images(mean_pixel, numbered(5), range(0, 4, 2), 2, 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_image_that_is_not_finite_is_named(bad: float) -> None:
    def score(images: Tensor, generator: torch.Generator) -> LogLikelihood:
        mean = images.double().mean(dim=(1, 2, 3))
        return LogLikelihood(torch.where(mean == 3, bad, mean), ELBO)

    with pytest.raises(StageError, match="image 3 is"):
        score_images(score, numbered(5), range(0, 5, 2), 2, 1)
