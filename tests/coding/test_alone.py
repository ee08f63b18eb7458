"""A process of its own decodes from the file and the weights; one that looks at anything else is stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dgm.coding import alone
from dgm.coding.alone import Coder, decode_alone
from dgm.coding.coders import encode
from dgm.coding.container import write_compressed
from dgm.coding.isolation import PACKAGE, Isolation
from dgm.errors import StageError
from dgm.fingerprints import coder_code
from dgm.runs.weights import save_weights
from dgm.types import ImageSpec
from tests.tiny import random_images, untrained_model

SPEC = ImageSpec(3, 4, 4, levels=16)
ATTEMPTS = {
    "numpy": "import numpy; numpy.load({file!r})",
    "mapped": "import numpy; numpy.load({file!r}, mmap_mode='r')",
    "text": "import pathlib; pathlib.Path({file!r}).read_text()",
    "descriptor": "import os; os.open({file!r}, os.O_RDONLY)",
    "link": "import os; os.symlink({file!r}, 'link.npy'); open('link.npy', 'rb')",
    "program": "import subprocess; subprocess.run(['cat', {file!r}])",
    "network": "import socket; socket.create_connection(('127.0.0.1', 9))",
}


def written(folder: Path, name: str, images: Tensor) -> tuple[Coder, Path]:
    model = untrained_model(name, SPEC).eval()
    save_weights(folder / "weights.safetensors", model.state_dict())
    coder = Coder(model, name, folder / "weights.safetensors", coder_code(name))
    write_compressed(folder / "x.dgm", encode(model, images, coder.identity))
    return coder, folder / "x.dgm"


@pytest.mark.parametrize("name", ["pixelcnn", "vae"])  # exact, and by bits-back
def test_another_process_decodes_the_same_images(tmp_path: Path, name: str) -> None:
    images = random_images(SPEC, 5)
    decoded = decode_alone(*written(tmp_path, name, images))
    assert torch.equal(decoded.images, images) and decoded.core_seconds > 0


def test_a_decoder_that_looks_at_other_files_is_found_even_if_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "DECODER", "tests.coding.peeking_decoder")
    coder, path = written(tmp_path, "uniform", random_images(SPEC, 2))
    with pytest.raises(StageError, match=r"x\.dgm: not decoded .*: the decoder opened .*peeking_decoder\.py"):
        decode_alone(coder, path)


def test_only_the_folder_its_code_and_the_system_are_allowed(tmp_path: Path) -> None:
    isolation = Isolation(tmp_path)
    for path in (tmp_path / "weights.safetensors", PACKAGE / "units.py", os.__file__, b"/proc/self/status"):
        assert isolation.allows(path), path
    for path in (PACKAGE.parent / "data" / "test.npy", PACKAGE.parent / "params.yaml", tmp_path.parent, "/home/x.npy"):
        assert not isolation.allows(path), path


def test_the_data_of_a_project_in_a_system_folder_is_refused(tmp_path: Path) -> None:
    isolation = Isolation(tmp_path)
    isolation._project = Path("/usr/src/app")
    isolation._python = (Path("/usr"), Path("/usr/src/app/.venv"))
    assert not isolation.allows("/usr/src/app/data/test.npy")
    assert isolation.allows("/usr/src/app/.venv/lib/x.py") and isolation.allows("/usr/lib/python3/x.py")


def test_every_way_to_read_more_is_refused(tmp_path: Path) -> None:
    """One process tries them all, from a folder of its own beside the file."""
    folder, file = tmp_path / "folder", tmp_path / "test.npy"
    folder.mkdir()
    file.write_bytes(b"pixels")
    attempts = {name: code.format(file=str(file)) for name, code in ATTEMPTS.items()}
    script = f"""
import numpy, pathlib, socket, subprocess
from dgm.coding.isolation import Isolation
from dgm.errors import StageError
Isolation(pathlib.Path.cwd()).begin()
for name, code in {attempts!r}.items():
    try:
        exec(code)
    except StageError as error:
        print(name, error)
"""
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    refused = {line.split()[0] for line in ended.stdout.splitlines() if "was given the compressed file" in line}
    assert refused == set(ATTEMPTS), ended.stderr


def test_folders_of_code_are_allowed_but_for_what_is_hidden_in_them(tmp_path: Path) -> None:
    folder, code, images = tmp_path / "folder", tmp_path / "code", tmp_path / "code" / "data"
    isolation = Isolation(folder, [code], [images])
    assert isolation.allows(code / "nets.py") and isolation.allows(folder / "weights.pt")
    for path in (images / "test.npy", images, tmp_path / "other" / "test.npy"):
        assert not isolation.allows(path), path
