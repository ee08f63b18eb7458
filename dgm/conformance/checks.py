"""What must hold of any model that claims a likelihood, whatever is inside it. Each check is a Finding.

Exact models: probabilities of all images sum to one; `log_prob` is the sum of the conditionals that `log_pmf` says;
that none of them sees ahead is asked in real_size.py. Densities: the integral over grey levels is one. Bounds:
importance weights average to probabilities, which sum to one over all images, and the bound is their mean logarithm.
All of them: the figure of an image depends on nothing but the image, the weights and the noise.
Sources: Theis, van den Oord & Bethge (2016), arXiv 1511.01844 (densities and bits); Burda, Grosse & Salakhutdinov
(2016), arXiv 1509.00519 (weights).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dgm.model_api.contracts import AutoregressiveModel, BoundModel, DensityModel, LatentVariableModel, Model
from dgm.seeds import generator_for
from dgm.types import Images, ImageSpec

ERRORS = 5.0  # standard errors that an estimate may be off
LARGEST_RELATIVE_ERROR = 0.02  # of a Monte-Carlo estimate that is to decide anything
TOLERANCE = 1e-6  # relative, of float64 sums in another order


@dataclass(frozen=True)
class Finding:
    """One property: whether it holds, and by which figures one sees that."""

    check: str
    holds: bool
    detail: str


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo mean and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """Shapes: values (draws,)."""
        return cls(float(values.mean()), float(values.std() / len(values) ** 0.5))

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.error:.4f}"


def all_images(spec: ImageSpec) -> Images:
    """Every image there is. Shapes: -> uint8 (levels^D, C, H, W)."""
    grid = torch.cartesian_prod(*[torch.arange(spec.levels)] * spec.num_subpixels)
    return grid.to(torch.uint8).view(-1, *spec.shape)


@torch.no_grad()
def repeats_itself(model: Model, images: Images) -> Finding:
    """The same images with the same noise cost the same: no dropout, no counter, no global random state."""
    first, second = (model.log_likelihood(images, generator_for(0)).nats for _ in range(2))
    worst = float((first - second).abs().max())
    return Finding("repeats itself", worst == 0.0, f"two scorings differ by at most {worst:.3g} nats")


@torch.no_grad()
def ignores_other_images(
    model: AutoregressiveModel | DensityModel, images: Images, tolerance: float = TOLERANCE
) -> Finding:
    """An image costs among others what it costs alone: no statistics of the batch. A density is asked at v + 1/2."""
    alone, among = alone_and_among(model, images)
    return _close("ignores other images", alone, among, tolerance)


def alone_and_among(model: AutoregressiveModel | DensityModel, images: Images) -> tuple[Tensor, Tensor]:
    """What each image costs by itself and in one batch; a density is asked at v + 1/2. Shapes: -> nats (N,) each."""
    if isinstance(model, AutoregressiveModel):
        return torch.cat([model.log_prob(image) for image in images.split(1)]), model.log_prob(images)
    x = images.double() + 0.5
    return torch.cat([model.log_density(image) for image in x.split(1)]), model.log_density(x)


@torch.no_grad()
def conditionals_add_up(model: AutoregressiveModel, images: Images, tolerance: float = TOLERANCE) -> Finding:
    """Each conditional sums to one, and log_prob is the sum of those of the values that are there."""
    log_pmf = model.log_pmf(images)
    excess = float(log_pmf.logsumexp(dim=-1).abs().max())
    chosen = log_pmf.gather(-1, images.long().unsqueeze(-1)).squeeze(-1).flatten(1).double().sum(dim=1)
    found = _close("conditionals add up", model.log_prob(images), chosen, tolerance)
    return Finding(found.check, found.holds and excess < 1e-5, f"{found.detail}; log of a sum up to {excess:.2g} off")


@torch.no_grad()
def probabilities_sum_to_one(model: AutoregressiveModel) -> Finding:
    """Over all images of the model's size, which must be tiny."""
    total = float(model.log_prob(all_images(model.spec)).double().exp().sum())
    return Finding("probabilities sum to one", abs(total - 1) < TOLERANCE, f"sum over all images {total:.8f}")


@torch.no_grad()
def density_integrates_to_one(model: DensityModel, num_draws: int = 100_000) -> Finding:
    """The integral of the density over grey levels, by importance sampling; of a tiny image size.

    The proposal is half a Gaussian around the model's own samples, half uniform far beyond the cube of images, so
    that mass where the sampler has none is found too.
    """
    spec, generator = model.spec, generator_for(1)
    samples = model.sample_density(4000, generator, 1.0).flatten(1).double()
    mean, covariance = samples.mean(dim=0), 1.5 * torch.cov(samples.T) + 0.05 * torch.eye(spec.num_subpixels)
    gaussian = torch.distributions.MultivariateNormal(mean, covariance)
    low, high = -1.0 * spec.levels, 2.0 * spec.levels
    noise = torch.randn(num_draws, spec.num_subpixels, generator=generator, dtype=torch.float64)
    x = mean + noise @ torch.linalg.cholesky(covariance).T
    box = low + (high - low) * torch.rand(x.shape, generator=generator, dtype=torch.float64)
    x = torch.where(torch.rand(num_draws, 1, generator=generator) < 0.5, x, box)
    is_in_box = ((x >= low) & (x < high)).all(dim=1)
    log_box = torch.where(is_in_box, -spec.num_subpixels * math.log(high - low), -math.inf)
    log_proposal = torch.logaddexp(gaussian.log_prob(x), log_box) - math.log(2)
    log_density = model.log_density(x.view(-1, *spec.shape)).double()
    is_image = ((x >= 0) & (x < spec.levels)).all(dim=1)  # elsewhere a density may be undefined, which is none there
    log_density = torch.where(is_image | log_density.isfinite(), log_density, -math.inf)
    return _is_one("density integrates to one", Estimate.of((log_density - log_proposal).exp()))


@torch.no_grad()
def weights_sum_to_one(model: LatentVariableModel, num_draws: int = 400) -> Finding:
    """Importance weights are unbiased estimates of probabilities, which sum to one over all images of a tiny size."""
    images = all_images(model.spec)
    sums = [model.log_weights(images, generator_for(2, draw)).double().exp().sum() for draw in range(num_draws)]
    return _is_one("weights sum to one", Estimate.of(torch.stack(sums)))


@torch.no_grad()
def bound_is_the_mean_log_weight(model: LatentVariableModel, images: Images, num_draws: int = 400) -> Finding:
    """The one-sample bound and log p(x, z) - log q(z | x) have one mean: the divergences are those of the densities."""

    def difference(draw: int) -> Tensor:
        bound = model.log_likelihood(images, generator_for(3, draw)).nats
        return (bound - model.log_weights(images, generator_for(3, draw))).double().mean()

    estimate = Estimate.of(torch.stack([difference(draw) for draw in range(num_draws)]))
    holds = abs(estimate.mean) <= ERRORS * estimate.error + 1e-9
    return Finding("bound is the mean log weight", holds, f"bound less log weight {estimate} nats")


@torch.no_grad()
def bound_sums_to_at_most_one(model: BoundModel, num_draws: int = 300) -> Finding:
    """The sum of exp(bound) over all images of a tiny size; a bound that claims more is none."""
    images = all_images(model.spec)
    nats = torch.stack([model.log_likelihood(images, generator_for(4, draw)).nats for draw in range(num_draws)])
    mean, error = nats.mean(dim=0), nats.std(dim=0) / num_draws**0.5
    total, total_error = float(mean.exp().sum()), float((mean.exp() * error).sum())
    least = float((mean - ERRORS * error).exp().sum())  # never negative, however noisy the bound is
    holds = math.isfinite(total) and least <= 1
    return Finding("bound sums to at most one", holds, f"sum {Estimate(total, total_error)}")


def _close(check: str, one: Tensor, other: Tensor, tolerance: float) -> Finding:
    difference = float(((one - other).abs() / other.abs().clamp(min=1.0)).max())
    return Finding(check, difference < tolerance, f"relative difference at most {difference:.2g}")


def _is_one(check: str, estimate: Estimate) -> Finding:
    is_decided = estimate.error < LARGEST_RELATIVE_ERROR * max(estimate.mean, 1.0)
    holds = is_decided and abs(estimate.mean - 1) <= ERRORS * estimate.error + TOLERANCE
    return Finding(check, holds, f"{estimate}" + ("" if is_decided else ", too noisy to decide"))
