"""Records that the store did not take: kept in .scratch/mlflow-undelivered/, delivered by the next command.

<run id>.jsonl has one entry a line, <run id>.files/ copies of the artifacts. Both survive a kill at any moment: the
file is always replaced whole, an entry leaves it only when it is with the store, and sending one twice changes nothing
there (the same point, parameter or file again).
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from dgm.runs.atomic import write_text
from dgm.runs.files import project_root
from dgm.runs.locks import FileLock, LockHeldError, remove_if_empty
from dgm.tracking.delivery import deliver
from dgm.tracking.outbox import Entry, RejectedError, next_batch

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

LOCK_SECONDS = 5.0
DELIVERY_SECONDS = 4.0


def undelivered_folder() -> Path:
    return project_root() / ".scratch" / "mlflow-undelivered"


def keep_undelivered(run_id: str, entries: Sequence[Entry]) -> Path:
    """Adds entries to the run's file, and copies of their artifacts beside it. Returns: the file. Raises: OSError."""
    path = undelivered_folder() / f"{run_id}.jsonl"
    with editing(path):
        kept = [with_copy(entry, run_id) if entry.kind == "artifact" else entry for entry in entries]
        write_lines(path, [*read_lines(path), *(json.dumps(asdict(entry)) for entry in kept)])
    return path


def forget_status(run_id: str) -> None:
    """Removes what is kept of the status of a run that is about to go on: it is no longer true. Raises: OSError."""
    path = undelivered_folder() / f"{run_id}.jsonl"
    if path.exists():
        with editing(path):
            write_lines(path, (line for line in read_lines(path) if (e := parse(line)) is None or e.kind != "status"))


def deliver_kept(client: MlflowClient, first_run_id: str | None) -> None:
    """Delivers what is kept of the runs that this store has, as far as a few seconds allow; the rest waits.

    One process at a time does so: another that finds it at work leaves it alone.
    Raises: OSError if the folder cannot be used.
    """
    folder = undelivered_folder()
    paths = sorted(folder.glob("*.jsonl"), key=lambda path: path.stem != first_run_id)
    if not paths:
        return
    lock = FileLock(folder / "delivering.lock")
    try:
        lock.acquire(0.0)
    except LockHeldError:
        return
    try:
        until = time.monotonic() + DELIVERY_SECONDS
        for path in paths:
            deliver_file(client, path, until)
    finally:
        lock.release(remove=True)


def deliver_file(client: MlflowClient, path: Path, until: float) -> None:
    """Delivers one run's file, batch by batch, until time.monotonic() is `until`; what is refused stays in it."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(path.stem)
    except MlflowException:  # a run of another store, or the store is away: its records stay
        return
    entries = [entry for line in read_lines(path) if (entry := parse(line)) is not None]
    limit = len(entries)
    while entries and time.monotonic() < until:
        batch = next_batch(entries)[:limit]
        try:
            deliver_batch(client, run, batch)
        except Exception as error:  # whatever the client raises, the entries stay
            if isinstance(error, RejectedError) and len(batch) > 1:
                limit = len(batch) // 2
                continue
            if not isinstance(error, RejectedError) and batch[0].kind != "artifact":
                return
        else:
            remove(path, batch)
        entries, limit = entries[len(batch) :], max(2 * limit, 1)


def deliver_batch(client: MlflowClient, run: Run, batch: Sequence[Entry]) -> None:
    """Records a batch; of a run that has ended meanwhile not its old status. Raises: as dgm.tracking.delivery."""
    first = batch[0]
    if first.kind == "status" and run.info.status != "RUNNING":
        return
    if first.kind == "artifact":
        source = undelivered_folder() / str(first.value)
        if not source.exists():
            print(f"warning: {source}: is gone and cannot be recorded in MLflow run {run.info.run_id}", file=sys.stderr)
            return
        deliver(client, run.info.run_id, [replace(first, value=str(source))])
    else:
        deliver(client, run.info.run_id, batch)


def remove(path: Path, batch: Iterable[Entry]) -> None:
    """Takes delivered entries out of a run's file and deletes their copies; a file without entries is deleted."""
    with editing(path):
        lines = read_lines(path)
        for entry in batch:
            line = json.dumps(asdict(entry))
            if line in lines:
                lines.remove(line)
            if entry.kind == "artifact" and not Path(str(entry.value)).is_absolute():
                copy = undelivered_folder() / str(entry.value)
                shutil.rmtree(copy.parent, ignore_errors=True)
                remove_if_empty(copy.parent.parent)
        write_lines(path, lines)


def with_copy(entry: Entry, run_id: str) -> Entry:
    """The artifact with a copy of its file: an experiment's own folder is deleted when it ends. Raises: OSError."""
    source = Path(str(entry.value))
    if not source.is_file():
        return entry
    place = undelivered_folder() / f"{run_id}.files" / str(time.time_ns())
    place.mkdir(parents=True)
    shutil.copyfile(source, place / source.name)
    return replace(entry, value=str((place / source.name).relative_to(undelivered_folder())))


@contextmanager
def editing(path: Path) -> Generator[None]:
    """Only one process reads and replaces the file inside the with block. Raises: OSError."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(LOCK_SECONDS)
    except LockHeldError as error:
        raise OSError(None, f"process {error.holder} is using it", str(path)) from None
    try:
        yield
    finally:
        lock.release(remove=True)


def read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Replaces the file; without lines there is no file."""
    if text := "".join(f"{line}\n" for line in lines):
        write_text(path, text)
    else:
        path.unlink(missing_ok=True)


def parse(line: str) -> Entry | None:
    """The entry of a line; None if it is damaged (it then stays where it is)."""
    try:
        return TypeAdapter(Entry).validate_json(line)
    except ValueError:
        return None
