"""Char RNN: size, start, carried state, segments, position features. The contract tests do the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgm.distributions import categorical
from dgm.models.char_rnn.model import CharRNN, CharRNNConfig
from dgm.nets.sequence import to_sequence
from dgm.seeds import generator_for
from dgm.types import CIFAR10, ImageSpec
from dgm.units import nats_to_bits_per_subpixel
from tests.tiny import random_images

SPEC = ImageSpec(channels=3, height=4, width=2, levels=5)


def random_model(**changes: Any) -> CharRNN:
    values: dict[str, Any] = {"num_embedding_features": 3, "num_hidden": 5, "num_layers": 1}
    values |= {"has_position_features": False, "segment_rows": 0} | changes
    torch.manual_seed(0)
    model = CharRNN(SPEC, CharRNNConfig(**values)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def test_published_size_has_no_position_features() -> None:
    """4.7 million parameters with one layer of 1,024 units."""
    config = CharRNNConfig(
        num_embedding_features=64, num_hidden=1024, num_layers=1, has_position_features=False, segment_rows=0
    )
    with torch.device("meta"):
        model = CharRNN(CIFAR10, config)
    assert model.num_parameters() == 4_743_744
    assert not [name for name, _ in model.named_parameters() if "row" in name or "column" in name or "above" in name]


def test_training_starts_at_the_uniform_distribution_with_open_forget_gates() -> None:
    config = CharRNNConfig(
        num_embedding_features=4, num_hidden=6, num_layers=2, has_position_features=True, segment_rows=0
    )
    model = CharRNN(SPEC, config)
    bits = nats_to_bits_per_subpixel(-model.log_prob(random_images(SPEC, 2)), SPEC)
    torch.testing.assert_close(bits.exp2(), torch.full_like(bits, 5.0), rtol=0, atol=1e-5)
    for layer in range(2):
        bias = getattr(model.lstm, f"bias_ih_l{layer}") + getattr(model.lstm, f"bias_hh_l{layer}")
        assert bias[6:12].tolist() == [1.0] * 6


def test_scoring_carries_the_state_over_all_rows_also_when_training_does_not() -> None:
    model = random_model(segment_rows=1)
    images = random_images(SPEC, 1).repeat(2, 1, 1, 1)
    images[1, 0, 0, 0] = (images[0, 0, 0, 0] + 1) % SPEC.levels
    with torch.no_grad():
        last = model.log_pmf(images)[:, -1, -1, -1]
    assert (last[0] - last[1]).abs().max() > 1e-9


def test_whole_images_train_on_what_is_scored() -> None:
    model, images = random_model(), random_images(SPEC, 3)
    objective = model.objective(images, generator_for(0), 0.0)
    torch.testing.assert_close(objective.nats, model.log_prob(images).detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(objective.loss, -model.log_prob(images), rtol=0, atol=1e-9)


def test_a_segment_is_whole_rows_from_a_zero_state_scaled_to_the_image() -> None:
    model, images = random_model(segment_rows=2), random_images(SPEC, 3)
    values = to_sequence(images)
    possible = []
    with torch.no_grad():
        for first_row in range(3):
            first = first_row * 6
            before = values[:, first - 1 : first] if first else torch.full((3, 1), SPEC.levels)
            previous = torch.cat([before, values[:, first : first + 11]], dim=1)
            hidden, _ = model.lstm(model.embedding(previous))
            possible.append(2 * categorical.log_prob(model.head(hidden), values[:, first : first + 12]))
    seen = set()
    for seed in range(20):
        nats = model.objective(images, generator_for(seed), 0.0).nats
        matches = [row for row, expected in enumerate(possible) if torch.allclose(nats, expected, atol=1e-9)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert seen == {0, 1, 2}


def test_position_features_reach_the_subpixel_above_at_once() -> None:
    model, images = random_model(has_position_features=True), random_images(SPEC, 1)
    values = to_sequence(images)
    changed = values.clone()
    changed[0, 1] = (changed[0, 1] + 1) % SPEC.levels
    moved = (model.inputs(values, 0, 24) - model.inputs(changed, 0, 24)).abs().amax(dim=(0, 2)).nonzero().flatten()
    assert moved.tolist() == [2, 7]  # the next sub-pixel, and the one a row (of 2 pixels, 3 channels) below
    unread = values.new_zeros(1, 24)
    rows = model.inputs(unread, 6, 24)[0].unique(dim=0)
    assert len(rows) == 18  # every place of rows 1 to 3 differs


def test_a_segment_longer_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="segment_rows 5 is more than the image's 4 rows"):
        random_model(segment_rows=5)
