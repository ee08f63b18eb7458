"""Archives -> their members, in memory, with a limit on everything that a crafted archive could ask for."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, BinaryIO, cast

from dgm.data.formats import HEAD_BYTES, MAX_FILE_BYTES, Kind, is_tar

MAX_ARCHIVE_BYTES = 2**30  # unpacked
MAX_MEMBERS = 1000


def members(kind: Kind, file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Name and contents of each file in the archive; a compressed file that is no tar is one, without a name.

    Raises: ValueError for more or larger members than any form of CIFAR-10 has; what tarfile, zipfile, gzip, bz2 and
    lzma raise for damaged ones.
    """
    if kind == "zip":
        yield from _zip_members(file)
        return
    stream = _Limited(_DECOMPRESSORS[kind](file) if kind in _DECOMPRESSORS else file)
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    if is_tar(head):
        yield from _tar_members(stream)
    else:
        yield "", _whole(stream)


def _open_gzip(file: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=file)


_DECOMPRESSORS: Mapping[str, Callable[[BinaryIO], Any]] = {
    "gzip": _open_gzip,
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}


class _Limited:
    """A file that refuses to give more than a form of CIFAR-10 has, in one piece or in all."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._num_bytes = 0

    def read(self, size: int) -> bytes:
        if size > MAX_FILE_BYTES + 1:
            raise ValueError(f"refused, it has a part of {size} bytes, more than any form of CIFAR-10")
        data: bytes = self._file.read(size)
        self._num_bytes += len(data)
        if self._num_bytes > MAX_ARCHIVE_BYTES:
            raise ValueError(f"refused, it unpacks to more than {MAX_ARCHIVE_BYTES} bytes")
        return data

    def seek(self, position: int) -> int:
        """Counts what is skipped: of a compressed file it has to be unpacked."""
        self._num_bytes += max(0, position - self.tell())
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


def _tar_members(stream: _Limited) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive:
        for number, member in enumerate(archive):
            _check_member(member.name, member.size, number)
            if member.isreg():
                file = archive.extractfile(member)
                assert file is not None, "a regular file has contents"
                yield member.name, file.read()


def _zip_members(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        num_bytes = sum(member.file_size for member in archive.infolist())
        if num_bytes > MAX_ARCHIVE_BYTES:
            raise ValueError(f"refused, it unpacks to more than {MAX_ARCHIVE_BYTES} bytes")
        for number, member in enumerate(archive.infolist()):
            _check_member(member.filename, member.file_size, number)
            if not member.is_dir():
                with archive.open(member) as contents:
                    yield member.filename, _whole(contents)


def _check_member(name: str, num_bytes: int, number: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise ValueError(f"refused, {name[:80]} has {num_bytes} bytes, more than any form of CIFAR-10")
    if number >= MAX_MEMBERS:
        raise ValueError(f"refused, it has more than {MAX_MEMBERS} members")


def _whole(contents: Any) -> bytes:
    data: bytes = contents.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"refused, it unpacks to more than {MAX_FILE_BYTES} bytes")
    return data
