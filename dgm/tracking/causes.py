"""Why a store cannot be used, and the remedy that fits: one line each."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from dgm.errors import StageError
from dgm.runs.locks import LockHeldError
from dgm.runs.system_errors import MEMORY, errno_of, reason_of, remedy_for
from dgm.tracking.outbox import root_cause
from dgm.tracking.secrets import PASSWORD, TOKEN, USER, VARIABLE
from dgm.tracking.store import Store

AWAY_STATUS = (408, 429, 502, 503, 504)  # the server, or what stands before it, says that it is busy
WRITABLE = "make the folder writable"
UNSET = f"or unset {VARIABLE} (runs are then recorded in mlflow.db in the project)"
SQLITE_CAUSES = {  # by the beginning of SQLite's error names
    "SQLITE_BUSY": ("another program is writing to it", "wait until it has finished, or stop it"),
    "SQLITE_LOCKED": ("another program is writing to it", "wait until it has finished, or stop it"),
    "SQLITE_NOTADB": ("is not a database", "move the file away to begin a new one"),
    "SQLITE_CORRUPT": ("the database is damaged", "put a copy in its place, or move it away to begin a new one"),
    "SQLITE_READONLY": ("cannot be written", "make the file and its folder writable"),
    "SQLITE_CANTOPEN": ("cannot be opened", "make the file and its folder readable and writable"),
    "SQLITE_PERM": ("cannot be opened", "make the file and its folder readable and writable"),
    "SQLITE_FULL": ("its disk is full", "make room on the disk"),
    "SQLITE_IOERR": ("its disk reports an error", "check the disk"),
    "SQLITE_NOMEM": ("memory is used up", MEMORY),
}
ANY_CAUSE = ("SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY")  # does not say why the system refused


class StoreAwayError(StageError):
    """A server did not answer, or is busy: the same command may succeed later."""


def cause_and_remedy(error: BaseException, store: Store) -> tuple[str, str]:
    """What is wrong with the store, and what to do about it. May hold secrets: conceal before printing."""
    if isinstance(error, LockHeldError):
        return f"process {error.holder} is creating it", "wait until it has finished, or stop it"
    for link in chain(error):
        name = getattr(link, "sqlite_errorname", None) if isinstance(link, sqlite3.Error) else None
        for beginning, (cause, remedy) in SQLITE_CAUSES.items():
            if name is not None and name.startswith(beginning):
                refusal = system_refusal(store.database) if beginning in ANY_CAUSE and store.database else None
                reason = link if refusal is None else f"{link}: {reason_of(refusal)}"
                return f"{cause} ({reason})", remedy if refusal is None else remedy_for(refusal, remedy, remedy)
        if not isinstance(link, OSError) and errno_of(link) is not None:  # memory or threads are used up
            return reason_of(link), remedy_for(link, "")
    if store.database is not None:
        return database_cause(error)
    return server_cause(error)


def system_refusal(database: Path) -> OSError | None:
    """Why the system does not let the file be written, where SQLite does not say it; None if it does let it."""
    try:
        if not database.exists():
            os.listdir(database.parent)
            return None
        with database.open("r+b"):
            return None
    except OSError as error:
        return error


def database_cause(error: BaseException) -> tuple[str, str]:
    """For what did not come from SQLite itself."""
    if isinstance(error, TimeoutError):
        return str(error), "its disk does not answer, or another program keeps it busy: check both"
    if isinstance(error, OSError):
        remedy = remedy_for(error, WRITABLE, WRITABLE)
        return f"{error.filename}: {error.strerror}" if error.filename else root_cause(error), remedy
    return root_cause(error), f"name another store in {VARIABLE}"


def server_cause(error: BaseException) -> tuple[str, str]:
    """For a server, or a store of another kind."""
    from mlflow.exceptions import MlflowException

    status = error.get_http_status_code() if isinstance(error, MlflowException) else None
    if status == 403 and "Host header" in str(error):
        return "it does not know its own address", "start it with --allowed-hosts and this address (docs/cluster.md)"
    if status in (401, 403):
        return (
            f"it refuses the user name or password ({root_cause(error)})",
            f"set {USER} and {PASSWORD}, or {TOKEN}",
        )
    if isinstance(error, TimeoutError):
        return str(error), f"start the server, correct its address, {UNSET}"
    if is_network_error(error):
        return f"cannot be reached ({root_cause(error)})", f"start the server, correct its address, {UNSET}"
    return root_cause(error), f"correct {VARIABLE}, {UNSET}"


def is_away(error: BaseException, store: Store) -> bool:
    """True if a server did not answer, or said that it is busy: the same request may succeed later."""
    from mlflow.exceptions import MlflowException

    if store.database is not None:
        return False
    is_busy = isinstance(error, MlflowException) and error.get_http_status_code() in AWAY_STATUS
    return is_busy or isinstance(error, TimeoutError) or is_network_error(error)


def is_network_error(error: BaseException) -> bool:
    """True if the request did not reach a server, or its answer did not come back. (requests' errors are OSErrors.)"""
    return any(isinstance(link, OSError) for link in chain(error))


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = getattr(link, "orig", None) or link.__cause__ or link.__context__
