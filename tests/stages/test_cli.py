"""How stages end: expected failures in one line, others with their traceback."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dgm.config.parse import ConfigError
from dgm.distributions.gaussian import NotPositiveDefiniteError
from dgm.errors import StageError
from dgm.runs.atomic import atomic_file
from dgm.tracking.causes import StoreAwayError
from stages.cli import Terminated, run_stage


@pytest.mark.parametrize("kind", [ConfigError, StageError, NotPositiveDefiniteError])
def test_an_expected_failure_is_one_line(kind: type[Exception]) -> None:
    def fails() -> None:
        raise kind("the covariance of block 3 is not usable: fit on more images")

    with pytest.raises(SystemExit) as stopped:
        run_stage(fails)
    assert stopped.value.code == "error: the covariance of block 3 is not usable: fit on more images"


def test_a_store_that_is_away_has_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise StoreAwayError("no answer within 12 s")

    with pytest.raises(SystemExit) as stopped:
        run_stage(fails)
    assert stopped.value.code == 69 and capsys.readouterr().err == "error: no answer within 12 s\n"


def test_a_mistake_of_the_program_keeps_its_traceback() -> None:
    def fails() -> None:
        raise ValueError("shapes differ")

    with pytest.raises(ValueError, match="shapes differ"):
        run_stage(fails)


@pytest.mark.parametrize("num_signals", [1, 3])
def test_sigterm_unwinds_the_stage_as_ctrl_c_does(
    num_signals: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminated() -> None:
        with atomic_file(tmp_path / "result") as file:
            file.write(b"half")
            for _ in range(num_signals):
                signal.raise_signal(signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run_stage(terminated)
    assert stopped.value.code == 143
    assert capsys.readouterr().err == "interrupted; `dvc repro` continues from here\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is handler
    assert issubclass(Terminated, KeyboardInterrupt)  # what records a run in MLflow as KILLED


def test_interrupted_and_done_have_their_exit_codes() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    for main, code in ((interrupted, 130), (lambda: None, 0)):
        with pytest.raises(SystemExit) as stopped:
            run_stage(main)
        assert stopped.value.code == code
