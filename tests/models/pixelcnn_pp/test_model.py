"""PixelCNN++: reach, published size, initialisation. The contract tests do the rest."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.distributions.logistic_mixture import LogisticMixture
from dgm.models.pixelcnn_pp.activations import concat_elu
from dgm.models.pixelcnn_pp.model import PixelCNNpp, PixelCNNppConfig
from dgm.models.pixelcnn_pp.shifted_conv import DataInitialized, GatedResnet, shift_down, shift_right
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


def plain_block(block: GatedResnet, x: Tensor, auxiliary: Tensor | None = None) -> Tensor:
    """The block as the paper writes it, without dropout."""
    y = block.entry(concat_elu(x))
    if block.link is not None and auxiliary is not None:
        y = y + F.conv2d(concat_elu(auxiliary), block.link.kernel(), block.link.bias)
    return x + F.glu(block.exit(concat_elu(y)), dim=1)


def plain_parameters(model: PixelCNNpp, x: Tensor) -> Tensor:
    """The network as the paper writes it: nothing shared, nothing fused. Shapes: (N, C, H, W) -> (N, H, W, ...)."""
    net = model.net
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    u, ul = shift_down(net.stem_u(x)), shift_down(net.stem_above(x)) + shift_right(net.stem_left(x))
    shortcuts = [(u, ul)]
    for stage in range(len(net.encoder_u)):
        if stage > 0:
            u, ul = net.shrink_u[stage - 1](u), net.shrink_ul[stage - 1](ul)
            shortcuts.append((u, ul))
        for block_u, block_ul in zip(net.encoder_u[stage], net.encoder_ul[stage], strict=True):
            u = plain_block(block_u, u)
            ul = plain_block(block_ul, ul, u)
            shortcuts.append((u, ul))
    shortcuts.pop()
    for stage in reversed(range(len(net.decoder_u))):
        for block_u, block_ul in zip(net.decoder_u[stage], net.decoder_ul[stage], strict=True):
            shortcut_u, shortcut_ul = shortcuts.pop()
            u = plain_block(block_u, u, shortcut_u)
            ul = plain_block(block_ul, ul, torch.cat([u, shortcut_ul], dim=1))
        if stage > 0:
            u, ul = net.expand_u[stage - 1](u), net.expand_ul[stage - 1](ul)
    return F.conv2d(F.elu(ul), model.head.kernel(), model.head.bias).permute(0, 2, 3, 1)


@pytest.mark.parametrize("weight_norm", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_and_gradients_are_those_of_the_plain_formulas(weight_norm: bool, channels: int) -> None:
    model = small_model(ImageSpec(channels, 8, 8, levels=256), num_resnets=2, weight_norm=weight_norm).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)
    images = random_images(model.spec, 3)
    images[0, :, 0, :2], images[1, :, 3, 3:5] = 0, 255  # the outer bins
    parameters = plain_parameters(model, images.double() / 127.5 - 1)
    mixture = LogisticMixture.from_parameters(parameters, channels, model.spec.levels)
    plain = mixture.log_prob(images.permute(0, 2, 3, 1).long()).sum(dim=(1, 2))
    expected = torch.autograd.grad(plain.sum(), list(model.parameters()), materialize_grads=True)
    nats = model.log_prob(images)
    actual = torch.autograd.grad(nats.sum(), list(model.parameters()), materialize_grads=True)
    torch.testing.assert_close(nats, plain, rtol=1e-10, atol=1e-10)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


def test_dropout_acts_in_training_only() -> None:
    model = small_model(ImageSpec(3, 8, 8, levels=256))
    for module in model.modules():
        if isinstance(module, GatedResnet):
            module.dropout = 0.5
    images = random_images(model.spec, 2)
    assert torch.equal(model.log_prob(images), model.log_prob(images))
    model.train()
    assert not torch.equal(model.log_prob(images), model.log_prob(images))
