"""Whether the files that every command reads first can be read, and whether params.yaml is sound."""

from __future__ import annotations

import subprocess

from dgm.config.documents import check_documents
from dgm.errors import StageError
from stages.cli import run_stage
from stages.dvc_command import command, environment

IF_CUT = "If dvc.lock is invalid (a kill may cut it): git checkout dvc.lock; nothing that is cached is computed anew"


def main() -> None:
    check_documents()
    reproduce("check")


def reproduce(*targets: str) -> None:
    """`dvc repro`, its output shown. Raises: StageError, with the remedy where DVC cannot read its files."""
    if subprocess.run(command("repro", "-q", *targets), env=environment()).returncode:
        raise StageError(f"{' and '.join(targets)} failed, see above{remedy()}")


def remedy() -> str:
    """What to do if DVC cannot read its files; empty if it can."""
    listed = subprocess.run(command("stage", "list", "-q"), env=environment(), capture_output=True)
    return f". {IF_CUT}" if listed.returncode else ""


if __name__ == "__main__":
    run_stage(main)
