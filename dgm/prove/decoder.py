"""The other side of the proof: a process of its own that is given a compressed file, code and weights, and decodes.

`python -m dgm.prove.decoder TARGET WEIGHTS FILE OUTPUT DEVICE REFUSED...`: the paths from REFUSED on, where the images
are, may not be opened by anything that runs here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def refuse(paths: list[Path]) -> None:
    """From now on opening one of the paths, or a file below it, is an error; the hook cannot be taken away again."""
    refused = [path.resolve() for path in paths]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes):
            return
        name = arguments[0].decode(errors="replace") if isinstance(arguments[0], bytes) else arguments[0]
        opened = Path(name).resolve()
        if any(opened == path or path in opened.parents for path in refused):
            raise PermissionError(f"{name}: the decoder may not read the images")

    sys.addaudithook(hook)


def main(arguments: list[str]) -> None:
    target, weights, file, output, device, *refused = arguments
    refuse([Path(path) for path in refused])
    from dgm.prove.file_proof import decode_to

    decode_to(target, Path(weights), Path(file), Path(output), device)


if __name__ == "__main__":
    from dgm.errors import StageError

    try:
        main(sys.argv[1:])
    except StageError as error:
        sys.exit(f"{error}")
