"""A short campaign over a small project: what `python -m tests.faults.campaign` does at length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_few_faults_of_each_kind_end_well() -> None:
    command = [sys.executable, "-m", "tests.faults.campaign", "--quick"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " 0 bad, " in ended.stdout
