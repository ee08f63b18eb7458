"""What every model promises, checked on every entry of the registry and on the variants of tests/variants.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from dgm.model_api.ancestral import RecomputedConditionals, sample_ancestrally
from dgm.model_api.contracts import AutoregressiveModel, DensityModel, Fitted, GradientTrained
from dgm.registry import MODELS, model_class
from dgm.sampling.fixed_point import sample_by_fixed_point
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.tiny import SMALL, TINY_MODELS, TRAINED, all_images, random_images, tiny_model, untrained_model
from tests.variants import AUTOREGRESSIVE, ENUMERATED, TRAINED_VARIANTS, VARIANTS

WITHOUT_CONTEXT = ("uniform", "histogram_per_channel")


def autoregressive(name: str, spec: ImageSpec | None = None) -> AutoregressiveModel:
    """A variant at its small size, or another."""
    variant = VARIANTS[name]
    model = variant.build(spec or variant.small)
    assert isinstance(model, AutoregressiveModel)
    return model


def test_every_model_has_a_tiny_configuration() -> None:
    assert set(TINY_MODELS) == set(MODELS) == {variant.model for variant in VARIANTS.values()}


@pytest.mark.parametrize("name", ENUMERATED)
def test_probabilities_of_all_images_sum_to_one(name: str) -> None:
    model = autoregressive(name, VARIANTS[name].enumerable)
    with torch.no_grad():
        total = model.log_prob(all_images(model.spec)).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_a_subpixel_moves_no_conditional_before_or_at_it(name: str) -> None:
    model = autoregressive(name)
    order, spec = model.order(), model.spec
    image = random_images(spec, 1)
    changed = image.repeat(spec.num_subpixels, 1, 1, 1)
    flat = changed.flatten(1)
    positions = torch.arange(spec.num_subpixels)
    steps = 1 + positions.to(torch.uint8) % (spec.levels - 1)
    flat[positions, order] = (flat[positions, order] + steps) % spec.levels
    with torch.no_grad():
        reference = model.log_pmf(image).flatten(1, 3)[:, order]
        moved = (model.log_pmf(changed).flatten(1, 3)[:, order] - reference).abs().amax(dim=-1)
    leaks = (moved.tril() > 1e-9).nonzero()  # row: position that changed; column: conditional; j <= i must not move
    assert len(leaks) == 0, f"{name}: conditional {leaks[0, 1]} sees sub-pixel {leaks[0, 0]}"
    if VARIANTS[name].model not in WITHOUT_CONTEXT:
        assert bool((moved.triu(1) > 1e-9).any()), f"{name}: no conditional depends on anything"


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_log_prob_is_the_sum_of_normalised_conditionals(name: str) -> None:
    model = autoregressive(name)
    images = random_images(model.spec, 5, seed=1)
    with torch.no_grad():
        log_pmf = model.log_pmf(images)
        chosen = log_pmf.gather(-1, images.long().unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(log_pmf.logsumexp(dim=-1), torch.zeros(()).double(), atol=1e-9)
        assert torch.allclose(chosen.double().flatten(1).sum(dim=1), model.log_prob(images), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_cached_conditionals_are_the_teacher_forced_ones(name: str) -> None:
    model = autoregressive(name)
    images = random_images(model.spec, 3, seed=2)
    order = model.order().tolist()
    cached, unread = model.conditionals(len(images)), model.conditionals(len(images))
    with torch.no_grad():
        log_pmf, flat = model.log_pmf(images).flatten(1, 3), images.flatten(1).long()
        for index in order:
            last = cached.log_pmf()
            assert torch.allclose(last, log_pmf[:, index], rtol=0, atol=1e-9), f"{name} at sub-pixel {index}"
            cached.push(flat[:, index])
        for index in order[:-1]:  # pushed to without ever being asked
            unread.push(flat[:, index])
        assert torch.allclose(unread.log_pmf(), log_pmf[:, order[-1]], rtol=0, atol=1e-9), f"{name}, unread"


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_cached_naive_and_parallel_samplers_draw_the_same_images(name: str) -> None:
    model = autoregressive(name, VARIANTS[name].enumerable)
    uniforms = torch.rand(6, model.spec.num_subpixels, generator=generator_for(3), dtype=torch.float64)
    cached = sample_ancestrally(model, model.conditionals(6), uniforms, 1.0)
    parallel, _ = sample_by_fixed_point(model, uniforms)
    assert torch.equal(cached, parallel)
    if VARIANTS[name].enumerable is not None:  # one whole network a sub-pixel
        assert torch.equal(cached, sample_ancestrally(model, RecomputedConditionals(model, 6), uniforms, 1.0))


@pytest.mark.parametrize(("num_images", "temperature"), [(1, 0.6), (5, 0.0), (3, 1.7)])
@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_cached_and_parallel_samplers_agree_at_any_temperature(name: str, num_images: int, temperature: float) -> None:
    """With a first batch abandoned half-way: two batches of conditionals share nothing."""
    model = autoregressive(name, VARIANTS[name].enumerable)
    uniforms = torch.rand(num_images, model.spec.num_subpixels, generator=generator_for(5), dtype=torch.float64)
    cached, abandoned = model.conditionals(num_images), model.conditionals(num_images + 1)
    for _ in range(model.spec.num_subpixels // 2):
        abandoned.push(abandoned.log_pmf().argmax(dim=-1))
    drawn = sample_ancestrally(model, cached, uniforms, temperature)
    assert torch.equal(drawn, sample_by_fixed_point(model, uniforms, temperature)[0])


@pytest.mark.parametrize("name", MODELS)
def test_a_score_does_not_depend_on_the_other_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = tiny_model(name, SMALL), random_images(SMALL, 6, seed=4)
    # latent noise is drawn for a whole batch at once: without it, what an image gets must not depend on the batch
    monkeypatch.setattr(torch, "randn", lambda *shape, **keywords: torch.zeros(*shape, dtype=keywords.get("dtype")))

    def nats(batch: Tensor) -> Tensor:
        with torch.no_grad():
            if isinstance(model, DensityModel):
                return model.log_density(batch.double() + 0.5)
            return model.log_likelihood(batch, generator_for(0)).nats

    assert torch.allclose(nats(images)[:2], nats(images[:2]), rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("name", VARIANTS)
def test_samples_are_images_scored_finite_and_a_function_of_the_generator(name: str) -> None:
    variant = VARIANTS[name]
    model = variant.build((name in AUTOREGRESSIVE and variant.enumerable) or variant.small)
    images = model.sample(4, generator_for(5))
    model.check_images(images)
    assert int(images.max()) < model.spec.levels
    with torch.no_grad():
        assert bool(model.log_likelihood(images, generator_for(0)).nats.isfinite().all())
    assert torch.equal(images, model.sample(4, generator_for(5)))
    assert not torch.equal(images, model.sample(4, generator_for(6)))


@pytest.mark.parametrize("name", MODELS)
def test_weights_alone_restore_the_model(name: str) -> None:
    model, images = tiny_model(name, SMALL), random_images(SMALL, 3, seed=7)
    other = type(model)(SMALL, model.config).double()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    with torch.no_grad():
        expected = model.log_likelihood(images, generator_for(0)).nats
        assert torch.equal(expected, other.eval().log_likelihood(images, generator_for(0)).nats)


@pytest.mark.parametrize("name", MODELS)
def test_other_images_are_refused(name: str) -> None:
    model = tiny_model(name, SMALL)
    with pytest.raises(TypeError, match="uint8"):
        model.log_likelihood(torch.zeros(1, *SMALL.shape), generator_for(0))
    with pytest.raises(ValueError, match="images must be"):
        model.log_likelihood(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), generator_for(0))


@pytest.mark.parametrize("name", TRAINED_VARIANTS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = VARIANTS[name].build(VARIANTS[name].small)
    images = random_images(model.spec, 4, seed=8)
    assert isinstance(model, GradientTrained)
    model.train()
    model.objective(images, generator_for(0), 0.5).loss.mean().backward()
    dead = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not dead


@pytest.mark.parametrize("name", TRAINED)
def test_no_parameter_is_stuck_at_the_start(name: str) -> None:
    # a factor of zero in front of a zero has no gradient, nor has the other: both would stay where they are
    model, images = untrained_model(name, SMALL), random_images(SMALL, 64)
    assert isinstance(model, GradientTrained)
    model.prepare(images, generator_for(0))
    model.train()
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(6):
        optimizer.zero_grad()
        model.objective(images, generator_for(step), 0.5).loss.mean().backward()
        optimizer.step()
    assert not [key for key, parameter in model.named_parameters() if torch.equal(parameter, before[key])]


@pytest.mark.parametrize("name", MODELS)
def test_kind_follows_from_the_parts(name: str) -> None:
    model, images = tiny_model(name, SMALL), random_images(SMALL, 2)
    with torch.no_grad():
        result = model.log_likelihood(images, generator_for(0))
    assert result.kind == ("exact" if isinstance(model, AutoregressiveModel) else "lower_bound")
    assert result.nats.shape == (2,)
    assert result.nats.dtype == torch.float64


def test_fitted_and_trained_exclude_each_other() -> None:
    assert not [n for n in MODELS if issubclass(model_class(n), Fitted) == issubclass(model_class(n), GradientTrained)]
