"""Training curves in long form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from dgm.reporting.tables import columns_csv
from dgm.runs.records import CurvePoint

Split: TypeAlias = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
Curves: TypeAlias = Mapping[str, Sequence[CurvePoint]]  # model -> its points, in the order of the report's rows


def bits_of(point: CurvePoint, split: Split) -> float | None:
    """Bits per sub-pixel of one split's images; None where they were not measured."""
    return point.train_bits_per_subpixel if split == "train" else point.validation_bits_per_subpixel


def curves_csv(curves: Curves) -> str:
    """curves.csv: one line per measured point; bits per sub-pixel."""
    columns: dict[str, Callable[[tuple[str, CurvePoint, Split]], object]] = {
        "model": lambda line: line[0],
        "step": lambda line: line[1].step,
        "images_seen": lambda line: line[1].images_seen,
        "bits_per_subpixel": lambda line: bits_of(line[1], line[2]),
        "split": lambda line: line[2],
    }
    lines: list[tuple[str, CurvePoint, Split]] = [
        (model, point, split)
        for model, points in curves.items()
        for split in SPLITS
        for point in points
        if bits_of(point, split) is not None
    ]
    return columns_csv(columns, lines)
