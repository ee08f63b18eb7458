"""Runs that were never trained, with the files that training leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dgm.config.params import load_params
from dgm.fingerprints import training_key
from dgm.runs.atomic import file_digest
from dgm.runs.files import RunFiles
from dgm.runs.records import write_record
from dgm.runs.weights import save_weights
from dgm.settings import build_model
from dgm.types import CIFAR10
from tests.reporting.made_up import PROVENANCE


def train_for_no_time(profile: str, model: str, root: Path = Path(".")) -> RunFiles:
    """Weights as they are before training, and their provenance, as a run of the project at `root`."""
    torch.manual_seed(0)
    params, files = load_params(root / "params.yaml"), RunFiles(profile, model, root)
    save_weights(files.weights, build_model(params, model, profile, CIFAR10).state_dict())
    sign(files, training_key(params, model, profile))
    return files


def sign(files: RunFiles, key: str) -> None:
    """Writes the provenance of the weights that are there, as of a training with this key."""
    origin = {"training_key": key, "weights_sha256": file_digest(files.weights)}
    write_record(files.provenance, replace(PROVENANCE, model=files.model, profile=files.profile, **origin))
