"""Evaluation hands its figures to MLflow at once, with the tier that the other records give them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgm.config.params import load_params
from dgm.fingerprints import current_key
from dgm.tracking.results import About
from stages.about import record_evaluation
from stages.evaluate import evaluate
from tests.reporting.made_up import whole_run
from tests.test_repository import ROOT
from tests.untrained import train_for_no_time

Call = tuple[str, list[str], Mapping[str, str], Mapping[str, About]]


@pytest.fixture
def calls(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    shutil.copy(ROOT / "params.yaml", project)
    seen: list[Call] = []
    monkeypatch.setattr("stages.about.record_results", lambda *given: seen.append(given))
    return seen


def test_the_stage_hands_its_figures_over(calls: list[Call], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_for_no_time("smoke", "uniform")
    images = np.zeros((10_000, 3, 32, 32), np.uint8)
    arrays: Any = type("Arrays", (), {"train": np.zeros((50_000, 3, 32, 32), np.uint8), "test": images})
    monkeypatch.setattr("stages.evaluate.load_arrays", lambda _: arrays)
    params = load_params()
    evaluate("uniform", "smoke", params, None)
    [(profile, models, keys, said)] = calls
    assert (profile, models, keys) == ("smoke", ["uniform"], {"uniform": current_key(params, "uniform", "smoke")})
    assert said["uniform"].tier == "untested" and said["uniform"].published == 8.0


def test_not_while_another_record_is_damaged_nor_where_nothing_is_recorded(
    calls: list[Call], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params()
    key = current_key(params, "uniform", "smoke")
    files = whole_run(project, "uniform", code_and_params_key=key)
    files.compression.write_text("{")
    record_evaluation(params, "cpu", "uniform", key)
    assert not calls
    files.compression.unlink()
    record_evaluation(params, "cpu", "uniform", key)
    assert len(calls) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    record_evaluation(params, "cpu", "uniform", key)
    assert len(calls) == 1
