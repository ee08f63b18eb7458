"""Several processes score what one scores, bit for bit, each image once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgm.config.sections import EvaluationConfig
from dgm.evaluation.evaluate import SplitResult, evaluate_split
from dgm.evaluation.together import scored_together
from dgm.ranks import Ranks
from dgm.runs.progress import track
from tests.processes import in_ranks
from tests.tiny import SMALL, random_images, tiny_model

NAMES = ("pixelcnn", "real_nvp", "vae")  # exact, dequantized, importance-weighted
CONFIG = EvaluationConfig(batch_size=3, num_draws=2, num_importance_samples=2)
TEST, TRAIN = 23, 10  # images: 8 and 4 batches, for 3 processes


def count_images(model: Any, methods: tuple[str, ...], counts: list[int]) -> None:
    for name in methods:
        plain = getattr(model, name)

        def counted(images: torch.Tensor, *rest: Any, plain: Any = plain) -> Any:
            counts.append(len(images))
            return plain(images, *rest)

        vars(model)[name] = counted


def score_all(ranks: Ranks) -> dict[str, tuple[list[SplitResult], list[SplitResult], int]]:
    """Of each model: both splits in one process, both together, and how many images this rank scored then."""
    found: dict[str, tuple[list[SplitResult], list[SplitResult], int]] = {}
    splits = [random_images(SMALL, TEST, 1), random_images(SMALL, TRAIN, 2)]
    for name in NAMES:
        model, counts = tiny_model(name, SMALL), []

        def score(model: Any = model, name: str = name) -> list[SplitResult]:
            return [evaluate_split(model, images, CONFIG, 1, name, track) for images in splits]

        alone = score()
        methods = ("log_likelihood", "importance_weighted") if name == "vae" else ("log_likelihood",)
        count_images(model, methods, counts)
        with scored_together(ranks, model, splits, CONFIG, 1):
            together = score()
        found[name] = (alone, together, sum(counts))
    return found


def test_any_number_of_processes_gives_the_figures_of_one_and_scores_each_image_once() -> None:
    of_ranks = in_ranks(3, score_all)
    passes = {"pixelcnn": 1, "real_nvp": 2, "vae": 3}
    for name in NAMES:
        for found in of_ranks:
            alone, together, _ = found[name]
            for one, shared in zip(alone, together, strict=True):
                assert torch.equal(one.nats, shared.nats)
                assert {**vars(one), "nats": None} == {**vars(shared), "nats": None}
        counts = [found[name][2] for found in of_ranks]
        assert sum(counts) == passes[name] * (TEST + TRAIN) and min(counts) > 0


def mismatched(ranks: Ranks) -> str:
    """The model is scored on other images than announced."""
    model, images = tiny_model("pixelcnn", SMALL), random_images(SMALL, 7)
    with scored_together(ranks, model, [images[:3]], CONFIG, 1):
        try:
            evaluate_split(model, images[:2], CONFIG, 1, "pixelcnn", track)
        except RuntimeError as error:
            return str(error)
    return ""


def test_what_was_not_announced_is_refused() -> None:
    class Two(Ranks):
        def gather(self, value: Any) -> list[Any]:
            return [value, value]

    assert mismatched(Two(0, 2)) == "a batch was asked for that is not the next one of the pass"
    model: Any = tiny_model("vae", SMALL)
    images = random_images(SMALL, 3)
    with (
        scored_together(Two(0, 2), model, [images], CONFIG, 1),
        pytest.raises(ValueError, match="3 samples asked for, 2 announced"),
    ):
        model.importance_weighted(images, torch.Generator(), 3)
