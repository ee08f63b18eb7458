"""Test and train NLL of a trained model from the nats of every image, with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dgm.config.sections import EvaluationConfig
from dgm.model_api.contracts import BoundModel, DensityModel, LatentVariableModel, LogLikelihood, Model
from dgm.model_api.scoring import Scored, score_images
from dgm.seeds import Stream
from dgm.types import Images, ImageSpec, NatsPerImage
from dgm.units import nats_to_bits_per_subpixel


class Track(Protocol):
    """Wraps the batch starts of one pass in a progress bar."""

    def __call__(self, iterable: Iterable[int], total: int, description: str, unit: str) -> Iterable[int]: ...


@dataclass(frozen=True)
class SplitResult:
    """One split scored.

    nats: (N,) float64, the mean over draws. monte_carlo_error: one standard error of the mean bits per sub-pixel that
    comes from the noise draws, None if the model is exact or has one draw. elbo_bits: the one-sample bound where
    `nats` is the importance-weighted one. terms: mean bits per sub-pixel of each part of the likelihood.
    """

    nats: NatsPerImage
    method: str
    kind: str
    bits_per_subpixel: float
    standard_error: float
    monte_carlo_error: float | None
    elbo_bits_per_subpixel: float | None
    terms_bits_per_subpixel: dict[str, float]


def evaluate_split(
    model: Model, images: Images, config: EvaluationConfig, seed: int, name: str, track: Track
) -> SplitResult:
    """Scores every image of a split, `num_draws` times where the model is stochastic.

    Shapes: images uint8 (N, C, H, W), on any device; the model stays where it is.
    """
    model.eval()
    device, size = model.device, config.batch_size
    starts = range(0, len(images), size)

    def one_pass(score: Callable[[Images, torch.Generator], LogLikelihood], draw: int) -> Scored:
        title = f"{name} pass {draw + 1}"
        return score_images(
            score,
            images,
            track(starts, len(starts), title, "batch"),
            size,
            seed,
            Stream.EVALUATION,
            draw,
            device=device,
        )

    is_stochastic = isinstance(model, DensityModel | BoundModel)
    draws = [one_pass(model.log_likelihood, draw) for draw in range(config.num_draws if is_stochastic else 1)]
    nats = torch.stack([draw.nats for draw in draws])
    method, kind, elbo_bits = draws[0].method, draws[0].kind, None
    terms = {key: torch.stack([draw.terms[key] for draw in draws]).mean(dim=0) for key in draws[0].terms}
    if isinstance(model, LatentVariableModel) and config.num_importance_samples > 0:
        elbo_bits = _mean_bits(nats.mean(dim=0), model.spec)
        weighted = one_pass(
            lambda batch, generator: model.importance_weighted(batch, generator, config.num_importance_samples), 0
        )
        nats, method, kind = weighted.nats.unsqueeze(0), weighted.method, weighted.kind
    mean_nats = nats.mean(dim=0)
    return SplitResult(
        nats=mean_nats,
        method=method,
        kind=kind,
        bits_per_subpixel=_mean_bits(mean_nats, model.spec),
        standard_error=_standard_error(mean_nats, model.spec),
        monte_carlo_error=_monte_carlo_error(nats, model.spec),
        elbo_bits_per_subpixel=elbo_bits,
        terms_bits_per_subpixel={key: _mean_bits(term, model.spec) for key, term in terms.items()},
    )


def _mean_bits(nats: Tensor, spec: ImageSpec) -> float:
    return -float(nats_to_bits_per_subpixel(nats.mean(), spec))


def _standard_error(nats: Tensor, spec: ImageSpec) -> float:
    """Of the mean bits per sub-pixel over images, NaN for one image. Shapes: (N,)."""
    return float(nats_to_bits_per_subpixel(nats.std() / len(nats) ** 0.5, spec)) if len(nats) > 1 else math.nan


def _monte_carlo_error(nats: Tensor, spec: ImageSpec) -> float | None:
    """Of the grand mean over images and draws. Shapes: (draws, N)."""
    if len(nats) < 2:
        return None
    variance_of_sum = (nats.var(dim=0) / len(nats)).sum()
    return float(nats_to_bits_per_subpixel(variance_of_sum.sqrt() / nats.shape[1], spec))
