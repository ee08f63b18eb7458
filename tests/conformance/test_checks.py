"""Every kind of likelihood keeps its contract on tiny images, and planted faults are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from dgm.conformance import checks
from dgm.conformance.checks import Finding
from dgm.model_api.contracts import AutoregressiveModel, BoundModel, DensityModel, LatentVariableModel
from dgm.models.pixelcnn_pp.shifted_conv import GatedResnet
from dgm.registry import MODELS, model_class
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.tiny import SMALL, random_images, tiny_model, untrained_model

PAIR, QUAD, BITS = ImageSpec(3, 1, 2, levels=3), ImageSpec(1, 2, 2, levels=4), ImageSpec(1, 2, 2, levels=2)
DENSITIES: dict[str, tuple[ImageSpec, dict[str, Any]]] = {
    name: (PAIR, {}) for name in MODELS if issubclass(model_class(name), DensityModel)
} | {"deep_gmm": (QUAD, {"block_size": 2}), "real_nvp": (QUAD, {"num_scales": 1})}
LATENT: dict[str, dict[str, Any]] = {
    "vae": {"stem_stride": 1, "features": [4], "num_latents": 1},
    "vae_iaf": {"stem_stride": 2, "num_latents": 1},
    "draw": {"read_size": 2, "write_size": 2, "num_latents": 1, "num_steps": 2},
    "conv_draw": {"num_latents": 1},
}
EXACT = [name for name in MODELS if issubclass(model_class(name), AutoregressiveModel)]


def calm(name: str, changes: Mapping[str, Any], shake: float = 0.05) -> Any:
    """A latent-variable or diffusion model near its start, where a few hundred importance weights decide."""
    model = untrained_model(name, BITS, 0, changes).double()
    cast(Any, model).prepare(random_images(BITS, 64), generator_for(0))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(shake * torch.randn_like(parameter))
    return model.eval()


def density(name: str) -> DensityModel:
    spec, changes = DENSITIES[name]
    return cast(DensityModel, tiny_model(name, spec, changes=changes))


def exact(name: str, spec: ImageSpec = SMALL) -> AutoregressiveModel:
    return cast(AutoregressiveModel, tiny_model(name, spec))


def assert_found(finding: Finding) -> None:
    assert not finding.holds, finding


@pytest.mark.parametrize("name", sorted(DENSITIES))
def test_densities_integrate_to_one(name: str) -> None:
    assert (finding := checks.density_integrates_to_one(density(name), 30_000)).holds, finding


@pytest.mark.parametrize("name", sorted(LATENT))
def test_weights_sum_to_one_and_the_bound_is_their_mean_logarithm(name: str) -> None:
    model = calm(name, LATENT[name])
    assert isinstance(model, LatentVariableModel)
    for finding in (
        checks.weights_sum_to_one(model),
        checks.bound_is_the_mean_log_weight(model, checks.all_images(BITS), 60),
        checks.bound_sums_to_at_most_one(model, 60),
    ):
        assert finding.holds, finding


def test_the_diffusion_bound_sums_to_at_most_one() -> None:
    model = calm("deep_diffusion", {})
    assert isinstance(model, BoundModel)
    assert (finding := checks.bound_sums_to_at_most_one(model, 100)).holds, finding


@pytest.mark.parametrize("name", sorted(set(EXACT) | set(DENSITIES)))
def test_an_image_costs_what_it_costs_alone_and_every_time(name: str) -> None:
    model = tiny_model(name, SMALL)
    assert isinstance(model, AutoregressiveModel | DensityModel)
    images = random_images(SMALL, 4, seed=2)
    for finding in (checks.ignores_other_images(model, images), checks.repeats_itself(model, images)):
        assert finding.holds, finding


# What follows are planted faults. Each once passed as a likelihood somewhere, and is found here.


def test_a_flow_without_its_log_determinant(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = density("nice"), cast(Any, model_class("nice")).log_density
    monkeypatch.setattr(type(model), "log_density", lambda self, x: plain(self, x) - self.whitening_log_det)
    assert_found(checks.density_integrates_to_one(model, 30_000))


@pytest.mark.parametrize("name", ["multivariate_gaussian", "nice", "ride"])
def test_a_density_of_other_units(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = density(name), cast(Any, model_class(name)).log_density
    gained = model.spec.num_subpixels * torch.tensor(model.spec.levels / 2).log()
    monkeypatch.setattr(type(model), "log_density", lambda self, x: plain(self, x) + gained)
    assert_found(checks.density_integrates_to_one(model, 30_000))


def test_half_a_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = calm("vae", LATENT["vae"], shake=0.3), cast(Any, model_class("vae")).bound_terms

    def halved(self: Any, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        terms = plain(self, images, generator)
        return {name: term if name == "reconstruction" else 0.5 * term for name, term in terms.items()}

    images = checks.all_images(BITS)
    assert (finding := checks.bound_is_the_mean_log_weight(model, images, 200)).holds, finding
    monkeypatch.setattr(type(model), "bound_terms", halved)
    assert_found(checks.bound_is_the_mean_log_weight(model, images, 200))


def test_a_thousand_nats_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    model, kind = calm("conv_draw", LATENT["conv_draw"]), cast(Any, model_class("conv_draw"))
    weights, terms = kind.log_weights, kind.bound_terms
    monkeypatch.setattr(kind, "log_weights", lambda self, *given: weights(self, *given) + 1000)
    monkeypatch.setattr(
        kind, "bound_terms", lambda self, *given: {name: term + 1000 for name, term in terms(self, *given).items()}
    )
    assert_found(checks.weights_sum_to_one(model, 50))
    assert_found(checks.bound_sums_to_at_most_one(model, 20))


def test_the_scale_of_a_prior_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    model, kind = calm("vae", LATENT["vae"]), cast(Any, model_class("vae"))
    plain = kind.log_weights
    monkeypatch.setattr(kind, "log_weights", lambda self, *given: plain(self, *given) + 4 * torch.tensor(2.0).log())
    assert_found(checks.weights_sum_to_one(model))


def chosen(self: Any, images: Tensor) -> Tensor:
    return self.log_pmf(images).gather(-1, images.long().unsqueeze(-1)).flatten(1).double().sum(dim=1)


def shifted(self: Any, images: Tensor) -> Tensor:
    log_pmf = self.log_pmf(images)
    other = ((images.long() + 1) % self.spec.levels).unsqueeze(-1)
    return log_pmf.gather(-1, other).flatten(1).double().sum(dim=1)


def swapped(self: Any, images: Tensor) -> Tensor:
    return self.log_pmf(images).flip(1).gather(-1, images.long().unsqueeze(-1)).flatten(1).double().sum(dim=1)


def clipped(self: Any, images: Tensor) -> Tensor:
    chosen = self.log_pmf(images).gather(-1, images.long().unsqueeze(-1))
    return chosen.clamp(min=-1.0).flatten(1).double().sum(dim=1)


@pytest.mark.parametrize("fault", [shifted, swapped, clipped])
def test_other_conditionals_than_those_that_are_summed(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = exact("pixelcnn"), random_images(SMALL, 5)
    assert checks.conditionals_add_up(model, images).holds
    monkeypatch.setattr(type(model), "log_prob", fault)
    assert_found(checks.conditionals_add_up(model, images))


def test_conditionals_that_are_clipped_and_not_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = exact("pixelcnn", PAIR), cast(Any, model_class("pixelcnn")).log_pmf
    assert checks.probabilities_sum_to_one(model).holds
    monkeypatch.setattr(type(model), "log_pmf", lambda self, images: plain(self, images).clamp(min=-1.0))
    monkeypatch.setattr(type(model), "log_prob", chosen)
    assert_found(checks.probabilities_sum_to_one(model))
    assert_found(checks.conditionals_add_up(model, random_images(PAIR, 5)))


def test_dropout_left_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = exact("pixelcnn_pp")
    images = random_images(SMALL, 5)
    assert checks.repeats_itself(model, images).holds
    assert any(isinstance(module, GatedResnet) and module.dropout > 0 for module in model.modules())
    assert_found(checks.repeats_itself(model.train(), images))


def test_statistics_of_the_test_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cast(DensityModel, tiny_model("real_nvp", SMALL, changes={"norm": "batch_norm"}))
    images = random_images(SMALL, 6)
    assert checks.ignores_other_images(model, images).holds
    assert_found(checks.ignores_other_images(model.train(), images))
