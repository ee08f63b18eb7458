"""Whether the files that every command reads first can be read: params.yaml, dvc.yaml and dvc.lock."""

from __future__ import annotations

from dgm.config.documents import check_documents
from stages.cli import run_stage


def main() -> None:
    check_documents()


if __name__ == "__main__":
    run_stage(main)
