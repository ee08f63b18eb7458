"""Images coded into a file by a model and decoded by another process: the file's length is the proof of the likelihood.

What is compared with the claim is what the coder wrote; the header, 32 bytes whatever the images are, is counted
apart. A file may be shorter than the claim, never longer: the coder gives every level at least 2^-24, so that a level
which the model holds nearly impossible costs 24 bits at most.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dgm
from dgm.coding.codec import compress, decompress
from dgm.coding.container import HEADER, checksum, read_compressed, write_compressed
from dgm.data.verify import sha256_of_array
from dgm.errors import StageError
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import AutoregressiveModel
from dgm.prove.inputs import place
from dgm.prove.target import Target, find_target
from dgm.runs.atomic import file_digest, write_array
from dgm.runs.progress import track
from dgm.seeds import generator_for
from dgm.types import Images

IMAGES_AT_ONCE = 8  # whose conditionals are computed in one pass
LARGEST_EXCESS = 0.005  # of the claim, that the file may be longer
END_BITS = 96  # the coder's last words: its state, and the rest of a word
FLOOR_BITS = 256 * 2.0**-24 / math.log(2)  # per sub-pixel: what the floor of 2^-24 takes from the other levels
DIFFERENT = 1e-5  # of a probability, times the largest log-probability: rounding of the network's own precision


@dataclass(frozen=True)
class FileProof:
    """holds, detail: for the file; is_causal, causality: of the conditionals, each with and without what follows."""

    holds: bool
    detail: str
    is_causal: bool
    causality: str
    payload_bytes: int
    header_bytes: int


class Watched(AutoregressiveModel[Any]):
    """A model whose step-by-step conditionals are compared with those that it computes from the whole image."""

    def __init__(self, model: AutoregressiveModel[Any], images: Images) -> None:
        super().__init__(model.spec, model.config)
        self.model = model
        with torch.no_grad():
            whole = [model.log_pmf(part.to(model.device)).flatten(1, 3) for part in images.split(IMAGES_AT_ONCE)]
        self.expected = torch.cat(whole)[:, model.order()]
        self.worst, self.where = 0.0, ""

    def log_prob(self, images: Images) -> Tensor:
        return self.model.log_prob(images)

    def log_pmf(self, images: Images) -> Tensor:
        return self.model.log_pmf(images)

    def order(self) -> Tensor:
        return self.model.order()

    def conditionals(self, num_images: int) -> Conditionals:
        return _Compared(self, self.model.conditionals(num_images))

    @property
    def device(self) -> torch.device:
        return self.model.device

    def compare(self, position: int, log_pmf: Tensor) -> None:
        """One step of all images. Shapes: log_pmf (N, levels)."""
        expected = self.expected[:, position]
        largest = torch.where(expected.isfinite(), expected.abs(), 0.0).amax(dim=-1).clamp(min=1.0)
        change = (log_pmf.exp() - expected.exp()).abs().nan_to_num(nan=torch.inf).amax(dim=-1) / largest
        if float(change.max()) > self.worst:
            image = int(change.argmax())
            self.worst = float(change[image])
            self.where = f"image {image}, sub-pixel {place(int(self.model.order()[position]), self.spec)}"


class _Compared(Conditionals):
    def __init__(self, watched: Watched, inner: Conditionals) -> None:
        self.watched, self.inner, self.position = watched, inner, 0

    def log_pmf(self) -> Tensor:
        log_pmf = self.inner.log_pmf()
        self.watched.compare(self.position, log_pmf)
        return log_pmf

    def push(self, values: Tensor) -> None:
        self.inner.push(values)
        self.position += 1


def prove_by_file(target: Target, model: AutoregressiveModel[Any], images: Images, hidden: list[Path]) -> FileProof:
    """Codes the images, decodes them in another process and compares. Raises: what the model's code raises."""
    with torch.no_grad():
        parts = [model.log_likelihood(part.to(model.device), generator_for(0)) for part in images.split(IMAGES_AT_ONCE)]
    claimed_bits = -sum(float(part.nats.sum()) for part in parts) / math.log(2)
    watched = Watched(model, images)
    with tempfile.TemporaryDirectory(prefix="dgm_prove_") as folder:
        file = Path(folder) / "images.dgm"
        write_compressed(file, compress(watched, images, _identity(target, model), _bar(model, "code")))
        payload = file.stat().st_size - HEADER.size
        problem = _decode_elsewhere(target, model, file, images, hidden)
    per_subpixel = 8 * payload / images.numel()
    slack = LARGEST_EXCESS * max(claimed_bits, 0.0) + END_BITS + FLOOR_BITS * images.numel()
    sizes = f"{per_subpixel:.4f} bits per sub-pixel in {payload:,} bytes (header of {HEADER.size} apart)"
    claim = f"claimed {claimed_bits / images.numel():.4f}"
    many = f"{len(images)} image{'s' if len(images) > 1 else ''}"
    if problem:
        holds, detail = False, problem
    elif not math.isfinite(claimed_bits) or 8 * payload > claimed_bits + slack:
        holds, detail = False, f"{many}: {sizes}, but {claim}: the model gives these images less than it says"
    else:
        holds, detail = True, f"{many} equal after a fresh process decoded them: {sizes}, {claim}"
    is_causal = watched.worst <= DIFFERENT
    compared = f"{images[0].numel():,} conditionals of {many} computed without what follows them"
    causality = (
        f"{compared}: the same within {watched.worst:.1g}"
        if is_causal
        else f"{compared}: off by {watched.worst:.2g}, most at {watched.where}"
    )
    return FileProof(holds, detail, is_causal, causality, payload, HEADER.size)


def _decode_elsewhere(
    target: Target, model: AutoregressiveModel[Any], file: Path, images: Images, hidden: list[Path]
) -> str:
    """What is wrong with what a fresh process decodes, in one line; empty if it is the images."""
    room = file.parent / "decoder"
    room.mkdir()
    weights, output = room / target.weights.name, room / "decoded.npy"
    shutil.copy(target.weights, weights)
    shutil.move(file, room / file.name)
    package = str(Path(dgm.__file__).resolve().parent.parent)
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    name, colon, attribute = target.text.rpartition(":")
    text = f"{Path(name).resolve()}:{attribute}" if colon else target.text
    code, refused = (json.dumps([str(path.resolve()) for path in these]) for these in (target.code_folders(), hidden))
    given = (text, weights, room / file.name, output, str(model.device), code, refused)
    homes = {"HOME": str(room), "TMPDIR": str(room), "PYTHONUSERBASE": site.getuserbase()}
    result = subprocess.run(
        [sys.executable, "-m", "dgm.prove.decoder", *given],
        cwd=room,
        env={**os.environ, **homes, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return f"the decoding process failed: {last.replace(str(room), '.')[:300]}"
    decoded = np.load(output, allow_pickle=False)
    if sha256_of_array(decoded) == sha256_of_array(images.numpy()):
        return ""
    differing = [
        number for number, pair in enumerate(zip(decoded, images.numpy(), strict=True)) if (pair[0] != pair[1]).any()
    ]
    return f"image {differing[0]} is decoded differently ({len(differing)} of {len(images)} are)"


def decode_to(text: str, weights: Path, file: Path, output: Path, device: str) -> None:
    """What the decoding process does. Raises: StageError."""
    target = find_target(text, weights)
    model = target.load().to(device)
    if not isinstance(model, AutoregressiveModel):
        raise StageError(f"{text}: has no conditionals")
    content = read_compressed(file, _identity(target, model), "model")
    write_array(output, decompress(model, content, _bar(model, "decode")).numpy())


def _identity(target: Target, model: AutoregressiveModel[Any]) -> int:
    return checksum(target.main_digest().encode(), file_digest(target.weights).encode(), repr(model.spec).encode())


def _bar(model: AutoregressiveModel[Any], verb: str) -> Any:
    def bar(steps: Iterable[int]) -> Iterable[int]:
        return track(steps, model.spec.num_subpixels, verb, "sub-pixel")

    return bar
