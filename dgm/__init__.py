"""Likelihood of CIFAR-10 under deep generative models. `from dgm import load_run` loads a trained model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgm.saved_run import SavedRun, load_run

__all__ = ["SavedRun", "__version__", "load_run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports what needs torch when it is asked for, so that `import dgm` takes no time."""
    if name in ("SavedRun", "load_run"):
        return getattr(importlib.import_module("dgm.saved_run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
