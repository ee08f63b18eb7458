"""How MLflow loads a model of this project: `mlflow models predict` and `mlflow.pyfunc.load_model` call this.

The folder of the model holds a project in miniature: params.yaml as it was, the weights and their provenance. Code of
another version refuses them, as `load_run` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dgm.saved_run import SavedRun, load_run


class ScoringModel:
    """What MLflow asks for predictions."""

    def __init__(self, run: SavedRun) -> None:
        self.run = run

    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One column, bits_per_subpixel, float64 (N,): what each image costs, as the tables count it.

        images: uint8 (N, 3, 32, 32). params: MLflow hands them over; there are none. Raises: StageError.
        """
        return pd.DataFrame({"bits_per_subpixel": self.run.bits_per_subpixel(images).numpy()})


def _load_pyfunc(folder: str) -> ScoringModel:  # pyright: ignore[reportUnusedFunction]  # by this name MLflow calls it
    """folder: `data` of the model. Raises: StageError if its weights are of other code."""
    weights = next(Path(folder).glob("runs/*/*/weights"))
    return ScoringModel(load_run(weights.parts[-3], weights.parts[-2], folder))
