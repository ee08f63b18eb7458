"""SIGTERM, SIGHUP and Ctrl-C, from the first import on: one line, a code that says so, and no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dgm.engine.interrupt import StopRequest
from dgm.errors import StageError
from dgm.runs import atomic
from dgm.runs.termination import INTERRUPTED, exit_code, unwinding
from dgm.runs.unfinished import Unfinished
from stages.cli import run_stage

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)])
def test_each_signal_unwinds_once(number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    unwound: list[str] = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # a second one does not cut the cleaning up short
            unwound.append("all")

    with pytest.raises(KeyboardInterrupt) as caught, unwinding():
        work()
    assert unwound == ["all"] and exit_code(caught.value) == code
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)])
def test_an_interrupt_that_other_code_calls_an_error_is_one(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch does so: with an error the stage would call a sound file damaged, and advise to delete it."""

    def work() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise StageError("weights: damaged; delete it") from None

    with pytest.raises(SystemExit) as ended:
        run_stage(work)
    assert ended.value.code == code and "damaged" not in capsys.readouterr().err

    def fail_by_itself() -> None:
        raise StageError("weights: damaged; delete it")

    with pytest.raises(SystemExit, match=r"^error: weights: damaged; delete it$"):
        run_stage(fail_by_itself)


def test_a_loop_that_lets_sigterm_end_the_step_lets_sighup_do_so() -> None:
    with unwinding(), StopRequest() as stop:
        signal.raise_signal(signal.SIGHUP)
    assert stop.is_set


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with unwinding():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGINT, 130)],
    ids=lambda value: str(value),
)
def test_a_signal_during_the_first_imports_is_one_line(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """The first module that is imported after the package is one that waits for the signal."""
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "stages.evaluate", "--model", "made", "--profile", "smoke"]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    before = signal.signal(number, signal.SIG_DFL)  # tests that run in the background may ignore Ctrl-C
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(number, before)
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    time.sleep(0.05)
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == f"{INTERRUPTED}\n"
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_a_file_is_made_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The fault campaign found it: the file was there, and the `try` that removes it had not begun."""

    def made(path: Path) -> Unfinished:
        unfinished = Unfinished(path)
        signal.raise_signal(number)
        return unfinished

    monkeypatch.setattr(atomic, "Unfinished", made)
    with pytest.raises(KeyboardInterrupt), unwinding():
        atomic.write_text(tmp_path / "record.json", "{}")
    assert [*tmp_path.rglob("*")] == []
    monkeypatch.undo()
    with unwinding():
        atomic.write_text(tmp_path / "record.json", "{}")  # nothing waits any longer
    assert (tmp_path / "record.json").read_text() == "{}"
