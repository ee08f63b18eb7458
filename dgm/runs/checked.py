"""Small text files whose every value is checked: JSON records and CSV tables of dataclasses, written whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dgm.errors import StageError
from dgm.runs.atomic import write_text
from dgm.runs.files import RunFiles
from dgm.runs.seals import SEAL, line_seals, sealed_json, unsealed_json
from dgm.runs.system_errors import unreadable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CHECKED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
RERUN = "run `dvc repro`"
REMEDY = f"delete it and {RERUN}"
CHANGED = "changed since it was written (by the SHA-256 in it)"
LONGEST_SHOWN = 60  # characters of a damaged value or name that a message repeats

Row = TypeVar("Row", bound="DataclassInstance")


@runtime_checkable
class OfRun(Protocol):
    """A record that says which run it is of."""

    @property
    def model(self) -> str: ...
    @property
    def profile(self) -> str: ...


Own = TypeVar("Own", bound=OfRun)


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found, in one line: the field, what is wrong, and the value if it is short."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(_short(str(part)) for part in fault["loc"])
    what = _short(fault["msg"].removeprefix("Value error, "), 200)
    value = repr(fault["input"])
    is_value = fault["type"] not in ("missing", "value_error", "json_invalid") and len(value) <= LONGEST_SHOWN
    return (f"{where}: " if where else "") + what + (f" (got {value})" if is_value else "")


def _short(text: str, longest: int = LONGEST_SHOWN) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[:longest]}..."


def write_json(path: Path, record: DataclassInstance) -> None:
    """Writes a record as a JSON object, whole or not at all; that of a run ends with a digest of itself."""
    text = json.dumps(asdict(record), indent=2, allow_nan=False) + "\n"
    write_text(path, sealed_json(text) if isinstance(record, OfRun) else text)


def read_json(path: Path, kind: type[Row], remedy: str = REMEDY) -> Row:
    """The record that write_json wrote. Raises: StageError naming the file and the field that is wrong."""
    try:
        return record_of(path.read_bytes(), kind)
    except OSError as error:
        raise StageError(f"{path}: {unreadable(error, RERUN)}") from None
    except ValueError as error:
        raise StageError(f"{path}: {error}; {remedy}") from None


def record_of(content: bytes, kind: type[Row]) -> Row:
    """The record in the bytes of a file. Raises: ValueError that says in one line what is wrong with them."""
    plain, is_unchanged = unsealed_json(content)
    try:
        record = TypeAdapter(kind).validate_json(plain)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None
    if not is_unchanged:
        raise ValueError(CHANGED)
    return record


def own(path: Path, record: Own | None, files: RunFiles) -> Own | None:
    """The record that was read from `path`. Raises: StageError naming the file if it is of another model or profile."""
    if record is not None and (record.model, record.profile) != (files.model, files.profile):
        theirs = f"{_short(record.model)} ({_short(record.profile)})"
        raise StageError(f"{path}: says it is of {theirs}, not of {files.model} ({files.profile}); {REMEDY}")
    return record


def csv_text(kind: type[Row], rows: Iterable[Row], is_sealed: bool = True) -> str:
    """One line per row under the names of the fields; None is an empty field; numbers read back bit-identical.

    A sealed one has a last column, a digest of all lines so far: for files that are read again.
    """
    lines: list[list[str]] = [[field.name for field in fields(kind)]]
    lines += [["" if value is None else str(value) for value in astuple(row)] for row in rows]
    if is_sealed:
        lines = [[*line, seal] for line, seal in zip(lines, [SEAL, *list(line_seals(lines))[1:]], strict=True)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def read_csv(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a file that csv_text wrote. Raises: StageError naming file, line and column of what is wrong."""
    columns = [field.name for field in fields(kind)]
    try:
        text = path.read_bytes().decode("utf-8")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError:
        raise StageError(f"{path}: absent; run `dvc repro`") from None
    except OSError as error:
        raise StageError(f"{path}: {unreadable(error, RERUN)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StageError(f"{path}: not a CSV table ({error}); {REMEDY}") from None
    is_sealed = bool(lines) and lines[0] == [*columns, SEAL]
    if not lines or not (is_sealed or lines[0] == columns):
        found = f"begins with {_short(','.join(lines[0]))!r}" if lines else "is empty"
        raise StageError(f"{path}: {found}, expected the columns {','.join(columns)}; {REMEDY}")
    if not text.endswith("\n"):
        raise StageError(f"{path}: line {len(lines)} is cut off; {REMEDY}")
    rows = [
        _row(path, number, kind, [*columns, SEAL] if is_sealed else columns, line)
        for number, line in enumerate(lines[1:], start=2)
    ]
    if is_sealed:
        seals = line_seals([line[:-1] for line in lines])
        for number, (line, seal) in enumerate(zip(lines, seals, strict=True), start=1):
            if number > 1 and line[-1] != seal:
                raise StageError(f"{path}: line {number}: {CHANGED}; {REMEDY}")
    return rows


def _row(path: Path, number: int, kind: type[Row], columns: Sequence[str], line: Sequence[str]) -> Row:
    if len(line) != len(columns):
        raise StageError(f"{path}: line {number} has {len(line)} fields, expected {len(columns)}; {REMEDY}")
    values = {column: value or None for column, value in zip(columns, line, strict=True) if column != SEAL}
    try:
        return TypeAdapter(kind).validate_python(values, strict=False)
    except ValidationError as error:
        raise StageError(f"{path}: line {number}: {first_fault(error)}; {REMEDY}") from None
