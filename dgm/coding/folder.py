"""A folder of PNG files <-> one compressed file: pixels by the model, names beside them, in alphabetical order.

The file is a container as container.py writes it, whose words begin with the names:
    number of bytes of the names, the names as JSON padded to whole words, then the coder's words.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dgm.coding.codec import Track, identity_of
from dgm.coding.coders import decode, encode
from dgm.coding.container import is_compressed, read_compressed, write_compressed
from dgm.coding.names import pack_names, problem_of_names, unpack_names
from dgm.data.pictures import read_folder, write_pngs
from dgm.errors import StageError
from dgm.model_api.contracts import Model
from dgm.runs.atomic import check_writable

VERSION = "folder 2"  # part of the identity: a file of another layout is refused, and one without names too


def compress_folder(model: Model, name: str, code: str, folder: Path, path: Path, track: Track = iter) -> float:
    """Bits per sub-pixel of the file `path` that now holds every PNG image of the folder; the whole file counts.

    Files that are not PNG images, and sub-folders, are skipped and listed on stderr.
    Raises: StageError naming a PNG file of the folder that is not an 8-bit RGB one of the model's size, names that
    are one file on some systems, or a `path` that holds something else than a compressed file.
    """
    content = read_folder(folder, model.spec)
    if problem := problem_of_names(list(content.images)):
        raise StageError(f"{folder}: {problem}; rename it")
    if path.exists() and not is_compressed(path):
        raise StageError(f"{path}: exists and is not a compressed image file; name another one")
    check_writable(path)
    if content.skipped:
        print(content.skipped_line(folder), file=sys.stderr)
    images = torch.from_numpy(np.stack(list(content.images.values())))
    compressed = encode(model, images, identity_of(model, name, f"{code} {VERSION}"), track)
    compressed = replace(compressed, words=np.concatenate([pack_names(list(content.images)), compressed.words]))
    write_compressed(path, compressed)
    return compressed.num_bits / (len(images) * model.spec.num_subpixels)


def decompress_folder(model: Model, name: str, code: str, path: Path, folder: Path, track: Track = iter) -> list[Path]:
    """The files that now are in the folder, which must be new or empty: the same pixels under the same names.

    Raises: StageError if the compressed file is damaged or of another model, weights or version; nothing is written.
    OSError if a file cannot be written; those written before are removed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StageError(f"{folder}: exists and is not an empty folder; name another one")
    content = read_compressed(path, identity_of(model, name, f"{code} {VERSION}"), name)
    try:
        names, words = unpack_names(content.words, content.num_images)
    except ValueError as error:
        raise StageError(f"{path}: {error}; compress the images again") from None
    paths = [folder / file_name for file_name in names]
    check_writable(paths[0])
    try:
        images = decode(model, replace(content, words=words), track)
    except StageError as error:
        raise StageError(f"{path}: {error}") from None
    write_pngs(paths, images.numpy())
    return paths
