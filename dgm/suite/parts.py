"""Results packed into files of bounded size, each a zip of its own.

Parts are rewritten while the suite goes on, and it may be killed between two of them. So each part says of which
packing it is, and an entry is taken only where all its pieces of one packing are there.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from dgm.errors import StageError
from dgm.runs.atomic import atomic_file
from dgm.runs.checked import CHECKED, first_fault
from dgm.runs.fields import Sha256
from dgm.suite.row import digest_of

PART_BYTES = 15 * 2**20
PIECE_OVERHEAD = 4096  # of the zip and of the index, for each piece; names are far shorter
INDEX = "index.json"
SUFFIX = ".zip"
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Entry:
    """One file to pack; load gives its bytes as they travel."""

    path: str
    load: Callable[[], bytes]


@checked_dataclass(frozen=True, config=CHECKED)
class Piece:
    """A stretch of an entry in a part: its name in the zip, and the entry's path, digest and length."""

    name: str
    path: str
    sha256: Sha256
    size: Count
    start: Count


@checked_dataclass(frozen=True, config=CHECKED)
class Index:
    """index.json of a part: the number of its packing, which grows from one to the next, and its pieces."""

    packing: Count
    pieces: list[Piece]


def pack(entries: Sequence[Entry], folder: Path, packing: int, first: int, count: int) -> list[Path]:
    """Writes parts number `first` to `first + count - 1` of the stream of entries; parts beyond the end are removed.

    packing: a number that grows from one packing to the next. Each part is written whole or not at all.
    """
    written: list[Path] = []
    for number, pieces in enumerate(split(entries, first + count - 1), start=1):
        if number < first:
            continue
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            index = Index(packing, [piece for piece, _ in pieces])
            archive.writestr(INDEX, json.dumps(asdict(index)))
            for piece, content in pieces:
                archive.writestr(piece.name, content)
        path = folder / f"results_{number:02d}{SUFFIX}"
        with atomic_file(path) as file:
            file.write(data.getvalue())
        written.append(path)
    for path in set(folder.glob(f"results_*{SUFFIX}")) - set(written):
        path.unlink()
    return written


def split(entries: Sequence[Entry], last: int) -> Iterator[list[tuple[Piece, bytes]]]:
    """The pieces of each part with their bytes, up to part number `last`; a part has PART_BYTES at most."""
    part: list[tuple[Piece, bytes]] = []
    room, number = PART_BYTES - PIECE_OVERHEAD, 1
    for entry in entries:
        data = entry.load()
        sha256, start = digest_of(data), 0
        while start < len(data) or start == 0:
            if room <= PIECE_OVERHEAD:
                yield part
                if number == last:
                    return
                part, room, number = [], PART_BYTES - PIECE_OVERHEAD, number + 1
            content = data[start : start + room - PIECE_OVERHEAD]
            part.append((Piece(f"{entry.path}.{start}", entry.path, sha256, len(data), start), content))
            room -= len(content) + PIECE_OVERHEAD
            start += max(len(content), 1)
    if part:
        yield part


def unpack(folder: Path) -> tuple[dict[str, list[bytes]], list[str]]:
    """Path -> bytes of every entry that is whole in the parts of the folder, and the paths of those that are not.

    Of an entry that several packings hold, each content is there, that of the latest packing first.
    Raises: StageError naming a part that is damaged, or the folder if it has none.
    """
    pieces: dict[tuple[int, str, str], dict[int, bytes]] = {}
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        raise StageError(f"{folder}: no part (results_01{SUFFIX} ...) in it")
    for path in paths:
        packing, found = read_part(path)
        for piece, content in found:
            pieces.setdefault((packing, piece.path, piece.sha256), {})[piece.start] = content
    whole: dict[str, list[bytes]] = {}
    for (_, path, sha256), stretches in sorted(pieces.items(), key=lambda item: -item[0][0]):
        data = b"".join(content for _, content in sorted(stretches.items()))
        if digest_of(data) == sha256 and data not in whole.get(path, []):
            whole.setdefault(path, []).append(data)
    return whole, sorted({path for _, path, _ in pieces} - whole.keys())


def read_part(path: Path) -> tuple[int, list[tuple[Piece, bytes]]]:
    """The number of its packing and its pieces. Raises: StageError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            index = TypeAdapter(Index).validate_json(archive.read(INDEX))
            if any(archive.getinfo(piece.name).file_size > PART_BYTES for piece in index.pieces):
                raise ValueError("a piece is larger than a part")
            return index.packing, [(piece, archive.read(piece.name)) for piece in index.pieces]
    except OSError as error:
        raise StageError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValidationError as error:
        raise StageError(f"{path}: {INDEX}: {first_fault(error)}; it is no part of a suite, or damaged") from None
    except Exception as error:  # of any kind: whoever damaged the file decides which code of zipfile or zlib fails
        reason = " ".join(str(error).split())
        raise StageError(f"{path}: damaged ({type(error).__name__}: {reason}); bring it again") from None
