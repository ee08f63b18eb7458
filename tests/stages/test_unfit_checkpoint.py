"""A checkpoint that is whole and holds something else is one line with its remedy; an error of the loop is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dgm.config.params import PARAMS_FILE, load_params
from dgm.engine.session import Session
from dgm.errors import StageError
from dgm.fingerprints import training_key
from dgm.runs.checkpoint import Scratch
from dgm.tracking.untracked_run import UntrackedRun
from stages.train import Limits, train

ROOT = Path(__file__).parent.parent.parent
MODEL, PROFILE = "made", "smoke"
PARAMS = load_params(ROOT / PARAMS_FILE)
KEY = training_key(PARAMS, MODEL, PROFILE)
WHOLE = {"step": 1, "seconds": 1.0, "curve": [], "run": ""}


def take_over(job: object, config: object, session: Session) -> None:
    """As the loop begins: what was saved is read, and then the first step is asked for."""
    saved = session.begin()
    assert saved is not None
    assert saved["model"] == {}
    session.must_pause(False)
    raise ValueError("a mistake in the loop")


def resume(state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr("stages.train.open_run", lambda *given: UntrackedRun())
    monkeypatch.setattr("stages.train.learn_by_gradient", take_over)
    with Scratch(PROFILE, MODEL, KEY) as scratch:
        scratch.save(state)
    train(MODEL, PROFILE, PARAMS, "cpu", Limits(30.0))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"step": 1}, "KeyError: 'seconds'"),
        ({**WHOLE, "curve": [{"step": 1}]}, "TypeError|ValidationError"),
        ({**WHOLE, "curve": [3]}, "TypeError"),
        (WHOLE, "KeyError: 'model'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_line(
    state: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageError, match=rf"does not fit this training \(({reason})") as caught:
        resume(state, tmp_path, monkeypatch)
    text = str(caught.value)
    assert f"{KEY}.pt" in text and f"`python -m stages.checkpoints --clear {KEY}` deletes it" in text
    assert "\n" not in text


def test_an_error_of_the_loop_is_not_the_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a mistake in the loop") as caught:
        resume({**WHOLE, "model": {}}, tmp_path, monkeypatch)
    assert not isinstance(caught.value, StageError)
