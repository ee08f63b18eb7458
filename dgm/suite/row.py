"""What a row of a time-boxed suite leaves beside its results: which of them are whole, by which numbers, its log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from dgm.runs.checked import CHECKED, read_json, write_json
from dgm.runs.files import RunFiles

STAGES = ("train", "evaluate", "sample", "prove", "compress")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, config=CHECKED)
class Row:
    """row.json, written anew after each stage, when the files of that stage are whole.

    changes: section -> key -> value, over models.<model>.<profile> of params.yaml. result_key: the key of the metrics,
    None before evaluation. files: stage -> path -> SHA-256. seconds: stage -> how long it took. has_half_weights: they
    were rounded to bfloat16 before evaluation.
    """

    model: str
    profile: str
    changes: dict[str, dict[str, Any]]
    training_key: str
    result_key: str | None
    files: dict[str, dict[str, Digest]]
    seconds: dict[str, float]
    has_half_weights: bool

    def with_stage(self, stage: str, seconds: float, root: Path = Path(".")) -> Row:
        """The same after one more stage, whose files are hashed now."""
        paths = [path for path in stage_files(self.profile, self.model)[stage] if (root / path).exists()]
        digests = {path.as_posix(): digest_of((root / path).read_bytes()) for path in paths}
        return replace(self, files={**self.files, stage: digests}, seconds={**self.seconds, stage: round(seconds, 2)})

    @property
    def weights(self) -> str:
        """The path of its weights."""
        return RunFiles(self.profile, self.model).weights.as_posix()


def stage_files(profile: str, model: str) -> Mapping[str, tuple[Path, ...]]:
    """Stage -> every file that it can leave, relative to the project."""
    files = RunFiles(profile, model)
    return {
        "train": (files.weights, files.curve, files.provenance),
        "evaluate": (files.metrics, files.figures, files.nats("test"), files.nats("train")),
        "sample": (files.samples,),
        "prove": (files.conformance,),
        "compress": (files.compression, files.compressed),
    }


def row_file(profile: str, model: str, root: Path = Path(".")) -> Path:
    """Where the row says what it has."""
    return root / ".work" / "suite" / profile / model / "row.json"


def log_file(profile: str, model: str, root: Path = Path(".")) -> Path:
    """What the row printed, and why it failed."""
    return row_file(profile, model, root).with_name("log.txt")


def write_row(row: Row, root: Path = Path(".")) -> None:
    """Writes row.json, whole or not at all."""
    write_json(row_file(row.profile, row.model, root), row)


def read_row(profile: str, model: str, root: Path = Path(".")) -> Row | None:
    """What the row has; None before its first stage has ended. Raises: StageError naming the file if it is damaged."""
    path = row_file(profile, model, root)
    return read_json(path, Row) if path.exists() else None


def digest_of(data: bytes) -> str:
    """SHA-256 as hex digits."""
    return hashlib.sha256(data).hexdigest()
