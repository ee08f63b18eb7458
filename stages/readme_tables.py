"""Puts the lecture's two tables of the cpu profile into README.md, as the report wrote them."""

from __future__ import annotations

from pathlib import Path

from dgm.errors import StageError
from dgm.runs.atomic import write_text
from stages.cli import run_stage

README = Path("README.md")
REPORTS = Path("reports/cpu")
TABLES = {
    "cifar10_pixelrnn.md": "Table of the PixelRNN paper",
    "cifar10_pixelcnn_pp.md": "Table of the PixelCNN++ paper",
}
BEGIN, END = "<!-- tables: python -m stages.readme_tables -->\n", "<!-- end of tables -->\n"


def main() -> None:
    write_text(README, with_tables(README.read_text(encoding="utf-8"), REPORTS))
    print(f"{README}: tables of {REPORTS}")


def with_tables(readme: str, reports: Path) -> str:
    """The text with the tables of `reports` between its two marks. Raises: StageError if a mark or table is missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise StageError(f"{README}: the lines {BEGIN.strip()} and {END.strip()} are missing; put them back")
    parts: list[str] = []
    for name, title in TABLES.items():
        try:
            table = (reports / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise StageError(f"{reports / name}: missing; run `dvc repro` in the cpu profile") from None
        parts.append(f"**{title}**\n\n{table.strip()}\n")
    return before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + after


if __name__ == "__main__":
    run_stage(main)
