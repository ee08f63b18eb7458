from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import stages.checkpoints as checkpoints
from dgm.errors import StageError
from dgm.runs.checkpoint import Scratch

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    def run_command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["checkpoints", *arguments])
        checkpoints.main()
        return capsys.readouterr().out

    return run_command


def leave(model: str, key: str, step_name: str = "step", step: int = 7) -> Path:
    """Saves a checkpoint as a killed training leaves it."""
    with Scratch("smoke", model, key) as scratch:
        scratch.save({step_name: step, "text": "x" * 100_000})
        return scratch.folder


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_lists_what_is_left_with_its_step_and_whether_it_runs(run: Run) -> None:
    leave("vae", "aaaa", step=12)
    folder = leave("ppca", "bbbb", "iteration", 3)
    os.utime(folder / "bbbb.pt", (1e9, 1e9))
    os.utime(folder / "bbbb.lock", (1e9, 1e9))
    (folder / "cccc.pt").write_bytes(b"damaged")
    with Scratch("smoke", "vae", "dddd"):
        header, damaged, old, *vae = lines(run())
    assert header == ["profile", "model", "key", "step", "age", "size", "running"]
    assert damaged == ["smoke", "ppca", "cccc", "-", "0", "s", "0.0", "MB", "no"]
    assert old[:4] == ["smoke", "ppca", "bbbb", "3"] and old[5:] == ["d", "0.1", "MB", "no"] and int(old[4]) > 5000
    assert [line[2:4] + line[-2:] for line in vae if line[2] == "dddd"] == [["dddd", "-", "process", str(os.getpid())]]
    assert [line[2:4] + line[-1:] for line in vae if line[2] == "aaaa"] == [["aaaa", "12", "no"]]


def test_an_empty_scratch_folder_is_said_to_be_empty(run: Run, tmp_path: Path) -> None:
    assert run() == f"no checkpoints in {tmp_path / '.scratch'}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["aaaa"], {"bbbb", "cccc"}),
        (["smoke/vae"], {"cccc"}),
        (["bbbb", "smoke/ppca"], {"aaaa"}),
        (["--all"], set[str]()),
    ],
)
def test_clears_what_is_named_and_nothing_else(run: Run, arguments: list[str], kept: set[str]) -> None:
    leave("vae", "aaaa")
    folder = leave("vae", "bbbb")
    leave("ppca", "cccc")
    (folder / ".aaaa.incoming.pt.x").write_bytes(b"half")
    freed = run("--clear", *arguments)
    assert freed.splitlines()[-1] == f"freed {0.1 * (3 - len(kept)):.1f} MB"
    assert {line[2] for line in lines(run())[1:] if len(line) > 6} == kept
    if not kept:
        assert not folder.parent.exists()


def test_what_is_running_is_never_deleted(run: Run) -> None:
    leave("vae", "aaaa")
    with Scratch("smoke", "vae", "aaaa") as scratch:
        assert "smoke/vae aaaa: running, kept" in run("--clear", "--all")
        loaded = scratch.load()
        assert loaded is not None and loaded["step"] == 7


@pytest.mark.parametrize("arguments", [["--clear"], ["--clear", "aaaa", "--all"], ["--all"], ["--clear", "zzzz"]])
def test_a_request_that_is_not_clear_deletes_nothing(run: Run, arguments: list[str]) -> None:
    leave("vae", "aaaa")
    with pytest.raises(StageError, match=r"--all|zzzz: no such key"):
        run(*arguments)
    assert "aaaa" in run()
