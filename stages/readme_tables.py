"""Puts the lecture's two tables of the cpu profile into README.md, as the report wrote them, and what they cost."""

from __future__ import annotations

from pathlib import Path

from dgm.errors import StageError
from dgm.reporting.written import read_costs
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
        except (FileNotFoundError, UnicodeDecodeError):
            raise StageError(f"{reports / name}: missing or no text; run `dvc repro` in the cpu profile") from None
        parts.append(f"**{title}**\n\n{table.strip()}\n")
    return before + BEGIN + "\n" + "\n".join(parts) + "\n" + cost(reports / "compute.csv") + "\n" + END + after


def cost(compute: Path) -> str:
    """One paragraph of what all models of the report took to train. Raises: StageError if the file is missing."""
    rows = read_costs(compute)
    seconds = {row.name: row.train_seconds for row in rows if row.train_seconds is not None}
    if not seconds:
        raise StageError(f"{compute}: no model was trained; run `dvc repro` in the cpu profile")
    longest = max(seconds, key=lambda name: seconds[name])
    gibibytes = max(row.peak_memory_bytes or 0 for row in rows) / 2**30
    minutes = sum(seconds.values()) / 60
    return (
        f"**What they cost:** {minutes:.0f} minutes of one CPU core to train all {len(seconds)} models, "
        f"at most {seconds[longest] / 60:.0f} for one ({longest}), and up to {gibibytes:.1f} GiB of memory each. "
        "Scoring, sampling and proofs come on top.\n"
    )


if __name__ == "__main__":
    run_stage(main)
