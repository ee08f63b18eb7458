"""Scoring by several ranks: every batch is computed by one of them, with the noise that it always has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from dgm.model_api.contracts import LogLikelihood
from dgm.model_api.scoring import Score
from dgm.ranks import Ranks
from dgm.seeds import generator_for
from dgm.types import Images


@dataclass(frozen=True)
class Pass:
    """One call of `score_images` that is to come: its images and the position of its noise."""

    images: Images
    batch_size: int
    seed: int
    position: Sequence[int]


class SharedScore:
    """Stands for `score` in `score_images` on every rank. The first batch of a pass lets the ranks compute all of it,
    batch i on rank i modulo their number; the calls hand out the results in order, the same on every rank.

    passes: what `score_images` will be called with, in order.
    """

    def __init__(self, ranks: Ranks, score: Score, passes: Iterable[Pass], device: torch.device) -> None:
        self.ranks, self.score, self.passes, self.device = ranks, score, iter(passes), device
        self.ready: deque[tuple[int, LogLikelihood]] = deque()

    def __call__(self, images: Images, generator: torch.Generator) -> LogLikelihood:
        """Raises: RuntimeError if it is called for another pass than the one announced."""
        if not self.ready:
            self._compute(next(self.passes))
        seed, scored = self.ready.popleft()
        if seed != generator.initial_seed() or len(scored.nats) != len(images):
            raise RuntimeError("a batch was asked for that is not the next one of the pass")
        return scored

    def _compute(self, each: Pass) -> None:
        starts = range(0, len(each.images), each.batch_size)
        own: list[tuple[int, LogLikelihood]] = []
        for start in starts[self.ranks.rank :: self.ranks.count]:
            generator = generator_for(each.seed, *each.position, start, device=self.device)
            scored = self.score(each.images[start : start + each.batch_size].to(self.device), generator)
            own.append((generator.initial_seed(), _on_cpu(scored)))
        shares = self.ranks.gather(own)
        self.ready.extend(shares[index % self.ranks.count][index // self.ranks.count] for index in range(len(starts)))


def _on_cpu(scored: LogLikelihood) -> LogLikelihood:
    terms = {name: term.double().cpu() for name, term in scored.terms.items()}
    return LogLikelihood(scored.nats.double().cpu(), scored.method, terms)
