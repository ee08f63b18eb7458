"""Training curves: read with their checks, in long form, and where each began and ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from dgm.errors import StageError
from dgm.reporting.published import CATALOGUE
from dgm.runs.files import RunFiles
from dgm.runs.records import CURVE_COLUMNS

LONG_COLUMNS = ("model", "step", "images_seen", "bits_per_subpixel", "split")
SPLITS = ("train", "validation")


def read_curves(profile: str, root: Path = Path(".")) -> dict[str, pd.DataFrame]:
    """Model -> its curve with CURVE_COLUMNS, in the catalogue's order. Raises: StageError naming a damaged file."""
    paths = {path.stem: path for path in RunFiles(profile, "", root).curve.parent.glob("*.csv")}
    order = [*(model for model in CATALOGUE if model in paths), *sorted(set(paths) - set(CATALOGUE))]
    return {model: read_curve(paths[model]) for model in order}


def read_curve(path: Path) -> pd.DataFrame:
    """One curve with CURVE_COLUMNS. Raises: StageError naming a damaged file."""
    try:
        curve = pd.read_csv(path)
        missing = [column for column in CURVE_COLUMNS if column not in curve.columns]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        return pd.DataFrame({column: pd.to_numeric(curve[column]) for column in CURVE_COLUMNS})
    except (ValueError, pd.errors.ParserError) as error:
        raise StageError(f"{path}: not a training curve ({error}); delete it and run `dvc repro`") from None


def long_form(curves: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One measured point a line, under LONG_COLUMNS; bits per sub-pixel."""
    parts = [
        curve[["step", "images_seen", f"{split}_bits_per_subpixel"]]
        .set_axis(["step", "images_seen", "bits_per_subpixel"], axis="columns")
        .dropna()
        .assign(model=model, split=split)
        for model, curve in curves.items()
        for split in SPLITS
    ]
    return pd.DataFrame(pd.concat(parts) if parts else [], columns=list(LONG_COLUMNS))


def validation_ends(curve: pd.DataFrame) -> tuple[float | None, float | None]:
    """Bits per sub-pixel of the validation images before the first step and at the last measurement.

    None where it was not measured: fitted models have no validation.
    """
    measured = curve[["step", "validation_bits_per_subpixel"]].dropna().to_numpy(dtype=float)
    if len(measured) == 0:
        return None, None
    (first_step, first_bits), (_, last_bits) = measured[0], measured[-1]
    return (float(first_bits) if first_step == 0 else None), float(last_bits)
