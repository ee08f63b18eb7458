"""All test images in several files, each proven by itself: what is proven stays when the process is killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dgm.coding.alone import Coder
from dgm.coding.codec import Track
from dgm.coding.proof import Decode, Proven, prove
from dgm.data.verify import sha256_of_array
from dgm.errors import StageError
from dgm.runs.atomic import file_digest
from dgm.runs.checked import read_json, write_json
from dgm.types import Images

IMAGES_IN_FILE = 500  # coded side by side: more are no faster, and a kill loses at most these


def prove_files(
    coder: Coder, images: Images, claimed_nats: np.ndarray, folder: Path, decode: Decode, track: Callable[[str], Track]
) -> Iterator[tuple[Path, Proven]]:
    """Each file of IMAGES_IN_FILE images with what was proven of it, in the order of the images.

    What an earlier process has proven in `folder` is taken over, if its file is whole. track: by a title, wraps the
    sub-pixels of a file. Raises: StageError as `prove` does.
    """
    starts = range(0, len(images), IMAGES_IN_FILE)
    for number, start in enumerate(starts, start=1):
        path = folder / f"{number:03}.dgm"
        part = images[start : start + IMAGES_IN_FILE]
        proven = _proven_before(path, sha256_of_array(part.cpu().numpy()))
        if proven is None:
            nats = claimed_nats[start : start + IMAGES_IN_FILE]
            proven = prove(coder, part, nats, path, decode, track(f"file {number} of {len(starts)}"))
            write_json(path.with_suffix(".json"), proven)
        yield path, proven


def _proven_before(path: Path, images_sha256: str) -> Proven | None:
    """What was proven of this very file and these very images; None if it has to be proven again."""
    try:
        proven = read_json(path.with_suffix(".json"), Proven)
        file_sha256 = file_digest(path)
    except (StageError, OSError):  # none yet, or damaged by what killed the process
        return None
    is_this = (proven.file_sha256, proven.decoded_sha256) == (file_sha256, images_sha256)
    return proven if is_this else None


def all_sha256(paths: list[Path]) -> str:
    """SHA-256 of the files one after the other, as hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
