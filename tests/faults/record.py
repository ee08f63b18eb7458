"""The figures of a campaign by kind of fault, and the page that shows them."""

from __future__ import annotations

import json
import platform
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from tests.faults.judge import Outcome, Verdict
from tests.faults.processes import core_seconds

PACKAGES = ("torch", "numpy", "mlflow", "dvc", "pydantic")
Item = TypeVar("Item")
SHOWN_FAULTS = 20  # of each kind, in words


@dataclass
class Kind:
    """The trials of one kind of fault. description: for the page.

    kept: a folder with a line for each trial, so that a campaign that was stopped goes on; None: trials are not kept.
    seconds: of one core, for all trials.
    """

    name: str
    description: str
    seed: int
    kept: Path | None = None
    verdicts: list[tuple[str, Verdict]] = field(default_factory=list[tuple[str, Verdict]])
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._done: set[int] = set()
        self._began = core_seconds()
        for line in self._journal.read_text(encoding="utf-8").splitlines() if self._journal else ():
            number, trial, outcome, reason, seconds = json.loads(line)
            self._take(number, trial, Verdict(Outcome(outcome), reason), seconds)

    def left(self, items: Sequence[Item]) -> Iterator[tuple[int, Item, random.Random]]:
        """The trials that have not been made, by number, each with randomness of its own."""
        for number, item in enumerate(items):
            if number not in self._done:
                yield number, item, random.Random(f"{self.seed} {self.name} {number}")

    def add(self, number: int, trial: str, verdict: Verdict) -> None:
        """trial: what was done, in a few words; with the seed and the number enough to do it again."""
        now = core_seconds()
        seconds, self._began = now - self._began, now
        self._take(number, f"{number}: {trial}", verdict, seconds)
        if self._journal:
            kept = (number, f"{number}: {trial}", verdict.outcome.value, verdict.reason, seconds)
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(kept)}\n")

    def count(self, outcome: Outcome) -> int:
        return sum(verdict.outcome is outcome for _, verdict in self.verdicts)

    @property
    def bad(self) -> list[tuple[str, Verdict]]:
        return [(trial, verdict) for trial, verdict in self.verdicts if not verdict.is_good]

    @property
    def _journal(self) -> Path | None:
        if self.kept is None:
            return None
        self.kept.mkdir(parents=True, exist_ok=True)
        path = self.kept / f"{self.name.replace(' ', '_')}.jsonl"
        path.touch()
        return path

    def _take(self, number: int, trial: str, verdict: Verdict, seconds: float) -> None:
        self._done.add(number)
        self.verdicts.append((trial, verdict))
        self.seconds += seconds


def page(kinds: Sequence[Kind], seed: int, command: str, untried: Sequence[str] = ()) -> str:
    """The page in Markdown. untried: kinds of a whole campaign that were not tried, or not yet."""
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
    seconds = sum(kind.seconds for kind in kinds)
    total = Counter(verdict.outcome for kind in kinds for _, verdict in kind.verdicts)
    counts = " | ".join(f"**{total[outcome]}**" for outcome in Outcome)
    lines.append(f"| **all** | **{sum(total.values())}** | {counts} | {seconds:.0f} |")
    lines += ["", *(f"* **{kind.name}:** {kind.description}" for kind in kinds)]
    lines += [f"* Not tried: {', '.join(untried)}"] if untried else []
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
