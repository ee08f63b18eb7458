"""A path -> CIFAR-10, in whichever form it is there: contents decide, and their SHA-256 verifies them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

from dgm.data.archives import members
from dgm.data.arrays import CifarArrays, DataError
from dgm.data.collection import Collection
from dgm.data.formats import ARCHIVES, HEAD_BYTES, MAX_FILE_BYTES, Kind, decode, kind_of
from dgm.data.verify import BATCH_SHA256

MAX_FOLDER_DEPTH = 5
MAX_FILES = 10_000
MAX_ARCHIVE_DEPTH = 3  # of archives within archives


def read_cifar(path: Path) -> CifarArrays:
    """CIFAR-10 from a file, or from whatever files a folder and its sub-folders hold, verified.

    Batches count wherever they are; single files are read before archives. Nothing is unpacked to the disk.
    Raises: DataError naming the path, what is missing and why files were refused; OSError if it cannot be read.
    """
    collection = Collection()
    archives: list[tuple[Path, Kind]] = []
    for file in _files(path, collection):
        where = _name_within(file, path)
        try:
            with file.open("rb") as contents:
                num_bytes = os.fstat(contents.fileno()).st_size
                kind = kind_of(contents.read(HEAD_BYTES), num_bytes)
                if kind in ARCHIVES:
                    archives.append((file, kind))
                    continue
                contents.seek(0)
                _offer(collection, where, kind, contents, num_bytes, is_alone=file == path)
        except OSError as error:
            collection.refuse(where, error.strerror or str(error))
        if collection.is_complete():
            return collection.arrays(str(path))
    for file, kind in archives:
        _unpack(collection, _name_within(file, path), kind, file, depth=1)
        if collection.is_complete():
            break
    return collection.arrays(str(path))


def _files(path: Path, collection: Collection) -> Iterator[Path]:
    """The path itself if it is a file, else the regular files in it, nearest first; each folder once.

    Raises: OSError if the path itself cannot be read; below it, that only costs the folder.
    """
    mode = path.stat().st_mode
    if not S_ISDIR(mode):
        if not S_ISREG(mode):
            raise DataError(f"{path}: neither a file nor a folder")
        yield path
        return
    visited: set[tuple[int, int]] = set()
    num_files, level = 0, [path]
    for _ in range(MAX_FOLDER_DEPTH + 1):
        inner: list[Path] = []
        for folder in level:
            for entry, status in _entries(folder, path, collection):
                if S_ISDIR(status.st_mode) and (status.st_dev, status.st_ino) not in visited:
                    visited.add((status.st_dev, status.st_ino))  # a link may lead back
                    inner.append(entry)
                elif S_ISREG(status.st_mode):
                    num_files += 1
                    if num_files > MAX_FILES:
                        collection.refuse("the rest", f"more than {MAX_FILES} files; name a folder nearer to the data")
                        return
                    yield entry
        level = inner


def _entries(folder: Path, path: Path, collection: Collection) -> list[tuple[Path, os.stat_result]]:
    """Sorted by name; broken links and links in a circle are noted and left out."""
    found: list[tuple[Path, os.stat_result]] = []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        if folder == path:
            raise
        collection.refuse(_name_within(folder, path), error.strerror or str(error))
        return []
    for name in names:
        try:
            found.append((folder / name, (folder / name).stat()))
        except OSError as error:
            collection.refuse(_name_within(folder / name, path), error.strerror or str(error))
    return found


def _name_within(file: Path, path: Path) -> str:
    return path.name if file == path else file.relative_to(path).as_posix()


def _unpack(collection: Collection, where: str, kind: Kind, source: Path | bytes, depth: int) -> None:
    """Offers the members of an archive until the collection is complete."""
    if depth > MAX_ARCHIVE_DEPTH:
        collection.refuse(where, f"more than {MAX_ARCHIVE_DEPTH} archives within each other")
        return
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            for name, data in members(kind, file):
                inner_where = f"{where}/{name}" if name else where
                inner_kind = kind_of(data[:HEAD_BYTES], len(data))
                if inner_kind in ARCHIVES:
                    _unpack(collection, inner_where, inner_kind, data, depth + 1)
                else:
                    contents = io.BytesIO(data)
                    _offer(collection, inner_where, inner_kind, contents, len(data), is_alone=not name)
                if collection.is_complete():
                    return
    except Exception as error:  # of any kind: who made the archive decides which code of tarfile, zipfile, ... fails
        collection.refuse(where, f"not a whole archive, truncated or altered ({_reason(error)})")


def _offer(
    collection: Collection, where: str, kind: Kind | None, contents: BinaryIO, num_bytes: int, is_alone: bool
) -> None:
    """Adds what a single file holds; notes why it is of no use if it should be of some."""
    if kind is None:
        if is_alone or PurePosixPath(where).name.partition(".")[0] in BATCH_SHA256:
            collection.refuse(where, f"its {num_bytes} bytes are no known form of CIFAR-10; truncated or altered?")
        return
    if num_bytes > MAX_FILE_BYTES:
        collection.refuse(where, f"too large for CIFAR-10: {num_bytes} bytes")
        return
    try:
        arrays = decode(kind, contents.read())
    except Exception as error:  # of any kind: who made the file decides which code of PIL, numpy, ... fails
        collection.refuse(where, f"not a whole {kind} file, truncated or altered ({_reason(error)})")
        return
    if not arrays:
        collection.refuse(where, "holds no array of images")
    for array in arrays:
        collection.add(where, array)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
