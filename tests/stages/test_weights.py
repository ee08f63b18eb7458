"""Weights in git: what dvc.lock names, and nothing else; of bounded size; a fresh clone gets them by one command."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

import stages.weights as weights
from dgm.errors import StageError
from stages.dvc_command import dvc, locked_stages
from stages.weights import FOLDER, Output, files_of, objects, outputs_of, publish, pull

ROOT = Path(__file__).parents[2]


def stored(remote: Path, content: bytes) -> str:
    """Puts a file under its MD5; that."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = weights.object_path(md5, remote)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def row(remote: Path, model: str, content: bytes, profile: str = "cpu") -> Output:
    """The weights of a model, in a remote or a cache."""
    listing = [{"md5": stored(remote, content), "relpath": "weights.safetensors"}]
    data = json.dumps(listing).encode()
    md5 = stored(remote, data)
    path = weights.object_path(md5, remote)
    path.rename(path.with_name(f"{path.name}.dir"))
    return Output("train", profile, model, f"{md5}.dir", len(content))


def test_weights_of_the_lock_are_published_and_older_ones_removed(project: Path) -> None:
    cache = project / "cache"
    old, new = row(cache, "made", b"old"), row(cache, "made", b"new")
    other = row(cache, "nice", b"of another budget", "gpu")
    publish([old, other], cache)
    assert files_of(old, FOLDER) is not None
    shutil.rmtree(cache)
    new = row(cache, "made", b"new")
    publish([new, other], cache)  # the other's are in no cache of this machine any more, and current
    assert files_of(old, FOLDER) is None and files_of(other, FOLDER) is not None
    assert sorted(path.read_bytes() for path in files_of(new, FOLDER) or [])[1] == b"new"
    assert len(list(objects(FOLDER))) == 4


def test_rows_over_the_limit_are_left_out_and_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "MAX_ROW_BYTES", 5)
    large, small = row(project / "cache", "made", b"large."), row(project / "cache", "nice", b"small")
    publish([large, small], project / "cache")
    assert "train@cpu-made: 0.0 MB, 5e-06 at most: not published" in capsys.readouterr().out
    assert len(list(objects(FOLDER))) == 2
    monkeypatch.setattr(weights, "MAX_BYTES", 4)
    with pytest.raises(StageError, match=r"would hold 0.0 MB, .*largest: train@cpu-nice"):
        publish([small], project / "cache")


def test_damaged_weights_are_refused(project: Path) -> None:
    output = row(project / "cache", "made", b"weights")
    path = (files_of(output, project / "cache") or [])[1]
    path.write_bytes(b"weightz")
    with pytest.raises(StageError, match=rf"{path}: damaged"):
        publish([output], project / "cache")
    assert not FOLDER.exists()


def test_a_clone_without_published_weights_is_told_what_to_do(project: Path) -> None:
    with pytest.raises(StageError, match=r"weights: holds nothing of profile cpu .*; `dvc repro` trains it"):
        pull("cpu", [row(project / "cache", "made", b"weights")])


def test_one_command_brings_what_is_published_and_names_the_rest(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With real DVC: two models, of which one is published."""
    shutil.copytree(ROOT / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    subprocess.run(["git", "init", "-q"], check=True)
    stages = ("train", "evaluate")
    text = "stages:\n"
    for stage in stages:
        folder = weights.STAGES[stage]
        text += f"  {stage}:\n    matrix: {{profile: [cpu], model: [made, nice]}}\n"
        text += f"    cmd: mkdir -p runs/cpu/${{item.model}}/{folder} && echo {stage} ${{item.model}}"
        text += f' > runs/cpu/${{item.model}}/{folder}/file\n    outs: ["runs/cpu/${{item.model}}/{folder}"]\n'
    (project / "dvc.yaml").write_text(text)
    dvc("repro", "-q")
    outputs = outputs_of(locked_stages())
    assert len(outputs) == 4
    published = [output for output in outputs if output.target != "train@cpu-nice"]
    publish(published, project / ".dvc" / "cache")
    shutil.rmtree(project / "runs")
    shutil.rmtree(project / ".dvc" / "cache")
    pull("cpu", outputs)
    assert (project / "runs/cpu/made/weights/file").read_text() == "train made\n"
    assert (project / "runs/cpu/nice/nats/file").exists() and not (project / "runs/cpu/nice/weights").exists()
    printed = capsys.readouterr().out
    assert "1 models of profile cpu have their weights: made" in printed
    assert "nice: not published (0.0 MB); `dvc repro train@cpu-nice` trains it" in printed


def test_what_git_keeps_is_what_the_lock_names_within_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """After retraining: `python -m stages.weights publish`."""
    monkeypatch.chdir(ROOT)
    named = {path for output in outputs_of(locked_stages()) for path in files_of(output, FOLDER) or []}
    assert set(objects(FOLDER)) == named
    assert sum(path.stat().st_size for path in named) <= weights.MAX_BYTES * 1.01  # and the lists of files
