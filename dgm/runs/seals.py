"""Digests within small text files: a changed digit makes a file that still reads well, and shows another figure.

A JSON record ends with the SHA-256 of all that stands before it, a CSV line with one of all lines so far. Files that
are older than this have none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256

SEAL = "sha256"
LINE_DIGITS = 16
END = re.compile(rb',\s*"sha256": "(?P<seal>[0-9a-f]{64})"\s*\}\s*\Z')


def sealed_json(text: str) -> str:
    """A JSON object with one more key, SEAL; the text ends with a line that is its closing brace."""
    body = text.rstrip().removesuffix("}").rstrip()
    return f'{body},\n  "{SEAL}": "{sha256(body.encode()).hexdigest()}"\n}}\n'


def unsealed_json(content: bytes) -> tuple[bytes, bool]:
    """The object without its seal, and whether it is what was sealed: true of one without a seal."""
    if (found := END.search(content)) is not None:
        body = content[: found.start()]
        return body + b"\n}\n", sha256(body).hexdigest() == found["seal"].decode()
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return content, True  # its reader says what is wrong
    if not isinstance(values, dict) or SEAL not in values:
        return content, True
    return json.dumps({key: value for key, value in values.items() if key != SEAL}).encode(), False


def line_seals(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Of each line of a table, its columns' names first."""
    hasher = sha256()
    for line in lines:
        hasher.update("\0".join(line).encode() + b"\n")
        yield hasher.hexdigest()[:LINE_DIGITS]
