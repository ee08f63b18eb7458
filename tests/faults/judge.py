"""What became of a trial: the undisturbed result, a clear refusal, or one of the things that must never be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from dgm.config.parse import MAX_PROBLEMS
from tests.faults.processes import Attempt

PAUSED = 75
INTERRUPTED = (PAUSED, 130, 143)  # exit codes of a stage that a signal ended
TRACEBACK = re.compile(r"^\s*Traceback \(most recent call last\)", re.MULTILINE)
FIRST = re.compile(r"^error: \S", re.MULTILINE)
REMEDY = re.compile(  # what to do, or of a number what it has to be
    r"\b(should be|should have|not allowed|not a finite|missing from|more than|takes|instead|add|check|choose|compress"
    r"|correct|delete|did you mean|expected|fill|fit|draw|give|install|keep|lower|make|mend|mount"
    r"|must be|must have|must not|name|needs?|pick|put|raise|remove|rename|run|save|set|the keys here are"
    r"|start|stop|take|train|try|unset|use"
    r"|wait|write|git checkout|is one of|at most|at least)\b",
    re.IGNORECASE,
)
LONGEST_LINE = 1200  # characters: a line that fits a screen, with several paths
MANY_LINES = MAX_PROBLEMS + 1  # of one refusal: `check` has a line for each problem, up to a limit


class Outcome(Enum):
    """SAME: the result of an undisturbed run. REFUSED: no result, and a line that says which thing and what to do."""

    SAME = "same result"
    REFUSED = "refused"
    WRONG = "wrong"
    TRACEBACK = "traceback"
    SILENT = "silent"


GOOD = (Outcome.SAME, Outcome.REFUSED)


@dataclass(frozen=True)
class Verdict:
    """reason: in one line why it is not SAME."""

    outcome: Outcome
    reason: str = ""

    @property
    def is_good(self) -> bool:
        return self.outcome in GOOD


def judge(attempts: Sequence[Attempt], differences: Sequence[str], thing: str = "") -> Verdict:
    """Of commands of which the last should have made everything whole.

    differences: in what the results that are there now differ from those of an undisturbed run; of a refusal, those
    that are there and differ. thing: what a refusal has to name (a pattern), "" for any.
    """
    for attempt in attempts:
        if (verdict := broken(attempt)) is not None:
            return verdict
    last = attempts[-1]
    if last.code == 0:
        return Verdict(Outcome.WRONG, "; ".join(differences)) if differences else Verdict(Outcome.SAME)
    if differences:
        return Verdict(Outcome.WRONG, f"refused, but {'; '.join(differences)}")
    return refusal(last, thing)


def broken(attempt: Attempt) -> Verdict | None:
    """A traceback, or a command that never ends; None of any other."""
    if TRACEBACK.search(attempt.said):
        return Verdict(Outcome.TRACEBACK, last_line(attempt.said))
    if attempt.code is None:
        return Verdict(Outcome.SILENT, f"did not end within {attempt.seconds:.0f} s")
    return None


def refusal(attempt: Attempt, thing: str = "") -> Verdict:
    """Of a command that failed: whether it says so in a line that names the thing and the remedy."""
    lines = [line for line in attempt.errors.splitlines() if line.strip()]
    said = attempt.errors[found.start() :] if (found := FIRST.search(attempt.errors)) else ""
    if attempt.code in INTERRUPTED:
        is_said = "interrupted" in attempt.said or "paused at step" in attempt.said
        return Verdict(Outcome.REFUSED if is_said else Outcome.SILENT, f"exit code {attempt.code}: {last_line(said)}")
    if not said:
        return Verdict(Outcome.SILENT, f"exit code {attempt.code} without a line: {attempt.said[-200:]!r}")
    problems = [
        ("nothing that it names", bool(thing) and not re.search(thing, said)),
        ("no remedy", not REMEDY.search(said)),
        ("a line without end", max(map(len, lines)) > LONGEST_LINE),
        ("too many lines", len(lines) > MANY_LINES),
        ("two errors", len(FIRST.findall(attempt.errors)) > 1),
    ]
    for problem, is_there in problems:
        if is_there:
            return Verdict(Outcome.SILENT, f"refused with {problem}: {said[:300]}")
    return Verdict(Outcome.REFUSED, lines[-1][:300])


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else ""
