"""Decodes a compressed file in a process of its own, whose folder holds the file, the weights and the settings only.

The process (dgm/decoder.py) is told nothing else: it starts in that folder, which is new, with none of this process's
memory and few of its environment variables. What it tries to open elsewhere ends it (isolation.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from dgm.coding.codec import identity_of
from dgm.coding.isolation import PACKAGE
from dgm.errors import StageError
from dgm.model_api.contracts import Model
from dgm.types import Images

DECODER = "dgm.decoder"
SETTINGS, WEIGHTS, FILE, DECODED = "model.json", "weights.safetensors", "images.dgm", "decoded.npy"
INHERITED = (
    "PATH",
    "LANG",
    "LC_",
    "LD_",
    "DYLD_",
    "OMP_",
    "MKL_",
    "THP_",
    "CUDA_",
    "CUBLAS_",
    "NVIDIA_",
    "VIRTUAL_ENV",
)


@dataclass(frozen=True)
class Coder:
    """A trained model that one process compresses with, and all that another one needs to decompress.

    model: with its weights, on its device; weights: their file; code: digest of the code that reads compressed files.
    """

    model: Model
    name: str
    weights: Path
    code: str

    @property
    def identity(self) -> int:
        """What the header of its files says."""
        return identity_of(self.model, self.name, self.code)


@dataclass(frozen=True)
class Decoded:
    """images: uint8 (N, C, H, W). core_seconds: processor time of the decoding, start of the process not counted."""

    images: Images
    core_seconds: float


def decode_alone(coder: Coder, path: Path) -> Decoded:
    """The images of a compressed file. Raises: StageError naming the file and what the decoder says is wrong."""
    if coder.model.device.type == "cuda":
        torch.cuda.empty_cache()  # what encoding took: the other process needs as much
    with tempfile.TemporaryDirectory(prefix="dgm-decoder-") as name:
        folder = Path(name).resolve()
        settings = {
            "name": coder.name,
            "config": coder.model.config.model_dump(),
            "spec": asdict(coder.model.spec),
            "device": str(coder.model.device),
        }
        (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
        shutil.copyfile(coder.weights, folder / WEIGHTS)
        shutil.copyfile(path, folder / FILE)
        ended = subprocess.run(
            [sys.executable, "-m", DECODER],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            said = ended.stdout.strip().splitlines()
            reason = said[-1] if said else f"it ended with exit code {ended.returncode}"
            raise StageError(f"{path}: not decoded in a process of its own: {reason}")
        return Decoded(torch.from_numpy(np.load(folder / DECODED, allow_pickle=False)), float(ended.stdout))


def _environment(folder: Path) -> dict[str, str]:
    """Nothing that names a place of the user but the folder and this code."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}
    return kept | {"PYTHONPATH": str(PACKAGE.parent), "HOME": str(folder), "TMPDIR": str(folder)}
