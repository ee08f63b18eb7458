"""python -m dgm.decoder, in a folder that holds a compressed file, the weights and the settings: decodes the images.

Started by dgm/coding/alone.py. Prints the seconds of processor time that decoding took, or in one line what is wrong.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from dgm.coding.alone import DECODED, FILE, SETTINGS, WEIGHTS
from dgm.coding.codec import identity_of
from dgm.coding.coders import decode
from dgm.coding.container import read_compressed
from dgm.coding.isolation import Isolation
from dgm.config.parse import parse
from dgm.errors import StageError
from dgm.fingerprints import coder_code
from dgm.model_api.contracts import AutoregressiveModel
from dgm.model_api.latent_steps import can_compress
from dgm.registry import model_class
from dgm.runs.atomic import write_array
from dgm.runs.progress import track
from dgm.runs.weights import load_weights
from dgm.types import Images, ImageSpec


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    isolation = Isolation(Path.cwd())
    isolation.begin()
    try:
        began = time.process_time()
        images = decoded_images()
        seconds = time.process_time() - began
        if isolation.refused:  # and gone on all the same
            raise StageError(f"the decoder {isolation.refused[0]}")
        write_array(Path(DECODED), images.numpy())
    except StageError as error:
        print(error, file=answers)
        sys.exit(1)
    print(seconds, file=answers)


def decoded_images() -> Images:
    """The images of the file in the current folder. Shapes: -> uint8 (N, C, H, W). Raises: StageError."""
    settings = json.loads(Path(SETTINGS).read_text(encoding="utf-8"))
    name, spec = settings["name"], ImageSpec(**settings["spec"])
    kind = model_class(name)
    model = kind(spec, parse(kind.config_type, settings["config"], SETTINGS)).eval()
    if not can_compress(kind):
        raise StageError(f"{name} has neither exact conditionals nor latents to decode by")
    load_weights(Path(WEIGHTS), model, "give the decoder those that the file was written with")
    model.to(settings["device"])
    content = read_compressed(Path(FILE), identity_of(model, name, coder_code(name)), name)

    def bar(steps: Sequence[int]) -> Iterable[int]:
        unit = "sub-pixel" if isinstance(model, AutoregressiveModel) else "image"
        return track(steps, len(steps), f"decode {name}", unit)

    return decode(model, content, bar)


if __name__ == "__main__":
    main()
