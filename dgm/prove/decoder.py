"""The other side of the proof: a process of its own that is given a compressed file, code and weights, and decodes.

`python -m dgm.prove.decoder TARGET WEIGHTS FILE OUTPUT DEVICE CODE HIDDEN`: nothing that runs here may open what is
neither in the current folder nor code (dgm/coding/isolation.py). CODE: a JSON list of folders of the user's code;
HIDDEN: one of what may not be opened there either, the images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dgm.coding.isolation import Isolation
from dgm.errors import StageError


def main(arguments: list[str]) -> None:
    target, weights, file, output, device, *lists = arguments
    code, hidden = ([Path(name) for name in json.loads(text)] for text in lists)
    Isolation(Path.cwd(), code, hidden).begin()
    from dgm.prove.file_proof import decode_to

    decode_to(target, Path(weights), Path(file), Path(output), device)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StageError as error:
        sys.exit(f"{error}")
