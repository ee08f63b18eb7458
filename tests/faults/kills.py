"""SIGKILL at random moments of every stage, and the signals that clusters send; then the same command again."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import stages.cli
from dgm.suite.row import read_row
from tests.faults.ground import Ground, undone
from tests.faults.judge import INTERRUPTED, Outcome, Verdict, broken, judge, refusal
from tests.faults.processes import Attempt, Preparation, processes_in, run, start, survivors
from tests.faults.projects import MODEL_STAGES, OUTPUTS, PROFILE, leftovers
from tests.faults.record import Kind

OFTEN = ("--checkpoint-every-seconds", "0.02")
AWAIT_SECONDS = 20.0
SUITE_MODELS, SUITE_SECONDS = ("pixelcnn", "vae"), 60.0
MODELS_BY_STAGE = {"train": ("pixelcnn", "vae", "ppca"), "compress": ("uniform",)}  # the slow ones of few kinds
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stages_of(ground: Ground, stages: tuple[str, ...], count: int) -> list[tuple[str, str | None]]:
    """Each stage in turn, with each of its models in turn."""
    chosen: list[tuple[str, str | None]] = []
    for number in range(count):
        stage = stages[number % len(stages)]
        models = [each for each in MODELS_BY_STAGE.get(stage, ground.models) if each in ground.models]
        model = models[(number // len(stages)) % len(models)] if stage in MODEL_STAGES else None
        chosen.append((stage, model))
    return chosen


def kills(ground: Ground, count: int, stages: tuple[str, ...]) -> Kind:
    """Half of them by the clock, half at the call that makes a file durable or gives it its name."""
    text = "a stage killed at a random moment, or at a random call of fsync or rename, then run again"
    with ground.kind("kills (SIGKILL)", text) as kind:
        for number, (stage, model), moments in kind.left(stages_of(ground, stages, count)):
            line, project = undone(ground, stage, model)
            seconds = ground.seconds.get(line, 1.0)
            line = (*line, *(OFTEN if stage == "train" else ()))
            if moments.random() < 0.5 or stage == "report":
                call = moments.randint(1, 2 * len(OUTPUTS[stage]) + (40 if stage == "report" else 1))
                attempt, when = run(project, line, kill_at(call)), f"at call {call}"
            else:
                part = moments.random()
                attempt, when = killed_after(project, line, part * seconds), f"after {part:.2f} of its time"
            verdict = after_kill(ground, project, line, attempt)
            kind.add(number, f"{' '.join(line)} {when}", verdict)
    return kind


def suites(ground: Ground, count: int) -> Kind:
    """The suite ends with all that it started; it trains by the clock, so that its rows are its own each time."""
    text = "`stages.suite` killed at a random moment: no process is left; run again, it has a figure for every row"
    with ground.kind("kills of a suite", text) as kind:
        models = [model for model in SUITE_MODELS if model in ground.models]
        line = ("stages.suite", "--profile", PROFILE, "--minutes", f"{SUITE_SECONDS / 60}", "--models", *models)
        for number, _, moments in kind.left(range(count)):
            project, part = ground.copy(), moments.random()
            attempt = killed_after(project, line, part * SUITE_SECONDS, accepting)
            verdict = broken(attempt)
            if survivors_of(project):
                verdict = Verdict(Outcome.WRONG, "rows go on without their suite")
            again = run(project, line, accepting)
            verdict = verdict or judge([again], [f"{path.name} is left" for path in leftovers(project)])
            absent = [name for name in models if not has_figure(project, name)]
            if verdict.outcome is Outcome.SAME and absent:
                verdict = Verdict(Outcome.SILENT, f"rows without a figure: {absent}: {again.output[-300:]}")
            kind.add(number, f"after {part:.2f} of its time", verdict)
    return kind


def has_figure(project: Path, model: str) -> bool:
    """Samples and proofs come after it, as far as the minutes go."""
    row = read_row(PROFILE, model, project)
    return row is not None and "evaluate" in row.files


def survivors_of(project: Path) -> list[int]:
    """Processes that still work in the project's folder, some time later; they are ended."""
    until = time.monotonic() + AWAIT_SECONDS
    while (left := processes_in(project)) and time.monotonic() < until:
        time.sleep(0.05)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


def accepting() -> None:
    """The suite's rows are forks of a new process: it takes the random images for CIFAR-10 too."""
    original = ForkServerContext.set_forkserver_preload

    def preloading(self: ForkServerContext, module_names: list[str]) -> None:
        original(self, [*module_names, "tests.faults.accepting"])

    ForkServerContext.set_forkserver_preload = preloading  # type: ignore[method-assign]


def killed_after(project: Path, line: tuple[str, ...], seconds: float, prepare: Preparation | None = None) -> Attempt:
    running = start(project, line, prepare)
    until = time.monotonic() + seconds
    while time.monotonic() < until and not running.has_ended():
        time.sleep(0.001)
    running.send(signal.SIGKILL)
    attempt = running.wait()
    until = time.monotonic() + AWAIT_SECONDS
    while (left := survivors(running.pid)) and time.monotonic() < until:
        time.sleep(0.02)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return attempt


def kill_at(call: int) -> Preparation:
    """The process kills itself instead of the `call`-th fsync or rename."""

    def prepare() -> None:
        left = [call]
        for name in ("fsync", "replace"):
            original = getattr(os, name)

            def killing(*arguments: object, original: object = original, **named: object) -> object:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **named)  # type: ignore[operator]

            setattr(os, name, killing)

    return prepare


def after_kill(ground: Ground, project: Path, line: tuple[str, ...], attempt: Attempt) -> Verdict:
    """What was there after the kill must be whole, and what is there after the same command again undisturbed."""
    if attempt.code not in (0, -signal.SIGKILL):
        return broken(attempt) or refusal(attempt)
    halves = [each for each in ground.changed(project, is_whole=False) if each.endswith(" differs")]
    if halves:
        return Verdict(Outcome.WRONG, f"after the kill: {'; '.join(halves)}")
    return ground.verdict(project, [run(project, line)])


def signals(ground: Ground, count: int, stages: tuple[str, ...]) -> Kind:
    """SIGTERM, SIGINT and SIGHUP, some of them twice."""
    text = "SIGTERM, SIGINT or SIGHUP at a random moment, every fourth twice, then the same command again"
    with ground.kind("signals", text) as kind:
        for number, (stage, model), moments in kind.left(stages_of(ground, stages, count)):
            line, project = undone(ground, stage, model)
            seconds = ground.seconds.get(line, 1.0)
            line = (*line, *(OFTEN if stage == "train" else ()))
            number_sent = SIGNALS[number // len(stages) % 3] if count > len(stages) else SIGNALS[number % 3]
            part = moments.random()
            attempt = signalled(project, line, number_sent, part * seconds, is_twice=moments.random() < 0.25)
            verdict = after_signal(ground, project, line, attempt)
            kind.add(number, f"{number_sent.name} to {' '.join(line)} after {part:.2f} of its time", verdict)
    return kind


def signalled(project: Path, line: tuple[str, ...], number: signal.Signals, seconds: float, is_twice: bool) -> Attempt:
    ready = project.with_name("ready")
    ready.unlink(missing_ok=True)
    running = start(project, line, announcing(ready))
    while not ready.exists() and not running.has_ended():
        time.sleep(0.001)
    until = time.monotonic() + seconds
    while time.monotonic() < until and not running.has_ended():
        time.sleep(0.001)
    running.send(number)
    if is_twice:
        time.sleep(0.005)
        running.send(number)
    return running.wait()


def announcing(ready: Path) -> Preparation:
    """The process makes the file when it has begun its stage: signals before that are the campaign's own."""

    def prepare() -> None:
        original = stages.cli.run_stage

        def begun(main: Preparation) -> None:
            def announced() -> None:
                ready.touch()
                main()

            original(announced)

        stages.cli.run_stage = begun  # type: ignore[assignment]

    return prepare


def after_signal(ground: Ground, project: Path, line: tuple[str, ...], attempt: Attempt) -> Verdict:
    """One line and nothing half written; then, after the same command again, everything undisturbed."""
    if (verdict := broken(attempt)) is not None:
        return verdict
    if attempt.code not in (0, *INTERRUPTED):
        return Verdict(Outcome.SILENT, f"exit code {attempt.code}: {attempt.said[-200:]!r}")
    if attempt.code and not (verdict := refusal(attempt)).is_good:
        return verdict
    if left := leftovers(project):
        return Verdict(Outcome.WRONG, f"{left[0].name} is left")
    if changed := ground.changed(project, is_whole=False):
        return Verdict(Outcome.WRONG, f"after the signal: {'; '.join(changed)}")
    return ground.verdict(project, [run(project, line)])
