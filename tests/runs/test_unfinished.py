"""A kill inside a write: what is left is where neither git nor DVC takes it, and the next stage removes it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from dgm.runs.atomic import atomic_file, check_writable, write_text
from dgm.runs.unfinished import SUFFIX, remove_unfinished, scratch_folder
from tests.tracking.processes import exit_code, start

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kill_inside_a_write(path: Path) -> None:
    def write() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    assert exit_code(start(write)) == -signal.SIGKILL


@pytest.mark.parametrize("name", ["data/train.npy", "reports/cpu/metrics/made.json", "runs/cpu/made/nats/nats.npy"])
def test_a_killed_write_leaves_nothing_beside_its_file_and_the_next_stage_removes_it(project: Path, name: str) -> None:
    path = project / name
    kill_inside_a_write(path)
    assert list(path.parent.iterdir()) == []
    assert len(list(scratch_folder().iterdir())) == 1
    remove_unfinished(scratch_folder())
    assert list(scratch_folder().iterdir()) == []


def test_outside_a_project_it_is_beside_the_file_until_the_same_is_written_again(project: Path) -> None:
    (project / "dvc.yaml").unlink()
    path, other = project / "pictures.csv", project / ".pictures.csv.mine"
    kill_inside_a_write(path)
    assert not scratch_folder().exists(), "a folder of somebody else gets nothing but the result"
    other.write_text("mine")
    assert len([left for left in project.iterdir() if left.name.endswith(SUFFIX)]) == 1
    check_writable(path)
    assert list(project.iterdir()) == [other]


def test_a_file_whose_writer_is_at_work_stays(project: Path) -> None:
    path = project / "reports" / "x.json"
    with atomic_file(path) as file:
        file.write(b"whole")
        remove_unfinished(scratch_folder())
        check_writable(path)
    assert path.read_bytes() == b"whole"
    assert list(scratch_folder().iterdir()) == []


def test_a_writer_goes_on_whose_file_was_taken_away_before_it_was_locked(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dgm.runs import unfinished

    make, removed = unfinished._make, []

    def made_and_removed(target: Path) -> tuple[int, str]:
        descriptor, name = make(target)
        if not removed:
            os.unlink(name)
            removed.append(name)
        return descriptor, name

    monkeypatch.setattr(unfinished, "_make", made_and_removed)
    write_text(project / "reports" / "x.json", "whole")
    assert removed
    assert (project / "reports" / "x.json").read_text() == "whole"


def test_git_and_dvc_ignore_the_names(tmp_path: Path) -> None:
    name = f"reports/cpu/.x.json.ab12{SUFFIX}"
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0
    lines = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
    assert f".*{SUFFIX}" in lines
    assert {".scratch", ".download"} <= set(lines)
