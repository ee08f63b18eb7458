from __future__ import annotations

import pytest
import torch

from dgm.models.histogram_left import HistogramLeft, HistogramLeftConfig
from dgm.seeds import generator_for
from dgm.types import Images, ImageSpec
from tests.models.fitted import SMALL, correlated_images


def fitted(spec: ImageSpec, images: Images, candidates: tuple[float, ...] = (0.5, 4.0)) -> HistogramLeft:
    config = HistogramLeftConfig(candidate_pseudo_counts=list(candidates), validation_fraction=0.2)
    model = HistogramLeft(spec, config)
    model.start(images, generator_for(0))
    return model


def test_tables_are_counts_of_neighbours() -> None:
    images = correlated_images(40, SMALL)
    model = fitted(SMALL, images, candidates=(1e-9,))
    left, above = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    for image in images.tolist():
        for c, plane in enumerate(image):
            for y, row in enumerate(plane):
                for x in range(1, 5):
                    left[c, row[x - 1], row[x]] += 1
                if y > 0:
                    above[c, plane[y - 1][0], row[0]] += 1
    for side, counts in enumerate((left, above)):
        seen = counts.sum(dim=2) > 0
        expected = (counts / counts.sum(dim=2, keepdim=True).clamp(min=1)).double()
        torch.testing.assert_close(model.log_table[side].exp()[seen], expected[seen], rtol=0, atol=1e-6)


def test_smoothing_is_chosen_by_held_out_likelihood() -> None:
    related = correlated_images(400, SMALL)
    generator = generator_for(1)
    unrelated = torch.randint(0, 8, related.shape, generator=generator, dtype=torch.uint8)
    assert fitted(SMALL, related, (1.0, 1e6)).pseudo_count.tolist() == [1.0, 1.0]
    assert fitted(SMALL, unrelated, (1.0, 1e6)).pseudo_count.tolist() == [1e6, 1e6]


def test_refuses_a_pseudo_count_of_zero() -> None:
    with pytest.raises(ValueError, match="candidate_pseudo_counts"):
        HistogramLeft(SMALL, HistogramLeftConfig(candidate_pseudo_counts=[0.0, 1.0], validation_fraction=0.1))
