"""Scores a model on a set of images: the one loop behind validation and evaluation. No image is dropped or repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dgm.errors import StageError
from dgm.model_api.contracts import LogLikelihood
from dgm.seeds import generator_for
from dgm.types import Images, NatsPerImage

Score = Callable[[Images, torch.Generator], LogLikelihood]


@dataclass(frozen=True)
class Scored:
    """nats: (N,) float64, in the order of the images; terms: likewise, parts that `nats` is the sum of."""

    nats: NatsPerImage
    method: str
    kind: str
    terms: Mapping[str, Tensor]


@torch.no_grad()
def score_images(
    score: Score,
    images: Images,
    batch_starts: Iterable[int],
    batch_size: int,
    seed: int,
    *position: int,
    device: torch.device | str = "cpu",
) -> Scored:
    """Natural-log probability of each image, in order.

    The noise of a batch is a function of (seed, position, index of its first image). `batch_starts` is
    range(0, N, batch_size), possibly wrapped in a progress bar.
    Raises: StageError naming the first image whose log-probability is not finite.
    """
    parts: list[LogLikelihood] = []
    for start in batch_starts:
        generator = generator_for(seed, *position, start, device=device)
        parts.append(score(images[start : start + batch_size].to(device), generator))
    nats = torch.cat([part.nats.double().cpu() for part in parts])
    if len(nats) != len(images):
        raise ValueError(f"{len(nats)} of {len(images)} images were scored: batch_starts does not fit batch_size")
    if not nats.isfinite().all():
        worst = int((~nats.isfinite()).nonzero()[0])
        raise StageError(
            f"log-probability of image {worst} is {float(nats[worst])}: the model's weights are not usable; "
            "train it again"
        )
    terms = {name: torch.cat([part.terms[name].double().cpu() for part in parts]) for name in parts[0].terms}
    return Scored(nats, parts[0].method, parts[0].kind, terms)
