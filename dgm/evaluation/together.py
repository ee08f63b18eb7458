"""Evaluation by several ranks, with the figures that one process gives."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dgm.config.sections import EvaluationConfig
from dgm.model_api.contracts import BoundModel, DensityModel, LatentVariableModel, LogLikelihood, Model
from dgm.model_api.shared_scoring import Pass, SharedScore
from dgm.ranks import Ranks
from dgm.seeds import Stream
from dgm.types import Images


@contextmanager
def scored_together(
    ranks: Ranks, model: Model, splits: Sequence[Images], config: EvaluationConfig, seed: int
) -> Generator[None]:
    """Inside, `evaluate_split` of each split in order, called on every rank, shares the batches among the ranks.

    Every image counts once, whatever their number, and every batch has the noise that it has in one process.
    """
    if ranks.count == 1:
        yield
        return
    size = config.batch_size
    num_draws = config.num_draws if isinstance(model, DensityModel | BoundModel) else 1
    passes = [Pass(images, size, seed, (Stream.EVALUATION, draw)) for images in splits for draw in range(num_draws)]
    replaced: dict[str, Any] = {"log_likelihood": SharedScore(ranks, model.log_likelihood, passes, model.device)}
    if isinstance(model, LatentVariableModel):
        once = [Pass(images, size, seed, (Stream.EVALUATION, 0)) for images in splits]
        replaced["importance_weighted"] = SharedWeights(ranks, model, once, config.num_importance_samples)
    vars(model).update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            del vars(model)[name]


class SharedWeights:
    """Stands for `importance_weighted` of a model, with the number of samples that it was made for."""

    def __init__(self, ranks: Ranks, model: LatentVariableModel, passes: Sequence[Pass], num_samples: int) -> None:
        weighted = model.importance_weighted
        self.num_samples = num_samples
        self.shared = SharedScore(
            ranks, lambda images, generator: weighted(images, generator, num_samples), passes, model.device
        )

    def __call__(self, images: Images, generator: torch.Generator, num_samples: int) -> LogLikelihood:
        """Raises: ValueError for another number of samples."""
        if num_samples != self.num_samples:
            raise ValueError(f"{num_samples} samples asked for, {self.num_samples} announced")
        return self.shared(images, generator)
