"""All test images in several files, each proven by itself: what is proven stays when the process is killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dgm.coding.alone import Coder
from dgm.coding.codec import Track
from dgm.coding.proof import Decode, Proven, bits_of, prove
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
        nats = claimed_nats[start : start + IMAGES_IN_FILE]
        proven = _proven_before(path, coder, part, nats)
        if proven is None:
            proven = prove(coder, part, nats, path, decode, track(f"file {number} of {len(starts)}"))
            write_json(path.with_suffix(".json"), proven)
        yield path, proven


def _proven_before(path: Path, coder: Coder, images: Images, claimed_nats: np.ndarray) -> Proven | None:
    """What was proven of this very file, these very images and this claim; None if it has to be proven again."""
    try:
        proven = read_json(path.with_suffix(".json"), Proven)
        found = (file_digest(path), path.stat().st_size, *bits_of(path, coder.model, claimed_nats))
    except (StageError, OSError):  # none yet, or damaged by what killed the process
        return None
    stated = (
        proven.file_sha256,
        proven.file_bytes,
        proven.compressed_bits_per_subpixel,
        proven.claimed_bits_per_subpixel,
    )
    is_this = stated == found and proven.decoded_sha256 == sha256_of_array(images.cpu().numpy())
    return proven if is_this else None


def all_sha256(paths: list[Path]) -> str:
    """SHA-256 of the files one after the other, as hex digits."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
