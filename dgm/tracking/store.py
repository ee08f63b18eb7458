"""Where runs are recorded: what MLFLOW_TRACKING_URI means here, and how it is shown without its secrets."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from dgm.errors import StageError
from dgm.runs.files import project_root
from dgm.tracking.secrets import VARIABLE, conceal, secrets_in, without_secrets

DEFAULT_DATABASE = "mlflow.db"
ESCAPES = (
    "write special characters of the user name and password percent-encoded (# as %23, / as %2F, ? as %3F, [ as %5B, "
    "] as %5D, @ as %40), or give them in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
)


@dataclass(frozen=True)
class Store:
    """An MLflow store.

    uri: what MLflow is given, a server's without credentials; shown: the same for people, without secrets; database:
    the SQLite file, absolute, None for other stores; credentials: user name and password for a server; secrets: texts
    that no message may hold.
    """

    uri: str
    shown: str
    database: Path | None = None
    credentials: tuple[str, str] | None = None
    secrets: frozenset[str] = frozenset()

    @property
    def is_own(self) -> bool:
        """True for a database that lies in the project: it moves with it."""
        return self.database is not None and self.database.is_relative_to(project_root())

    @property
    def artifact_location(self) -> str | None:
        """URI of the folder for artifacts beside a database: in the project if that is there too."""
        if self.database is None:
            return None
        return ((project_root() if self.is_own else self.database.parent) / "mlruns").as_uri()

    def conceal(self, text: str) -> str:
        """`text` without the secrets of the store's address."""
        return conceal(text, self.secrets)


def find_store() -> Store:
    """The store of MLFLOW_TRACKING_URI; mlflow.db in the project if it is unset. Relative paths are the project's.

    Raises: StageError, which shows no secret, if the address cannot be one.
    """
    uri = os.environ.get(VARIABLE, "").strip()
    if not uri:
        return database_store(project_root() / DEFAULT_DATABASE, "")
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower() if separator else scheme  # as MLflow reads it
    uri = f"{scheme}{separator}{rest}"
    if scheme.startswith("sqlite"):
        return parse_database(uri)
    if scheme in ("http", "https") and separator:
        return parse_server(scheme, rest)
    if separator and scheme != "file":
        return parse_other(scheme, rest)
    if uri in ("databricks", "databricks-uc", "uc") or uri.startswith("databricks:"):
        return Store(uri, uri)
    return parse_folder(uri)


def database_store(path: Path, query: str) -> Store:
    """The store of a SQLite file. `query`: of the SQLAlchemy URL, with its question mark; or empty."""
    # The driver is named because MLflow itself would create the folder of a plain sqlite:/// URL without decoding it.
    return Store(f"sqlite+pysqlite:///{quote(str(path))}{query}", f"sqlite:///{path}", database=path)


def parse_database(uri: str) -> Store:
    """Raises: StageError if it names no file."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        url = None
    if url is None or not url.database or url.host or url.database == ":memory:":
        raise StageError(
            f"{VARIABLE} {shown_text(uri)}: names no database file; write sqlite:///mlflow.db (in the project) or "
            "sqlite:////folder/mlflow.db (four slashes: anywhere)"
        )
    _, mark, query = uri.partition("?")
    path = Path(os.path.normpath(project_root() / url.database))
    return database_store(path, mark + query)


def parse_server(scheme: str, rest: str) -> Store:
    """Raises: StageError if it is no address of a server, e.g. because of a password that is not percent-encoded."""
    shown = without_secrets(scheme, rest)
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        raise StageError(f"{VARIABLE} {shown}: is not the address of a server; {ESCAPES}") from None
    if parts.query or parts.fragment or ("@" in rest and "@" not in parts.netloc and port is not None):
        raise StageError(
            f"{VARIABLE} {shown}: a server's address has no ? or # part; {ESCAPES}; a token goes into "
            "MLFLOW_TRACKING_TOKEN"
        )
    if not host:
        raise StageError(f"{VARIABLE} {shown}: names no server; write {scheme}://HOST:PORT")
    user_info, at, place = parts.netloc.rpartition("@")
    if not at:
        return Store(f"{scheme}://{rest}", shown)
    user, _, password = user_info.partition(":")
    return Store(
        f"{scheme}://{place}{parts.path}",
        shown,
        credentials=(unquote(user), unquote(password)),
        secrets=frozenset(secrets_in(f"{scheme}://{rest}")),
    )


def parse_other(scheme: str, rest: str) -> Store:
    """A database server, or a store of a plug-in: MLflow is given the address as it is."""
    uri = f"{scheme}://{rest}"
    return Store(uri, without_secrets(scheme, rest), secrets=frozenset(secrets_in(uri)))


def parse_folder(uri: str) -> Store:
    """Raises: StageError: MLflow has given up folders as stores, and other texts are addresses without http://."""
    if "@" in uri or (":" in uri and not uri.startswith("file:")):
        raise StageError(
            f"{VARIABLE} {shown_text(uri)}: has no scheme; write http:// or https:// before a server's name"
        )
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
        raise StageError(
            f"{VARIABLE} {shown_text(uri)}: MLflow no longer records in folders; write sqlite:///mlflow.db (artifacts "
            "then go to mlruns in the project) or unset it"
        )
    path = unquote(path_of(uri)) if uri.startswith("file:") else uri
    location = Path(os.path.normpath(project_root() / path)).as_uri()
    return Store(location, location)


def path_of(uri: str) -> str:
    """The path of a file: URI. Raises: StageError."""
    try:
        return urlsplit(uri).path
    except ValueError:
        raise StageError(f"{VARIABLE} {shown_text(uri)}: is no address of a folder; write file:///FOLDER") from None


def shown_text(uri: str) -> str:
    """A text that is no address of ours, short and without what may be its secrets."""
    scheme, separator, rest = uri.partition("://")
    if separator:
        return without_secrets(scheme, rest)[:200]
    shown = without_secrets("", uri).removeprefix("://")
    head, colon, tail = shown.partition(":")
    return (shown if re.match(r"\d*(/|$)", tail) else f"{head}{colon}***")[:200]  # USER:PASSWORD, unlike HOST:PORT
