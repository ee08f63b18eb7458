"""`compile: true` needs a compiler: one line if there is none that works, before anything is trained."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager

from dgm.config.sections import FitConfig, TrainingConfig
from dgm.errors import StageError

COMPILERS = ("g++", "clang++")


@contextmanager
def compiling(config: TrainingConfig | FitConfig, device: str, where: str) -> Generator[None]:
    """Inside the with block a model is trained that is to be compiled if `config` says so. where: of its settings.

    Raises: StageError if there is no compiler, before the block, or if it fails, inside.
    """
    if isinstance(config, FitConfig) or not config.compile:
        yield
        return
    remedy = f"install g++, or set {where}.compile to false"
    if device == "cpu" and not has_compiler():
        tried = os.environ.get("CXX") or " and ".join(COMPILERS)
        raise StageError(f"{where}.compile is true, but there is no C++ compiler ({tried}); {remedy}")
    from torch._dynamo.exc import BackendCompilerFailed  # torch takes seconds to import it

    try:
        yield
    except BackendCompilerFailed as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise StageError(f"{where}.compile is true, but compiling fails ({reason}); {remedy}") from None


@functools.cache
def has_compiler() -> bool:
    """Whether there is one under the names that torch tries."""
    return any(map(shutil.which, [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS))
