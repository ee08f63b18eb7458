"""PixelCNN++: reach, published size, initialisation. The contract tests do the rest."""

from __future__ import annotations

import copy
import re

import pytest
import torch

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
