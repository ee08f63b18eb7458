"""Results from another machine, checked against this checkout before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dgm.config.params import PROFILES, Params, load_params
from dgm.errors import StageError
from dgm.fingerprints import current_key, training_key
from dgm.registry import MODELS
from dgm.runs.atomic import atomic_file
from dgm.runs.checked import first_fault
from dgm.runs.records import Metrics
from dgm.suite.parts import unpack
from dgm.suite.rounding import unpacked
from dgm.suite.row import STAGES, Row, digest_of, log_file, row_file, stage_files


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

    scratch: a folder for a temporary file. Raises: StageError naming a part that is damaged.
    """
    whole, _ = unpack(folder)
    rows: list[Accepted] = []
    refused: list[str] = []
    params = load_params()
    scratch.mkdir(parents=True, exist_ok=True)
    for profile in PROFILES:
        for model in MODELS:
            data = whole.get(row_file(profile, model).as_posix())
            log = whole.get(log_file(profile, model).as_posix())
            try:
                if data is not None:
                    row = checked_row(data, profile, model, params)
                    rows.append(with_files(row, whole, scratch / "weights.incoming", log))
                elif log is not None:
                    lines = log.decode("utf-8", errors="replace").strip().splitlines() or ["nothing was printed"]
                    refused.append(f"{model} ({profile}): has no results; its log ends: {lines[-1][:200]}")
            except StageError as error:
                refused.append(f"{model} ({profile}): refused: {error}")
    return Arrival(rows, refused)


def checked_row(data: bytes, profile: str, model: str, params: Params) -> Row:
    """What row.json says. Raises: StageError if it is damaged, or of other code or other numbers than those here."""
    try:
        row = TypeAdapter(Row).validate_json(data)
    except ValidationError as error:
        raise StageError(f"row.json: {first_fault(error)}") from None
    if (row.model, row.profile) != (model, profile):
        raise StageError(f"row.json says it is of {row.model} ({row.profile})")
    expected = {stage: {path.as_posix() for path in paths} for stage, paths in stage_files(profile, model).items()}
    for stage, files in row.files.items():
        if not files.keys() <= expected.get(stage, set()):
            raise StageError(f"row.json names files that are none of its stage {stage}")
    if row.changes.keys() - {"training", "evaluation"}:
        raise StageError("row.json changes other sections than training and evaluation")
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


def with_files(row: Row, whole: Mapping[str, bytes], scratch: Path, log: bytes | None) -> Accepted:
    """The row with the files that are there. Raises: StageError naming a file that is not the one that was written."""
    files: dict[str, bytes] = {}
    stages: list[str] = []
    for stage in STAGES:
        digests = row.files.get(stage)
        for path, digest in (digests or {}).items():
            data = whole.get(path)
            if data is None:
                continue
            try:
                data = unpacked(data, scratch) if path == row.weights else data
            except ValueError as error:
                raise StageError(f"{path}: {error}") from None
            if digest_of(data) != digest:
                raise StageError(f"{path}: has SHA-256 {digest_of(data)[:16]}..., row.json says {digest[:16]}...")
            files[path] = data
        if digests is not None and digests.keys() <= files.keys():
            stages.append(stage)
    metrics = next((Path(path) for path in row.files.get("evaluate", {}) if "/metrics/" in path), None)
    if metrics is not None and metrics.as_posix() in files:
        try:
            key = TypeAdapter(Metrics).validate_json(files[metrics.as_posix()]).code_and_params_key
        except ValidationError as error:
            raise StageError(f"{metrics}: {first_fault(error)}") from None
        if key != row.result_key:
            raise StageError(f"{metrics}: carries key {key}, row.json says {row.result_key}")
    return Accepted(row, files, tuple(stages), log)


def write_arrival(rows: Iterable[Accepted], root: Path = Path(".")) -> None:
    """Writes the files of the rows and their logs, each whole or not at all. Raises: OSError naming one."""
    for accepted in rows:
        for name, data in accepted.files.items():
            with atomic_file(root / name) as file:
                file.write(data)
        if accepted.log is not None:
            with atomic_file(root / log_file(accepted.row.profile, accepted.row.model)) as file:
                file.write(accepted.log)


def overrides(rows: Iterable[Accepted]) -> list[str]:
    """What was changed for the rows, as arguments of `dvc exp run -S`."""
    return [
        f"++models.{accepted.row.model}.{accepted.row.profile}.{section}.{key}={value}"
        for accepted in rows
        for section, values in accepted.row.changes.items()
        for key, value in values.items()
    ]
