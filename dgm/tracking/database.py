"""The SQLite file of an MLflow store, looked at before MLflow opens it: made whole, of the right schema, writable.

MLflow itself would retry for minutes, upgrade an old schema unasked, and go on writing artifacts where the project was
before it was moved.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from dgm.errors import StageError
from dgm.runs.locks import FileLock, LockHeldError, holder
from dgm.tracking.limits import call_within
from dgm.tracking.store import Store, database_store

BUSY_SECONDS = 6.0
CREATION_SECONDS = 120.0  # for the process that creates the database, on a machine that is busy with much else
UNMADE = ".new"
EXPERIMENTS = "cifar10-"


def create_if_absent(database: Path, seconds: float) -> None:
    """Creates the database unless it is there, one process at a time: the others wait for it.

    Making the tables takes seconds, on a busy machine many: one that makes no progress for `seconds` fails, and one
    that takes two minutes.
    Raises: TimeoutError, LockHeldError, OSError, sqlite3.Error; StageError if the file is something else.
    """
    lock = FileLock(database.with_name(f"{database.name}.lock"))

    def create_or_wait() -> None:
        if revision(database) is not None:
            return
        lock.acquire(CREATION_SECONDS)
        try:
            if revision(database) is None:
                create(database)
        finally:
            lock.release(remove=True)

    try:
        call_within(seconds, create_or_wait, lambda: (last_changes(database), processor_ticks(holder(lock.path))))
    except TimeoutError as error:
        if (process := holder(lock.path)) not in ("unknown", str(os.getpid())):
            raise LockHeldError(lock.path, process) from error
        raise


def prepare_database(store: Store, database: Path) -> None:
    """Checks that the database can be used and written, and points the project's artifacts to where the project is.

    Raises: StageError for a schema that this MLflow cannot use; sqlite3.Error or OSError otherwise.
    """
    check_schema(database)
    with transaction(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = version_num")
        if store.is_own and store.artifact_location:
            move_artifacts(connection, store.artifact_location)


def revision(database: Path) -> str | None:
    """The schema's revision; None if there is no database yet. Raises: StageError if it is not MLflow's."""
    if not database.exists() or database.stat().st_size == 0:
        return None
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone() if "runs" in tables else None
    if found is None:
        raise StageError(
            f"MLflow store {database}: is a database of another program; name another file in MLFLOW_TRACKING_URI, or "
            "move this one away"
        )
    return str(found[0])


def create(database: Path) -> None:
    """Makes a database with MLflow's tables beside its place and moves it there: half of one is never seen."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for leftover in unmade(database):
        leftover.unlink()
    incoming = database.with_name(f"{database.name}.{os.getpid()}{UNMADE}")
    SqlAlchemyStore(database_store(incoming, "").uri, database.parent.as_uri()).engine.dispose()
    os.replace(incoming, database)


def unmade(database: Path) -> list[Path]:
    """Files of a database that is being made, or was until its process was killed."""
    beginning, ends = f"{database.name}.", (UNMADE, f"{UNMADE}-journal")
    names = (path.name for path in database.parent.iterdir())
    return sorted(database.with_name(name) for name in names if name.startswith(beginning) and name.endswith(ends))


def last_changes(database: Path) -> list[tuple[str, int]]:
    """Name and time of the last change of each file that a creation writes; none if they come and go meanwhile."""
    try:
        return [(path.name, path.stat().st_mtime_ns) for path in unmade(database)]
    except OSError:
        return []


def processor_ticks(process: str) -> list[str]:
    """Processor time of a process in the system's ticks, [user, system]; empty where there is no telling."""
    try:
        fields = Path("/proc", process, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return fields[11:13]


def check_schema(database: Path) -> None:
    """Raises: StageError naming what to do about a schema of an older or a newer MLflow."""
    from mlflow.version import VERSION

    found = revision(database)
    head, known = schema_revisions()
    if found == head:
        return
    if found in known:
        raise StageError(
            f"MLflow store {database}: was made by an older MLflow than the {VERSION} here; copy the file, then run "
            f"`mlflow db upgrade 'sqlite:///{quote(str(database))}'`"
        )
    raise StageError(
        f"MLflow store {database}: was made by a newer MLflow than the {VERSION} here; install that version, or name "
        "another file in MLFLOW_TRACKING_URI"
    )


@functools.cache
def schema_revisions() -> tuple[str, frozenset[str]]:
    """The revision of the schema that the installed MLflow uses, and all that it knows."""
    import mlflow
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(Path(mlflow.__path__[0]) / "store" / "db_migrations"))
    return script.get_heads()[0], frozenset(entry.revision for entry in script.walk_revisions())


@contextmanager
def transaction(database: Path) -> Generator[sqlite3.Connection]:
    """A transaction that may write from its beginning. Raises: sqlite3.Error, e.g. if another program is writing."""
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")


def move_artifacts(connection: sqlite3.Connection, location: str) -> None:
    """Points this benchmark's experiments, and the runs in them, to `location` if they name a place of before a move.

    A location is the project's of before if it is a folder `mlruns` on this machine, which is what a project gets;
    any other was chosen by somebody.
    """
    rows = connection.execute(
        "SELECT experiment_id, artifact_location FROM experiments WHERE substr(name, 1, ?) = ?",
        (len(EXPERIMENTS), EXPERIMENTS),
    ).fetchall()
    for experiment_id, stored in rows:
        if stored == location or not is_project_folder(stored or ""):
            continue
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (location, experiment_id)
        )
        before = stored.rstrip("/")  # MLflow writes the runs' places without a slash that ends the experiment's
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (location, len(before) + 1, experiment_id, len(before) + 1, f"{before}/"),
        )


def is_project_folder(location: str) -> bool:
    """True for a local folder named mlruns, as a file: URI or as an absolute path."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return False
    return Path(unquote(parts.path)).name == "mlruns"
