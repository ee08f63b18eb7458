"""The scripts for a GPU machine: what they install is found by every process, also one that inherits no PYTHONPATH."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEEL = {
    "carried.py": "here = True\n",
    "carried-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n",
    "carried-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "carried-1.0.dist-info/RECORD": "carried.py,,\ncarried-1.0.dist-info/RECORD,,\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with the scripts and one wheel to install."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    wheels = tmp_path / ".work" / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "carried-1.0-py3-none-any.whl", "w") as archive:
        for name, text in WHEEL.items():
            archive.writestr(name, text)
    return tmp_path


@pytest.mark.parametrize("is_in_venv", [False, True])
def test_the_wheels_are_found_without_pythonpath(tree: Path, is_in_venv: bool) -> None:
    python = Path(sys.base_exec_prefix) / "bin" / "python3"  # that of no virtual environment
    folder = python.parent
    if is_in_venv:
        subprocess.run([python, "-m", "venv", "--without-pip", "--system-site-packages", tree / "own"], check=True)
        folder = tree / "own" / "bin"
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tree)}
    subprocess.run(["bash", "scripts/gpu/1_install.sh"], cwd=tree, env=environment, capture_output=True)  # no torch
    assert (tree / ".work" / "env").exists() != is_in_venv
    asked = 'source scripts/gpu/environment.sh; exec env -i PATH="$PATH" python3 -c "import carried"'
    subprocess.run(["bash", "-c", asked], cwd=tree, env=environment, check=True)
