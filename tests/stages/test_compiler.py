"""`compile: true` where nothing can be compiled is one line, not the compiler's hundred."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch._dynamo.exc import BackendCompilerFailed

from dgm.config.params import load_params
from dgm.config.sections import FitConfig, TrainingConfig
from dgm.errors import StageError
from dgm.settings import training_config
from stages.compiler import compiling, has_compiler


@pytest.fixture
def config() -> TrainingConfig:
    config = training_config(load_params(), "made", "smoke")
    assert isinstance(config, TrainingConfig)
    return config.model_copy(update={"compile": True})


@pytest.fixture(autouse=True)
def _asked_anew() -> None:
    has_compiler.cache_clear()


def test_a_compiler_that_is_not_there_is_named_first(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(
        StageError, match=r"training\.compile is true, .* no C\+\+ compiler \(/nowhere/g\+\+\); install"
    ):
        compiling(config, "cpu", "models.made.smoke.training").__enter__()
    for other in (FitConfig(num_iterations=1), config.model_copy(update={"compile": False})):
        with compiling(other, "cpu", "x"):
            pass


def test_one_that_fails_is_one_line(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    failed = BackendCompilerFailed.__new__(BackendCompilerFailed)
    Exception.__init__(failed, "\nCppCompileError: C++ compile error\nCommand:\n" + "g++ -I x\n" * 90)
    expected = r"compiling fails \(CppCompileError.*; install g\+\+, or set"
    with pytest.raises(StageError, match=expected) as caught, compiling(config, "cpu", "models.made.smoke.training"):
        raise failed
    assert "\n" not in str(caught.value)
