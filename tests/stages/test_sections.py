"""Every key of the sections beside `model` is read by the stages: an inert one would be overridden in vain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stages.codecs as codecs_stage
import stages.compress as compress_stage
import stages.ppca_ladder as ladder_stage
import stages.prove as prove_stage
import stages.sample as sample_stage
from dgm.config import sections
from dgm.config.params import load_params
from dgm.config.parse import Config
from dgm.config.sections import EvaluationConfig, FitConfig, TrainingConfig
from dgm.conformance.checks import Finding
from dgm.data.arrays import CifarArrays
from dgm.data.splits import Splits
from dgm.engine.fit import fit
from dgm.engine.loop import Trainer
from dgm.engine.session import Session
from dgm.errors import StageError
from dgm.model_api.contracts import Fitted, GradientTrained
from dgm.runs.checkpoint import Scratch
from stages.evaluate import score
from stages.train import is_graphed, num_slices
from tests.tiny import SMALL, UntrackedRun, random_images, tiny_training, untrained_model

PARAMS = load_params()
IMAGES = random_images(SMALL, 40)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The name of each type of a section -> the keys of it that have been read."""
    noted: dict[str, set[str]] = {}

    def get(self: Config, name: str) -> Any:
        noted.setdefault(type(self).__name__, set()).add(name)
        return object.__getattribute__(self, name)

    for kind in SECTION_TYPES:
        monkeypatch.setattr(kind, "__getattribute__", get)
    return noted


SECTION_TYPES = [kind for kind in vars(sections).values() if isinstance(kind, type) and issubclass(kind, Config)]
BASES = {"Config", "ExactEvaluation", "DrawnEvaluation"}  # read as an EvaluationConfig
ELSEWHERE = {"DataConfig"}  # tests/stages/test_download.py


def test_every_key_of_the_other_sections_is_read(
    read: dict[str, set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, evaluation, compression and all of `common`, by the stages' own code on a few images."""
    arrays = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), np.uint8)
    splits = Splits(train=arrays, validation=arrays, test=arrays, train_sample=arrays)
    for stage in (codecs_stage, compress_stage, ladder_stage, prove_stage, sample_stage):
        monkeypatch.setattr(stage, "load_arrays", lambda folder: CifarArrays(train=arrays, test=arrays))
    monkeypatch.setattr(ladder_stage, "make_splits", lambda arrays, count: splits)
    monkeypatch.setattr(ladder_stage, "ladder", lambda moments, x, counts: torch.zeros(len(x), len(counts)))
    monkeypatch.setattr(ladder_stage, "em_ladder", lambda *arguments: {})
    monkeypatch.setattr(codecs_stage, "codecs", list)
    for stage in (compress_stage, prove_stage, sample_stage):
        monkeypatch.setattr(stage, "load_trained", lambda *arguments: "")
        monkeypatch.setattr(stage, "scored_nats", lambda *arguments: np.zeros(0), raising=False)
    monkeypatch.setattr(prove_stage, "examine", lambda *arguments: [Finding("repeats itself", True, "")])
    (tmp_path / "params.yaml").write_bytes(Path("params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage", "--profile", "smoke"])
    codecs_stage.main()
    ladder_stage.main()
    monkeypatch.setattr(sys, "argv", ["stage", "--profile", "smoke", "--model", "uniform"])
    sample_stage.main()
    prove_stage.main()
    with pytest.raises(StageError, match=r"compression.num_images is 8, but only 0"):
        compress_stage.main()

    images = IMAGES.numpy()
    small = Splits(train=images, validation=images, test=images, train_sample=images)
    evaluation = EvaluationConfig(batch_size=20, num_draws=1, num_importance_samples=1)
    score(untrained_model("vae", SMALL).eval(), small, PARAMS.common_config("smoke"), evaluation, "vae")
    with Scratch("smoke", "made", "key", tmp_path) as scratch:
        training = TrainingConfig.model_validate(tiny_training(optimizer="muon", max_steps=2))
        session = Session(scratch, UntrackedRun(), None, 1e9, None)
        model = untrained_model("made", SMALL)
        assert isinstance(model, GradientTrained)
        Trainer(model, IMAGES, IMAGES, training, 0, session).run()
    fitted = untrained_model("histogram_per_channel", SMALL)
    assert isinstance(fitted, Fitted)
    with Scratch("smoke", "histogram_per_channel", "key", tmp_path) as scratch:
        fit(fitted, IMAGES, FitConfig(num_iterations=0), 0, Session(scratch, UntrackedRun(), None, 1e9, None))

    assert num_slices(training) == 1 and not is_graphed(training)
    for kind in SECTION_TYPES:
        if kind.__name__ not in BASES | ELSEWHERE:
            assert set(kind.model_fields) <= read.get(kind.__name__, set()), kind.__name__
