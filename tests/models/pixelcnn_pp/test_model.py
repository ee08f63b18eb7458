"""PixelCNN++: exact probabilities, causality, cached conditionals, published size, initialisation."""

from __future__ import annotations

import copy
import itertools
import re

import pytest
import torch

from dgm.model_api.ancestral import RecomputedConditionals
from dgm.models.pixelcnn_pp.model import PixelCNNpp, PixelCNNppConfig
from dgm.models.pixelcnn_pp.shifted_conv import DataInitialized
from dgm.types import CIFAR10, ImageSpec


def small_model(spec: ImageSpec, num_stages: int = 3, num_resnets: int = 1, weight_norm: bool = True) -> PixelCNNpp:
    """A float64 model whose parameters are all random, so that no path is hidden by an initial zero."""
    torch.manual_seed(0)
    config = PixelCNNppConfig(
        num_filters=4,
        num_resnets=num_resnets,
        num_stages=num_stages,
        num_mixtures=2,
        dropout=0.0,
        weight_norm=weight_norm,
        num_init_images=4,
    )
    model = PixelCNNpp(spec, config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def random_images(spec: ImageSpec, num_images: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(spec.levels, (num_images, *spec.shape), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("spec", [ImageSpec(3, 1, 2, levels=3), ImageSpec(2, 2, 1, levels=3), ImageSpec(1, 2, 2, 3)])
def test_probabilities_of_all_images_sum_to_one(spec: ImageSpec) -> None:
    images = torch.tensor(list(itertools.product(range(spec.levels), repeat=spec.num_subpixels)), dtype=torch.uint8)
    num_stages = 2 if spec.height == spec.width else 1
    log_prob = small_model(spec, num_stages=num_stages).log_prob(images.view(-1, *spec.shape))
    assert log_prob.logsumexp(dim=0).exp().item() == pytest.approx(1.0, abs=1e-9)


def test_each_pixel_depends_on_all_pixels_before_it_in_reach_and_on_no_other() -> None:
    spec = ImageSpec(3, 8, 8, levels=256)
    model = small_model(spec, num_resnets=2)
    x = (
        torch.rand(1, *spec.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5
    ).requires_grad_()
    outputs = model.parameters_of_mixture(x)[0].flatten(0, 1)  # (pixels, parameters)
    weights = torch.rand(outputs.shape[1], generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    depends = torch.stack(
        [torch.autograd.grad((row * weights).sum(), x, retain_graph=True)[0].abs().sum(dim=(0, 1)) for row in outputs]
    ).flatten(1)
    assert (depends.triu() == 0).all()
    assert (depends.tril(-1) + torch.ones(64, 64, dtype=torch.float64).triu() > 0).all()


@pytest.mark.parametrize(
    ("spec", "num_stages", "num_resnets"),
    [
        (ImageSpec(3, 8, 8, levels=256), 3, 1),
        (ImageSpec(3, 4, 8, levels=16), 3, 2),
        (ImageSpec(1, 6, 4, levels=4), 2, 2),
        (ImageSpec(2, 3, 5, levels=8), 1, 1),
    ],
)
def test_cached_conditionals_equal_the_teacher_forced_ones(spec: ImageSpec, num_stages: int, num_resnets: int) -> None:
    model, images = small_model(spec, num_stages, num_resnets), random_images(spec, 3)
    with torch.no_grad():
        expected = model.log_pmf(images).flatten(1, 3)
        log_prob = model.log_prob(images)
    values, cached = images.flatten(1).long(), model.conditionals(3)
    total = torch.zeros(3, dtype=torch.float64)
    for index in model.order().tolist():
        log_pmf = cached.log_pmf()
        torch.testing.assert_close(log_pmf, expected[:, index], atol=1e-9, rtol=0.0)
        total += log_pmf.gather(1, values[:, index, None])[:, 0]
        cached.push(values[:, index])
    torch.testing.assert_close(total, log_prob, atol=1e-8, rtol=0.0)


def test_cached_conditionals_draw_the_same_image_as_the_naive_ones() -> None:
    spec = ImageSpec(3, 4, 4, levels=8)
    model = small_model(spec)
    drawn = model.sample(2, torch.Generator().manual_seed(5))
    model.conditionals = lambda num_images: RecomputedConditionals(model, num_images)  # type: ignore[method-assign]
    assert torch.equal(drawn, model.sample(2, torch.Generator().manual_seed(5)))
    assert drawn.unique().numel() > 3


def test_pushing_without_reading_leaves_the_same_state() -> None:
    spec = ImageSpec(3, 4, 4, levels=8)
    model, images = small_model(spec), random_images(spec, 2)
    conditionals, values = model.conditionals(2), images.flatten(1).long()
    order = model.order().tolist()
    for index in order[:-1]:
        conditionals.push(values[:, index])
    expected = model.log_pmf(images).flatten(1, 3)[:, order[-1]]
    torch.testing.assert_close(conditionals.log_pmf(), expected, atol=1e-9, rtol=0.0)


def test_gradient_reaches_every_parameter() -> None:
    model = small_model(ImageSpec(3, 8, 8, levels=256))
    generator = torch.Generator().manual_seed(0)
    objective = model.objective(random_images(model.spec, 2), generator, 0.0)
    objective.loss.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_published_number_of_parameters() -> None:
    """53.6 million at 160 filters (count of the authors' network with its 160-filter default)."""
    config = PixelCNNppConfig(
        num_filters=160, num_resnets=5, num_stages=3, num_mixtures=10, dropout=0.5, weight_norm=True, num_init_images=16
    )
    with torch.device("meta"):
        model = PixelCNNpp(CIFAR10, config)
    assert model.num_parameters() == pytest.approx(53.6e6, rel=0.005)


@pytest.mark.parametrize("weight_norm", [True, False])
def test_prepare_gives_every_layer_outputs_of_its_initial_scale(weight_norm: bool) -> None:
    model = small_model(ImageSpec(3, 8, 8, levels=256), weight_norm=weight_norm)
    images, seen = random_images(model.spec, 4), []
    model.prepare(images, torch.Generator().manual_seed(0))
    layers = [module for module in model.net.modules() if isinstance(module, DataInitialized)]
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((layer.init_scale, output)))
    model.log_prob(images)
    assert len(seen) == len(layers)
    for init_scale, output in seen:
        assert output.std(dim=(0, 2, 3)).median().item() == pytest.approx(init_scale, rel=1e-3)
        assert output.mean(dim=(0, 2, 3)).abs().max().item() < 1e-6


def test_an_image_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("multiples of 4; the image is 6 x 8")):
        small_model(ImageSpec(3, 6, 8, levels=256))


def test_no_image_leaves_the_random_initialisation() -> None:
    model = small_model(ImageSpec(3, 8, 8, levels=256))
    before = copy.deepcopy(model.state_dict())
    model.config = model.config.model_copy(update={"num_init_images": 0})
    model.prepare(random_images(model.spec, 4), torch.Generator())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
