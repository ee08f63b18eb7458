"""The hourglass: parts of images against whole ones, how far it sees, where it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.config.parse import parse
from dgm.models.hourglass.crops import random_crops
from dgm.models.hourglass.local_inputs import LEAST_VARIANCE
from dgm.models.hourglass.model import Hourglass, HourglassConfig
from dgm.seeds import generator_for
from dgm.types import ImageSpec
from tests.tiny import SMALL, TINY_MODELS, random_images, tiny_model

WIDE = ImageSpec(channels=3, height=9, width=14, levels=4)


def tiny(spec: ImageSpec = SMALL, **changes: Any) -> Hourglass:
    model = tiny_model("hourglass", spec, changes=changes)
    assert isinstance(model, Hourglass)
    return model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"residual_radius": 3}, "residual_radius 3 is above radius 2"),
        ({"num_heads": 3}, "num_heads 3 must divide middle_features 4"),
        ({"crop_size": 4}, "crop_size 4 leaves nothing to score between margins of 2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    config = parse(HourglassConfig, {**TINY_MODELS["hourglass"], **changes}, "")
    with pytest.raises(ValueError, match=message):
        Hourglass(SMALL, config)


def nats_of_pixels(model: Hourglass, images: Tensor) -> Tensor:
    """Shapes: -> (N, H, W)."""
    size = model.spec.shape[1:]
    planes = model.inputs.planes(images)
    rows, columns = (torch.arange(n).unsqueeze(0) for n in size)
    outputs = model.outputs(planes, model.context(planes), rows, columns)
    return model.mixture(outputs, planes.here).log_prob(planes.x.movedim(-1, 0))


def test_a_pixel_that_is_scored_in_a_part_has_its_probability_in_the_whole_image() -> None:
    model, images = tiny(WIDE), random_images(WIDE, 12, seed=1)
    planes = model.inputs.planes(images)
    crops = random_crops(len(images), (WIDE.height, WIDE.width), 6, model.margin, generator_for(0))
    part = planes.crop(crops.rows, crops.columns)
    outputs = model.outputs(part, model.context(planes), crops.rows, crops.columns)
    found = model.mixture(outputs, part.here).log_prob(part.x.movedim(-1, 0))
    image = torch.arange(len(images))[:, None, None]
    expected = nats_of_pixels(model, images)[image, crops.rows.unsqueeze(2), crops.columns.unsqueeze(1)]
    is_scored = crops.is_scored
    torch.testing.assert_close(found[is_scored], expected[is_scored], rtol=0, atol=1e-9)
    assert bool(((found - expected).abs() > 1e-6)[~is_scored].any())  # or the margin would not be needed
    assert 0.1 < float(is_scored.double().mean()) < 1


def test_the_objective_of_whole_images_is_their_log_probability() -> None:
    model, images = tiny(crop_size=8), random_images(SMALL, 5, seed=1)
    objective = model.objective(images, generator_for(0), 0.5)
    torch.testing.assert_close(objective.nats, model.log_prob(images).detach(), rtol=0, atol=1e-6)


def test_each_step_draws_its_own_parts_and_no_position_is_rare() -> None:
    model, images = tiny(), random_images(SMALL, 4)
    nats = [model.objective(images, generator_for(seed), 0.5).nats for seed in (0, 0, 1)]
    assert torch.equal(nats[0], nats[1]) and not torch.equal(nats[0], nats[2])
    crops = random_crops(4000, (32, 32), 8, 0, generator_for(0))
    counts = torch.bincount(crops.rows.flatten(), minlength=32)
    assert int(counts.min()) > 0.35 * int(counts.max())


def test_the_middle_shows_a_pixel_all_blocks_above_and_nothing_of_its_own_band() -> None:
    model = tiny(ImageSpec(channels=3, height=12, width=12, levels=4), shortening=4, reach=0)
    images = random_images(model.spec, 1, seed=3)
    with torch.no_grad():
        before = model.context(model.inputs.planes(images))
        for row, column in ((0, 11), (3, 0), (4, 5), (7, 11)):
            changed = images.clone()
            changed[0, 0, row, column] ^= 1
            moved = ((model.context(model.inputs.planes(changed)) - before).abs() > 1e-12).any(dim=-1)[0]
            assert bool(moved[row // 4 + 1 :].all()), "a block below does not see it"
            assert not bool(moved[: row // 4 + 1].any()), "a block of its band or above sees it"


def test_it_starts_at_the_linear_prediction() -> None:
    """Without the head's small random weights the means are those of the regression."""
    torch.manual_seed(0)
    model = Hourglass(SMALL, parse(HourglassConfig, TINY_MODELS["hourglass"], "")).double()
    model.prepare(random_images(SMALL, 64), generator_for(0))
    torch.nn.init.zeros_(model.head.weight)
    planes = model.inputs.planes(random_images(SMALL, 2, seed=3))
    rows, columns = (torch.arange(n).unsqueeze(0) for n in SMALL.shape[1:])
    mixture = model.mixture(model.outputs(planes, model.context(planes), rows, columns), planes.here).mixture()
    coefficients = model.inputs.prediction.coefficients
    residual, predicted = planes.x - planes.here[..., :3], planes.here[..., :3]
    for channel in (1, 2):
        mean = mixture.conditional_mean(channel, planes.x[..., :channel].unsqueeze(-1))
        expected = predicted[..., channel] + residual[..., :channel] @ coefficients[channel, :channel]
        torch.testing.assert_close(mean, expected.unsqueeze(-1).expand_as(mean))


def test_the_whitening_makes_the_covariance_of_the_inputs_nearly_the_identity() -> None:
    model, images = tiny(WIDE, num_fit_images=64), random_images(WIDE, 64)
    rows = model.inputs(model.inputs.planes(images)).flatten(0, 2)
    variances = torch.linalg.eigvalsh((rows @ model.inputs.whitening).T.cov())
    shares = torch.linalg.eigvalsh(rows.T.cov())
    is_alive = shares > 100 * LEAST_VARIANCE
    assert bool(is_alive.any())
    assert float(variances[is_alive].min()) > 0.5
    assert float(variances.max()) < 1.5
