from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from dgm.models.ridge_autoregressive import RidgeAutoregressive, RidgeAutoregressiveConfig
from dgm.seeds import generator_for
from dgm.types import Images, ImageSpec
from tests.models.fitted import SMALL, correlated_images


def fitted(spec: ImageSpec, images: Images, ridge: float = 1e-6, radius: int = 2) -> RidgeAutoregressive:
    config = RidgeAutoregressiveConfig(
        radius=radius, ridge=ridge, num_scales=4, uniform_share=0.01, num_fit_images=len(images)
    )
    model = RidgeAutoregressive(spec, config)
    model.start(images, generator_for(0))
    return model


def test_the_mean_is_a_ridge_regression() -> None:
    """Oracle: scikit-learn, on features gathered one by one in a loop, for the last channel."""
    images = correlated_images(20, SMALL)
    model = fitted(SMALL, images, ridge=1e-3, radius=1)
    rows, targets = [], []
    for image in (images.double() * 2 / 7 - 1).numpy():
        padded = np.zeros((4, 5, 7))
        padded[:3, 1:, 1:-1], padded[3, 1:, 1:-1] = image, 1
        for y in range(4):
            for x in range(5):
                window = padded[:, y : y + 2, x : x + 3]
                rows.append([*window[:, 0].ravel(), *window[:, 1, 0], *window[:2, 1, 1], 1.0])
                targets.append(image[2, y, x])
    oracle = Ridge(alpha=1e-3 * len(rows), fit_intercept=False).fit(np.array(rows), np.array(targets))
    mean, _ = model._parameters_of(images)
    expected = oracle.predict(np.array(rows)).reshape(20, 4, 5)
    np.testing.assert_allclose(mean[:, 2].numpy(), expected, atol=1e-9)


def test_scales_follow_the_local_activity_and_beat_one_scale() -> None:
    calm = correlated_images(80, SMALL)
    calm[:40] = 4  # half of the images are flat
    model = fitted(SMALL, calm)
    assert (model.log_scales[:, -1] - model.log_scales[:, 0] > 1).all()
    adaptive = model.log_prob(calm).mean()
    model.log_scales.copy_(model.log_scales.mean(dim=1, keepdim=True).expand_as(model.log_scales))
    assert adaptive > model.log_prob(calm).mean() + 1


def test_the_scale_is_continuous_at_the_knots() -> None:
    model = fitted(SMALL, correlated_images(60, SMALL))
    knots = model.knots[0]
    torch.testing.assert_close(model.log_scale(knots, 0), model.log_scales[0], rtol=0, atol=1e-9)
    below, above = model.log_scale(knots - 1e-12, 0), model.log_scale(knots + 1e-12, 0)
    torch.testing.assert_close(below, above, rtol=0, atol=1e-6)


def test_the_border_is_no_edge() -> None:
    """Differences with the padding do not count as activity."""
    model = fitted(SMALL, correlated_images(60, SMALL))
    flat = torch.full((1, *SMALL.shape), 6, dtype=torch.uint8)
    _, planes = model._planes(flat)
    differences = model.features(model._neighbours(planes))[:, 3 * 5 : -1]
    assert differences.shape == (1, 12, 4, 5)
    assert float(differences.abs().max()) == 0


def test_a_pixel_out_of_nowhere_costs_what_the_uniform_share_gives_it() -> None:
    images = torch.full((10, *SMALL.shape), 3, dtype=torch.uint8)
    model = fitted(SMALL, images)
    images[0, 0, 2, 2] = 7
    surprising = model.log_pmf(images[:1])[0, 0, 2, 2, 7]
    assert float(surprising) == pytest.approx(np.log(0.01 / 8), abs=1e-6)


def test_constant_images_do_not_break_the_fit() -> None:
    images = torch.full((10, *SMALL.shape), 3, dtype=torch.uint8)
    model = fitted(SMALL, images)
    assert float(model.log_prob(images).mean()) > -1.0
