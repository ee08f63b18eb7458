from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stages.download
from dgm.data import arrays as arrays_module
from stages.cli import run_stage
from tests.data.fake_cifar import accept, fake_arrays, picture_files, write_folder, write_tar

PARAMS = "profile: smoke\nsuite: []\ndata: {local_path: %s}\ncommon: {}\ntraining_defaults: {}\nmodels: {}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project whose params.yaml points at a folder `copy`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["download"])
    (tmp_path / "params.yaml").write_text(PARAMS % "copy")
    return tmp_path


def failure(capsys: pytest.CaptureFixture[str]) -> str:
    """What the stage's failure says: the text of exit code 1."""
    with pytest.raises(SystemExit) as stopped:
        run_stage(stages.download.main)
    assert isinstance(stopped.value.code, str) and "Traceback" not in capsys.readouterr().err
    return stopped.value.code


def test_writes_both_arrays_and_prints_the_source(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    write_folder(project / "copy", picture_files(arrays))
    with pytest.raises(SystemExit) as stopped:
        run_stage(stages.download.main)
    assert stopped.value.code == 0
    assert "CIFAR-10 from local copy copy: verified" in capsys.readouterr().out
    assert sorted(entry.name for entry in (project / "data").iterdir()) == ["test.npy", "train.npy"]
    np.testing.assert_array_equal(np.load(project / "data" / "train.npy"), arrays.train)
    np.testing.assert_array_equal(np.load(project / "data" / "test.npy"), arrays.test)


def test_a_copy_named_on_the_command_line_goes_first(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    write_tar(project / "archive", picture_files(arrays))
    monkeypatch.setattr(sys, "argv", ["download", "--local-path", "archive"])
    with pytest.raises(SystemExit):
        run_stage(stages.download.main)
    assert "CIFAR-10 from local copy archive: verified" in capsys.readouterr().out


def test_other_images_leave_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(project / "copy", picture_files(fake_arrays()))
    assert "not CIFAR-10" in failure(capsys)
    assert not (project / "data").exists()


def test_a_full_disk_leaves_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    write_folder(project / "copy", picture_files(arrays))
    write = arrays_module.write_array

    def write_until_full(path: Path, array: np.ndarray) -> None:
        if path.name == "test.npy":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, array)

    monkeypatch.setattr(arrays_module, "write_array", write_until_full)
    assert failure(capsys) == "error: data/test.npy: No space left on device"
    assert list((project / "data").iterdir()) == []


def test_a_broken_configuration_is_one_clear_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "params.yaml").write_text(PARAMS % "1")
    assert failure(capsys).startswith("error: data.local_path: ")


def test_as_a_command_a_failure_is_one_line_on_stderr_and_code_1(project: Path) -> None:
    root = Path(stages.download.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "stages.download"],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: local copy copy: No such file or directory") and done.stderr.count("\n") == 1
