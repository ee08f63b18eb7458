"""What `make run` needs is checked first, in one line, also by a Python that is too old."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from stages.machine import GIGABYTES, SPARE, gigabytes_needed, machine_line

ROOT = Path(__file__).parents[2]


class Usage(NamedTuple):
    total: float
    used: float
    free: float


def test_what_is_here_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 50e9))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    line = machine_line(tmp_path, (3, 11, 7))
    assert line == "Python 3.11.7, npm, 50 GB of disk free of which at most 5.0 GB are needed"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "no npm (install it if the first source of CIFAR-10 does not answer)" in machine_line(tmp_path, (3, 12, 0))


def test_each_lack_is_one_line_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 4.9e9))
    with pytest.raises(
        SystemExit, match=r"error: Python 3\.11 or newer is needed, this is 3\.9\.1; .*PYTHON=python3\.11"
    ):
        machine_line(tmp_path, (3, 9, 1))
    with pytest.raises(SystemExit, match=r"error: 5\.0 GB of disk are needed in /.*, 4\.9 GB are free; free some"):
        machine_line(tmp_path, (3, 11, 0))
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="error: git is not installed"):
        machine_line(tmp_path, (3, 11, 0))


def test_what_is_there_needs_no_disk_again(tmp_path: Path) -> None:
    assert gigabytes_needed(tmp_path, GIGABYTES) == pytest.approx(SPARE + sum(GIGABYTES.values()))
    for name in GIGABYTES:
        (tmp_path / name).mkdir(parents=True)
    assert gigabytes_needed(tmp_path, GIGABYTES) == SPARE


def test_it_needs_no_package() -> None:
    """The environment is made after it."""
    words = [sys.executable, "-I", "-S", str(ROOT / "stages" / "machine.py")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.startswith("Python 3."), done.stderr
