from __future__ import annotations

import numpy as np
import pytest

from dgm.models.histogram_per_channel import HistogramPerChannel, HistogramPerChannelConfig
from dgm.seeds import generator_for
from dgm.types import Images, ImageSpec
from tests.models.fitted import SMALL, TINY, correlated_images


def fitted(spec: ImageSpec, images: Images, pseudo_count: float = 0.5) -> HistogramPerChannel:
    model = HistogramPerChannel(spec, HistogramPerChannelConfig(pseudo_count=pseudo_count))
    model.start(images, generator_for(0))
    return model


def test_frequencies_are_those_of_numpy() -> None:
    images = correlated_images(50, SMALL)
    model = fitted(SMALL, images, pseudo_count=1e-9)
    for c in range(3):
        expected = np.bincount(images[:, c].numpy().ravel(), minlength=8) / images[:, c].numel()
        np.testing.assert_allclose(model.log_table[c].exp().numpy(), expected, atol=1e-9)


def test_untrained_is_uniform() -> None:
    model = HistogramPerChannel(TINY, HistogramPerChannelConfig(pseudo_count=1.0))
    assert float(model.log_prob(correlated_images(1, TINY))) == pytest.approx(-6 * np.log(3))
