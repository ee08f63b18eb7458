from __future__ import annotations

import numpy as np
import pytest

from dgm.models.histogram_per_channel import HistogramPerChannel, HistogramPerChannelConfig
from dgm.seeds import generator_for
from tests.models.fitted import SMALL, TINY, check_autoregressive, correlated_images, total_probability


def fitted(spec, images, pseudo_count=0.5) -> HistogramPerChannel:
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


def test_probabilities_sum_to_one_and_every_form_agrees() -> None:
    assert total_probability(fitted(TINY, correlated_images(20, TINY))) == pytest.approx(1, abs=1e-10)
    images = correlated_images(30, SMALL)
    check_autoregressive(fitted(SMALL, images), images[:4])
