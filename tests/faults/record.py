"""The figures of a campaign by kind of fault, and the page that shows them."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version

from tests.faults.judge import Outcome, Verdict

PACKAGES = ("torch", "numpy", "mlflow", "dvc", "pydantic")
SHOWN_FAULTS = 20  # of each kind, in words


@dataclass
class Kind:
    """The trials of one kind of fault. description: for the page. seconds: of one core."""

    name: str
    description: str
    verdicts: list[tuple[str, Verdict]] = field(default_factory=list[tuple[str, Verdict]])
    seconds: float = 0.0
    skipped: str = ""

    def add(self, trial: str, verdict: Verdict) -> None:
        """trial: what was done, in a few words; enough to do it again with the seed."""
        self.verdicts.append((trial, verdict))

    def count(self, outcome: Outcome) -> int:
        return sum(verdict.outcome is outcome for _, verdict in self.verdicts)

    @property
    def bad(self) -> list[tuple[str, Verdict]]:
        return [(trial, verdict) for trial, verdict in self.verdicts if not verdict.is_good]


def page(kinds: Sequence[Kind], seed: int, command: str, seconds: float) -> str:
    """The page in Markdown."""
    lines = [
        "# Reliability",
        "",
        "Faults injected on purpose into every stage, and what became of them. *Same* ended with the bytes of an"
        " undisturbed run; *refused* ended with a line that names the thing and the remedy. The others must be 0.",
        "",
        "| Fault | Tried | Same | Refused | Wrong | Tracebacks | Silent | Seconds |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for kind in kinds:
        counts = " | ".join(str(kind.count(outcome)) for outcome in Outcome)
        lines.append(f"| {kind.name} | {len(kind.verdicts)} | {counts} | {kind.seconds:.0f} |")
    total = Counter(verdict.outcome for kind in kinds for _, verdict in kind.verdicts)
    counts = " | ".join(f"**{total[outcome]}**" for outcome in Outcome)
    lines.append(f"| **all** | **{sum(total.values())}** | {counts} | {seconds:.0f} |")
    lines += ["", *(f"* **{kind.name}:** {kind.description}" for kind in kinds)]
    lines += [f"* Not tried here: {kind.name}: {kind.skipped}." for kind in kinds if kind.skipped]
    if any(kind.bad for kind in kinds):
        lines += ["", "## What must not be", ""]
        for kind in kinds:
            shown = kind.bad[:SHOWN_FAULTS]
            lines += [
                f"* {kind.name}: {trial}: {verdict.outcome.value}: {one_line(verdict)}" for trial, verdict in shown
            ]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines += [
        "",
        f"By `{command}` on {datetime.now(UTC):%Y-%m-%d}, seed {seed}, in {seconds:.0f} s of one core;"
        f" Python {platform.python_version()}, {versions}, {sys.platform}. The same seed tries the same faults; the"
        " moment of a kill is a part of the time that the stage took undisturbed, on the machine.",
        "",
    ]
    return "\n".join(lines)


def one_line(verdict: Verdict) -> str:
    return " ".join(verdict.reason.split())[:240]
