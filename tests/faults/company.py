"""Two of a stage at once, and clocks that jump: neither may change a result."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.faults.ground import Ground, undone
from tests.faults.judge import Verdict, broken, refusal
from tests.faults.kills import OFTEN, kill_at, stages_of
from tests.faults.processes import Attempt, Preparation, run, start
from tests.faults.projects import files_of
from tests.faults.record import Kind

YEAR = 365.0 * 86400


def at_once(ground: Ground, count: int, stages: tuple[str, ...]) -> Kind:
    """The same command twice at once; each finishes, or says that the other one is at work."""
    text = "the same stage twice at the same time, the second a moment later; then once more if one was refused"
    with ground.kind("two at once", text) as kind:
        for number, (stage, model), moments in kind.left(stages_of(ground, stages, count)):
            line, project = undone(ground, stage, model)
            delay = moments.random() * 0.5 * ground.seconds.get(line, 1.0)
            first = start(project, line)
            time.sleep(delay)
            second = start(project, line)
            attempts = [first.wait(), second.wait()]
            kind.add(number, f"{' '.join(line)}, {delay:.2f} s apart", of_both(ground, project, line, attempts))
    return kind


def of_both(ground: Ground, project: Path, line: tuple[str, ...], attempts: list[Attempt]) -> Verdict:
    for attempt in attempts:
        verdict = broken(attempt) or (refusal(attempt) if attempt.code else None)
        if verdict is not None and not verdict.is_good:
            return verdict
    if all(attempt.code for attempt in attempts):
        attempts = [*attempts, run(project, line)]
    else:
        attempts = sorted(attempts, key=lambda attempt: attempt.code == 0)
    return ground.verdict(project, attempts)


def clocks(ground: Ground, count: int, stages: tuple[str, ...]) -> Kind:
    """The wall clock jumps within the stage, or files are of another year; every other training is a resumed one."""
    text = "the wall clock jumps by up to 30 years within a stage, or the files of a project are of another year"
    with ground.kind("clock jumps", text) as kind:
        for number, (stage, model), moments in kind.left(stages_of(ground, stages, count)):
            line, project = undone(ground, stage, model)
            years, call = moments.choice((-30, -1, -0.001, 0.001, 1, 30)), moments.randint(1, 30)
            attempts: list[Attempt] = []
            if stage == "train" and number % 2:
                line = (*line, *OFTEN)
                run(project, line, kill_at(3))
            prepare = jumping(call, years * YEAR)
            if moments.random() < 0.5:
                prepare, then = None, time.time() + years * YEAR
                for path in files_of(project / "runs") + files_of(project / "reports") + files_of(project / ".scratch"):
                    if path.stat().st_nlink == 1:
                        os.utime(path, (then, then))
                (project / "params.yaml").touch()
            attempts.append(run(project, line, prepare))
            what = "clock" if prepare else "files"
            kind.add(number, f"{' '.join(line)}, {what} {years:+} years", ground.verdict(project, attempts))
    return kind


def jumping(call: int, seconds: float) -> Preparation:
    """From its `call`-th look at the wall clock on, the process sees another time."""

    def prepare() -> None:
        original, left = time.time, [call]

        def jumped() -> float:
            left[0] -= 1
            return original() + (seconds if left[0] < 0 else 0.0)

        time.time = jumped

    return prepare
