from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dgm.runs.locks import FileLock, LockHeldError, is_held
from tests.tracking import processes


def test_a_lock_on_a_removed_file_protects_nothing_and_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the holder leaves and removes the file: the known race of unlink and flock."""
    path = tmp_path / "folder" / "k.lock"
    first, second, third = FileLock(path), FileLock(path), FileLock(path)
    first.acquire(0.0)
    real_open = os.open

    def open_and_lose_the_file(*arguments: object) -> int:
        descriptor = real_open(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(os, "open", real_open)
        first.release(remove=True)
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose_the_file)
    second.acquire(1.0)
    with pytest.raises(LockHeldError, match=f"process {os.getpid()}"):
        third.acquire(0.0)
    second.release(remove=True)
    assert not path.parent.exists()


def test_of_processes_that_take_and_remove_one_lock_only_one_is_inside_at_a_time(tmp_path: Path) -> None:
    path, inside = tmp_path / "folder" / "k.lock", tmp_path / "inside"

    def take_often() -> None:
        for _ in range(60):
            lock = FileLock(path)
            lock.acquire(30.0)
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # raises if another process is inside
            inside.unlink()
            lock.release(remove=True)

    children = [processes.start(take_often) for _ in range(4)]
    assert [processes.exit_code(child) for child in children] == [0] * 4


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "k.lock"

    def take_and_die() -> None:
        FileLock(path).acquire(0.0)
        os.kill(os.getpid(), 9)

    assert processes.exit_code(processes.start(take_and_die)) == -9
    assert path.exists() and not is_held(path)
    lock = FileLock(path)
    lock.acquire(0.0)
    assert is_held(path)
    assert path.read_text() == str(os.getpid())


def test_waiting_ends_at_its_limit(tmp_path: Path) -> None:
    holding = FileLock(tmp_path / "k.lock")
    holding.acquire(0.0)
    began = time.monotonic()
    with pytest.raises(LockHeldError):
        FileLock(holding.path).acquire(0.1)
    assert 0.1 <= time.monotonic() - began < 2.0


def test_asking_whether_a_lock_is_held_creates_nothing(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "k.lock")
    assert list(tmp_path.iterdir()) == []
