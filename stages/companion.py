"""Writes the lecture companion, docs/companion/, from the model cards and the report of the cpu profile."""

from __future__ import annotations

import argparse
from pathlib import Path

from dgm.config.params import load_params
from dgm.errors import StageError
from dgm.reporting.companion import companion_pages, read_report, settings_of
from dgm.runs.atomic import write_text
from dgm.settings import model_config
from stages.cli import run_stage

FOLDER = Path("docs/companion")
PROFILE = "cpu"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not what it should be")
    is_check = parser.parse_args().check
    pages = pages_now()
    stale = stale_pages(pages, FOLDER)
    if is_check and stale:
        raise StageError(f"{FOLDER}: not current: {', '.join(stale)}; run `python -m stages.companion`")
    for name in stale:
        if name in pages:
            write_text(FOLDER / name, pages[name])
        else:
            (FOLDER / name).unlink()
    print(f"{FOLDER}: {len(pages)} pages of reports/{PROFILE}, {len(stale)} of them changed")


def pages_now() -> dict[str, str]:
    """File name -> what the page should be."""
    params = load_params()
    values = {name: model_config(params, name, PROFILE).model_dump() for name in params.suite}
    return companion_pages(read_report(PROFILE, settings_of(values)), FOLDER)


def stale_pages(pages: dict[str, str], folder: Path) -> list[str]:
    """Names of pages that are absent, different, or no longer made."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in pages.keys() | there.keys() if pages.get(name) != there.get(name))


if __name__ == "__main__":
    run_stage(main)
