from __future__ import annotations

import torch

from dgm.nets.sequence import SubpixelEmbedding, from_sequence, shifted, to_sequence
from dgm.types import ImageSpec
from tests.tiny import random_images

SPEC = ImageSpec(channels=3, height=2, width=4, levels=6)


def test_sequence_is_raster_order_with_channels_innermost() -> None:
    images = random_images(SPEC, 2)
    values = to_sequence(images)
    row, column, channel = 1, 2, 1
    assert torch.equal(values[:, (row * 4 + column) * 3 + channel], images[:, channel, row, column].long())
    assert torch.equal(from_sequence(values, SPEC), images.long())


def test_trailing_axes_stay_behind() -> None:
    x = torch.randn(2, SPEC.num_subpixels, 5)
    restored = from_sequence(x, SPEC)
    assert restored.shape == (2, 3, 2, 4, 5)
    assert torch.equal(restored[1, 2, 0, 3], x[1, 3 * 3 + 2])


def test_position_reads_the_value_before_it_and_a_start_symbol_first() -> None:
    values = torch.tensor([[3, 1, 4, 5]])
    assert shifted(values, SPEC).tolist() == [[6, 3, 1, 4]]


def test_embedding_is_the_sum_of_value_line_and_channel() -> None:
    torch.manual_seed(0)
    embedding = SubpixelEmbedding(SPEC, 4).double()
    previous = shifted(to_sequence(random_images(SPEC, 2)), SPEC)
    features = embedding(previous)
    t = 7  # channel 7 % 3 == 1
    for image in range(2):
        value = int(previous[image, t])
        line = embedding.slope * (2 * value / 5 - 1)
        expected = embedding.value.weight[value] + line + embedding.channel.weight[1]
        torch.testing.assert_close(features[image, t], expected)
    torch.testing.assert_close(features[0, 0], embedding.value.weight[6] + embedding.channel.weight[0])
