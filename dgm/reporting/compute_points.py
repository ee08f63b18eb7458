"""Bits against training compute: our results of all profiles, and published runs of which the compute is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgm.errors import StageError
from dgm.reporting.published import AUTOREGRESSIVE, CATALOGUE
from dgm.runs.files import RunFiles
from dgm.runs.records import Metrics, Provenance, read_record

PROFILES = ("cpu", "gpu", "published")  # smoke says nothing about the models


@dataclass(frozen=True)
class ComputePoint:
    """One trained model. flops: floating-point operations of its training; bits: per sub-pixel of the test images."""

    name: str
    family: str
    flops: float
    bits: float
    source: str = ""

    @property
    def is_published(self) -> bool:
        """Whether it is of other people, who say where and how long they trained, not how many operations."""
        return bool(self.source)


PUBLISHED_POINTS = (
    ComputePoint(
        "PixelCNN++ after 10 hours",
        AUTOREGRESSIVE,
        6e17,
        3.0,
        "8 Maxwell TITAN X for about 10 hours (README of openai/pixel-cnn), at a third of 6.6 TFLOP/s each",
    ),
    ComputePoint(
        "PixelCNN++",
        AUTOREGRESSIVE,
        8e18,
        2.92,
        "the same for about 5 days",
    ),
)


def compute_points(root: Path = Path(".")) -> list[ComputePoint]:
    """Of every gradient-trained result in reports/, and the published ones; a damaged record is left out.

    The report of its own profile names a damaged record; this one is of all profiles.
    """
    return [*_ours(root, PROFILES), *PUBLISHED_POINTS]


def _ours(root: Path, profiles: Iterable[str]) -> Sequence[ComputePoint]:
    points: list[ComputePoint] = []
    for profile in profiles:
        for model, row in CATALOGUE.items():
            files = RunFiles(profile, model, root)
            try:
                metrics, cost = read_record(files.metrics, Metrics), read_record(files.provenance, Provenance)
            except StageError:
                continue
            if metrics is None or cost is None or cost.training_flops_per_image is None:
                continue
            flops = float(cost.training_flops_per_image) * cost.images_seen
            name = row.name if profile == "cpu" else f"{row.name} ({profile})"
            points.append(ComputePoint(name, row.family, flops, metrics.test_bits_per_subpixel))
    return points
