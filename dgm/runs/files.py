"""Where the files of one run of one model in one profile are.

reports/<profile>/   small text and pictures, in git
runs/<profile>/<model>/   binaries, cached by DVC
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BUDGETS: Mapping[str, float] = {"quarter": 0.25, "one": 1.0, "four": 4.0}  # of a row's training, for the scaling figure
ROW_BUDGET = "one"  # the budget of the row itself


@dataclass(frozen=True)
class RunFiles:
    """Every path of one (profile, model), relative to `root`."""

    profile: str
    model: str
    root: Path = Path(".")

    @property
    def training_command(self) -> str:
        """What makes the weights."""
        return f"python -m stages.train --model {self.model} --profile {self.profile}"

    @property
    def fingerprints(self) -> Path:
        """Folder of what the stages depend on; one .json for each, those of every profile where `profile` is empty."""
        return self.root / "fingerprints" / self.model / self.profile

    @property
    def weights(self) -> Path:
        return self.root / "runs" / self.profile / self.model / "weights" / "weights.safetensors"

    def nats(self, split: str) -> Path:
        """Per-image nats of `split` (test or train), .npy float64 (N,), in the split's order."""
        return self.root / "runs" / self.profile / self.model / "nats" / f"nats_{split}.npy"

    @property
    def compressed(self) -> Path:
        return self.root / "runs" / self.profile / self.model / "compressed" / "test_images.dgm"

    @property
    def proof_files(self) -> Path:
        """Folder of all test images, compressed."""
        return self.root / "runs" / self.profile / self.model / "proof"

    @property
    def report(self) -> Path:
        return self.root / "reports" / self.profile

    @property
    def metrics(self) -> Path:
        return self.report / "metrics" / f"{self.model}.json"

    @property
    def figures(self) -> Path:
        """What DVC shows of the metrics; a short name, because its tables have few columns to spare."""
        return self.report / "bits" / f"{self.model}.json"

    @property
    def curve(self) -> Path:
        return self.report / "curves" / f"{self.model}.csv"

    @property
    def provenance(self) -> Path:
        return self.report / "provenance" / f"{self.model}.json"

    @property
    def samples(self) -> Path:
        return self.report / "samples" / f"{self.model}.png"

    @property
    def compression(self) -> Path:
        return self.report / "compression" / f"{self.model}.json"

    @property
    def conformance(self) -> Path:
        return self.report / "conformance" / f"{self.model}.json"

    @property
    def proof(self) -> Path:
        return self.report / "proof" / f"{self.model}.json"


@dataclass(frozen=True)
class BudgetFiles(RunFiles):
    """The same of one budget of BUDGETS: another training than the row's own has a folder of its own, not in git."""

    budget: str = ROW_BUDGET

    @property
    def training_command(self) -> str:
        return super().training_command + ("" if self.budget == ROW_BUDGET else f" --budget {self.budget}")

    @property
    def folder(self) -> Path:
        """Of what a training with another budget leaves."""
        return self.root / "runs" / self.profile / self.model / self.budget

    @property
    def weights(self) -> Path:
        return super().weights if self.budget == ROW_BUDGET else self.folder / "weights.safetensors"

    @property
    def curve(self) -> Path:
        return super().curve if self.budget == ROW_BUDGET else self.folder / "curve.csv"

    @property
    def provenance(self) -> Path:
        return super().provenance if self.budget == ROW_BUDGET else self.folder / "provenance.json"

    @property
    def scaling_command(self) -> str:
        """What measures the weights of this budget."""
        return f"python -m stages.scaling --model {self.model} --profile {self.profile} --budget {self.budget}"

    @property
    def scaling(self) -> Path:
        """What was measured of this budget; in git."""
        return self.report / "scaling" / self.budget / f"{self.model}.json"


def reference_codecs_file(profile: str, root: Path = Path(".")) -> Path:
    """Belongs to no model."""
    return RunFiles(profile, "", root).report / "codecs.csv"


def ladder_file(profile: str, root: Path = Path(".")) -> Path:
    """PPCA over its number of components."""
    return RunFiles(profile, "ppca", root).report / "ppca_ladder.csv"


def project_root() -> Path:
    """Absolute path of the project; the main one even in a DVC experiment that runs in a temporary copy."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()
