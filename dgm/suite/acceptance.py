"""Results from another machine, checked against this checkout before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dgm.config.params import PROFILES, Params, load_params
from dgm.errors import StageError
from dgm.fingerprints import current_key, training_key
from dgm.registry import MODELS
from dgm.runs.atomic import atomic_file
from dgm.runs.checked import record_of
from dgm.runs.files import RunFiles
from dgm.runs.records import Metrics, Provenance, read_record
from dgm.suite.parts import unpack
from dgm.suite.rounding import unpacked
from dgm.suite.row import STAGES, Row, digest_of, log_file, row_file, stage_files

# what a suite changes: how long a row trains, and how many draws there is time to score it with
CHANGED: Mapping[str, set[str]] = {
    "training": {"max_seconds", "max_steps"},
    "evaluation": {"num_draws", "num_importance_samples"},
}
Record = TypeVar("Record", Metrics, Provenance)


@dataclass(frozen=True)
class Accepted:
    """A row that may be taken over: its files, and the stages all of whose files are there."""

    row: Row
    files: Mapping[str, bytes]
    stages: tuple[str, ...]
    log: bytes | None


@dataclass(frozen=True)
class Arrival:
    """What the parts of a folder hold. refused: one line a row that is not taken over."""

    rows: list[Accepted]
    refused: list[str]


def read_arrival(folder: Path, scratch: Path) -> Arrival:
    """The rows in the parts of the folder, each checked: names, hashes, keys.

    Of a row that parts of several packings hold, the latest that is right is taken.
    scratch: a folder for a temporary file. Raises: StageError naming a part that is damaged.
    """
    whole, _ = unpack(folder)
    rows: list[Accepted] = []
    refused: list[str] = []
    params = load_params()
    scratch.mkdir(parents=True, exist_ok=True)
    for profile in PROFILES:
        for model in MODELS:
            log = whole.get(log_file(profile, model).as_posix(), [None])[0]
            faults: list[StageError] = []
            for data in whole.get(row_file(profile, model).as_posix(), []):
                try:
                    row = checked_row(data, profile, model, params)
                    rows.append(with_files(row, whole, scratch / "weights.incoming", log))
                    break
                except StageError as error:
                    faults.append(error)
            else:
                if faults:
                    refused.append(f"{model} ({profile}): refused: {faults[0]}")
                elif log is not None:
                    lines = log.decode("utf-8", errors="replace").strip().splitlines() or ["nothing was printed"]
                    refused.append(f"{model} ({profile}): has no results; its log ends: {lines[-1][:200]}")
    return Arrival(rows, refused)


def checked_row(data: bytes, profile: str, model: str, params: Params) -> Row:
    """What row.json says. Raises: StageError if it is damaged, or of other code or other numbers than those here."""
    try:
        row = record_of(data, Row)
    except ValueError as error:
        raise StageError(f"row.json: {error}") from None
    if (row.model, row.profile) != (model, profile):
        raise StageError(f"row.json says it is of {row.model} ({row.profile})")
    expected = {stage: {path.as_posix() for path in paths} for stage, paths in stage_files(profile, model).items()}
    for stage, files in row.files.items():
        if not files.keys() <= expected.get(stage, set()):
            raise StageError(f"row.json names files that are none of its stage {stage}")
    for section, values in row.changes.items():
        if not values.keys() <= CHANGED.get(section, set()):
            raise StageError(f"row.json changes other numbers of {section} than a suite does")
    here = params.changed(model, profile, row.changes)
    keys = [("training", row.training_key, training_key(here, model, profile))]
    if row.result_key is not None:
        keys.append(("result", row.result_key, current_key(here, model, profile)))
    for what, theirs, ours in keys:
        if theirs != ours:
            raise StageError(
                f"{what} key {theirs}, but the code and params.yaml here give {ours}: check out the code that ran there"
            )
    return row


def with_files(row: Row, whole: Mapping[str, Sequence[bytes]], scratch: Path, log: bytes | None) -> Accepted:
    """The row with the files that are there. Raises: StageError naming a file that is not the one that was written."""
    files: dict[str, bytes] = {}
    stages: list[str] = []
    for stage in STAGES:
        digests = row.files.get(stage)
        for path, digest in (digests or {}).items():
            if path in whole:
                files[path] = matching(path, whole[path], digest, scratch if path == row.weights else None)
        if digests is not None and digests.keys() <= files.keys():
            stages.append(stage)
    run = RunFiles(row.profile, row.model)
    _checked(run.provenance, files, Provenance)
    metrics = _checked(run.metrics, files, Metrics)
    if metrics is not None and metrics.code_and_params_key != row.result_key:
        raise StageError(f"{run.metrics}: carries key {metrics.code_and_params_key}, row.json says {row.result_key}")
    return Accepted(row, files, tuple(stages), log)


def matching(path: str, versions: Iterable[bytes], digest: str, scratch: Path | None) -> bytes:
    """The version of the digest; scratch: where packed weights are unpacked. Raises: StageError if there is none."""
    fault = ""
    for data in versions:
        try:
            content = data if scratch is None else unpacked(data, scratch)
        except ValueError as error:
            fault = fault or str(error)
            continue
        if digest_of(content) == digest:
            return content
        fault = fault or f"has SHA-256 {digest_of(content)[:16]}..., row.json says {digest[:16]}..."
    raise StageError(f"{path}: {fault}")


def _checked(path: Path, files: Mapping[str, bytes], kind: type[Record]) -> Record | None:
    """The record, if it has come. Raises: StageError naming what is wrong in it."""
    data = files.get(path.as_posix())
    if data is None:
        return None
    try:
        return record_of(data, kind)
    except ValueError as error:
        raise StageError(f"{path}: {error}") from None


def write_arrival(rows: Iterable[Accepted], root: Path = Path(".")) -> None:
    """Writes the files of the rows and their logs, each whole or not at all. Raises: OSError naming one.

    What a stage has not left is removed, and its folder is there all the same, for DVC. Provenance is left to whoever
    records the run, whose id it names.
    """
    for accepted in rows:
        row = accepted.row
        for stage in accepted.stages:
            for path in stage_files(row.profile, row.model)[stage]:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                if path.as_posix() not in accepted.files:
                    (root / path).unlink(missing_ok=True)
        for name, data in accepted.files.items():
            if name != RunFiles(row.profile, row.model).provenance.as_posix():
                with atomic_file(root / name) as file:
                    file.write(data)
        if accepted.log is not None:
            with atomic_file(root / log_file(row.profile, row.model)) as file:
                file.write(accepted.log)


def provenance_of(accepted: Accepted) -> Provenance | None:
    """Who trained the row, as it came; it names no run of this store. None if it has not come."""
    row = accepted.row
    record = _checked(RunFiles(row.profile, row.model).provenance, accepted.files, Provenance)
    if record is None:
        return None
    weights = row.files.get("train", {}).get(row.weights)
    return replace(record, mlflow_run_id=None, training_key=row.training_key, weights_sha256=weights)


def known_run(accepted: Accepted, root: Path = Path(".")) -> str | None:
    """The MLflow run in which this very training has been recorded here; None if there is none."""
    path = RunFiles(accepted.row.profile, accepted.row.model, root).provenance
    try:
        here = read_record(path, Provenance)
    except StageError:
        return None
    if here is None or replace(here, mlflow_run_id=None) != provenance_of(accepted):
        return None
    return here.mlflow_run_id


def overrides(rows: Iterable[Accepted]) -> list[str]:
    """What was changed for the rows, as arguments of `dvc exp run -S`."""
    return [
        f"++models.{accepted.row.model}.{accepted.row.profile}.{section}.{key}={value}"
        for accepted in rows
        for section, values in accepted.row.changes.items()
        for key, value in values.items()
    ]
