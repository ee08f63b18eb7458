"""File names inside a compressed file: which are safe to write back, on any system, and how they are packed."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np

MAX_NAME_BYTES = 240  # file systems take 255; a temporary name next to it needs a few more


def problem_of_names(names: Sequence[str]) -> str:
    """What keeps these names from being files of one folder on any system; empty if nothing does.

    Names that differ only in upper and lower case, or only in how an accent is encoded, are one file on macOS and
    Windows: an image would be lost there.
    """
    by_folded: dict[str, str] = {}
    for name in names:
        if problem := _problem_of_name(name):
            return f"the file name {name[:100]!r} {problem}"
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).rstrip(". ")
        if folded in by_folded:
            other = by_folded[folded]
            what = "is there twice" if other == name else f"and {other!r} are one file on some systems"
            return f"the file name {name!r} {what}"
        by_folded[folded] = name
    return ""


def _problem_of_name(name: str) -> str:
    is_plain = PurePosixPath(name).name == name and PureWindowsPath(name).name == name
    if not is_plain or not name.strip(". ") or any(unicodedata.category(letter) == "Cc" for letter in name):
        return "is a path or holds characters that a file name must not have on some systems"
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"is longer than {MAX_NAME_BYTES} bytes" if length > MAX_NAME_BYTES else ""


def pack_names(names: Sequence[str]) -> np.ndarray:
    """The number of bytes, then the names as JSON padded to whole words. Shapes: -> uint32 (W,)."""
    data = json.dumps(list(names), ensure_ascii=False).encode("utf-8")
    padded = data + bytes(-len(data) % 4)
    return np.concatenate([np.array([len(data)], np.uint32), np.frombuffer(padded, "<u4").astype(np.uint32)])


def unpack_names(words: np.ndarray, num_images: int) -> tuple[list[str], np.ndarray]:
    """The names, one per image, and the words after them. Shapes: uint32 (W,).

    Raises: ValueError that says what is wrong with them.
    """
    num_bytes = int(words[0]) if len(words) else 0
    first = 1 + -(-num_bytes // 4)
    if not 0 < num_bytes <= 4 * (len(words) - 1):
        raise ValueError("the list of names is longer than the file")
    try:
        names: object = json.loads(words[1:first].astype("<u4").tobytes()[:num_bytes].decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("the list of names is not readable JSON") from None
    if not isinstance(names, list) or len(names) != num_images:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError(f"the list of names does not hold one name for each of {num_images} images")
    checked = [name for name in names if isinstance(name, str)]  # pyright: ignore[reportUnknownVariableType]
    if len(checked) != num_images:
        raise ValueError("the list of names holds something else than names")
    if problem := problem_of_names(checked):
        raise ValueError(problem)
    return checked, words[first:]
