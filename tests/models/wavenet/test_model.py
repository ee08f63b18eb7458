"""WaveNet: dilations in image units, receptive field, start, published size. The contract tests do the rest."""

from __future__ import annotations

import pytest
import torch

from dgm.models.wavenet.model import WaveNet, WaveNetConfig
from dgm.types import CIFAR10, ImageSpec
from dgm.units import nats_to_bits_per_subpixel
from tests.tiny import PLAIN, random_images

ALIGNED = {"subpixel_dilations": [1, 2], "pixel_dilations": [1, 2, 4, 8], "row_dilations": [1, 2, 4, 8]}
AUDIO = {"subpixel_dilations": [2**i for i in range(10)], "pixel_dilations": [], "row_dilations": []}


def config(residual: int, skip: int, num_cycles: int, dilations: dict[str, list[int]]) -> WaveNetConfig:
    return WaveNetConfig(
        num_residual_features=residual,
        num_skip_features=skip,
        num_cycles=num_cycles,
        subpixel_dilations=dilations["subpixel_dilations"],
        pixel_dilations=dilations["pixel_dilations"],
        row_dilations=dilations["row_dilations"],
        **PLAIN,
    )


def test_dilations_follow_the_image_size() -> None:
    aligned = config(4, 4, 2, ALIGNED)
    assert aligned.dilations(CIFAR10) == [1, 2, 3, 6, 12, 24, 96, 192, 384, 768] * 2
    assert aligned.dilations(ImageSpec(1, 8, 5, 4))[:10] == [1, 2, 1, 2, 4, 8, 5, 10, 20, 40]


@pytest.mark.parametrize(("dilations", "receptive_field"), [(AUDIO, 3070), (ALIGNED, 4465)])
def test_size_and_receptive_field_of_thirty_layers(dilations: dict[str, list[int]], receptive_field: int) -> None:
    """3.6 million parameters at widths 128 and 256; the audio dilations reach just short of 3,072 sub-pixels."""
    with torch.device("meta"):
        model = WaveNet(CIFAR10, config(128, 256, 3, dilations))
    assert model.num_parameters() == 3_608_320
    assert len(model.stack.layers) == 30
    assert model.stack.receptive_field == receptive_field


def test_training_starts_at_the_uniform_distribution() -> None:
    spec = ImageSpec(3, 4, 4, 256)
    model = WaveNet(spec, config(4, 4, 1, ALIGNED))
    bits = nats_to_bits_per_subpixel(-model.log_prob(random_images(spec, 2)), spec)
    torch.testing.assert_close(bits, torch.full_like(bits, 8.0), rtol=0, atol=1e-6)


def test_no_dilations_are_refused() -> None:
    nothing: dict[str, list[int]] = {name: [] for name in ALIGNED}
    with pytest.raises(ValueError, match="row_dilations are all empty"):
        WaveNet(CIFAR10, config(4, 4, 1, nothing))
