from __future__ import annotations

import hashlib
import io
import os
import pickle
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dgm.errors import StageError
from dgm.runs import checkpoint as scratch_module
from dgm.runs.checkpoint import Scratch
from dgm.runs.scratch_files import MAGIC, checkpoint_header, encode_step
from tests.tracking import processes


def state_at(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.arange(5000.0) * step, "rows": [[step, 0.5, None]], "run": "abc"}


def opened(root: Path, key: str = "k1") -> Scratch:
    return Scratch("cpu", "vae", key, root)


def test_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict()],
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "random": torch.get_rng_state(),
        "seconds": 0.1,
        "is_done": False,
    }
    with opened(tmp_path) as scratch:
        assert scratch.load() is None
        assert scratch.path is None
        scratch.save(state)
        loaded = scratch.load()
    assert loaded is not None
    assert loaded["seconds"] == 0.1
    assert loaded["is_done"] is False
    assert loaded["optimizers"][0]["param_groups"] == state["optimizers"][0]["param_groups"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded["model"][name], tensor)
    assert torch.equal(loaded["optimizers"][0]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert torch.equal(loaded["half"].view(torch.int16), state["half"].view(torch.int16))
    assert torch.equal(loaded["random"], state["random"])


@pytest.mark.parametrize("killed_in", ["fsync", "first replace", "second replace", "third replace"])
def test_kill_during_save_leaves_a_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    with opened(tmp_path) as scratch:
        scratch.save(state_at(1))

    def save_and_be_killed() -> None:
        with opened(tmp_path) as scratch:
            replaces = iter(["first replace", "second replace", "third replace"])
            replace = os.replace

            def replace_or_die(source: Any, target: Any) -> None:
                if next(replaces) == killed_in:
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(source, target)

            monkeypatch.setattr(os, "replace", replace_or_die)
            if killed_in == "fsync":
                monkeypatch.setattr(os, "fsync", lambda descriptor: os.kill(os.getpid(), signal.SIGKILL))
            scratch.save(state_at(2))

    assert processes.exit_code(processes.start(save_and_be_killed)) == -signal.SIGKILL
    with opened(tmp_path) as scratch:
        loaded = scratch.load()
        assert loaded is not None
        assert loaded["step"] == 1
        assert torch.equal(loaded["weights"], state_at(1)["weights"])
        assert {file.name for file in scratch.folder.iterdir()} == {"k1.lock", "k1.pt"}


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied"])
def test_damaged_newest_falls_back_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    with opened(tmp_path) as scratch:
        scratch.save(state_at(1))
        scratch.save(state_at(2))
        newest = scratch.path
        assert newest is not None
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes({"truncated": content[:-100], "altered": content, "emptied": b""}[damage])
        loaded = scratch.load()
        assert loaded is not None
        assert loaded["step"] == 1
        warning = capsys.readouterr().err
        assert f"{newest}: damaged checkpoint" in warning
        assert f"going on from {scratch.folder / 'k1.previous.pt'}" in warning
        scratch.save(state_at(3))
        newest.unlink()
        fallback = scratch.load()
        assert fallback is not None
        assert fallback["step"] == 1, "the damaged file has become the fall-back"
        assert capsys.readouterr().err == ""


def test_all_damaged_is_an_error_that_names_file_and_remedy(tmp_path: Path) -> None:
    with opened(tmp_path) as scratch:
        scratch.save(state_at(1))
        scratch.save(state_at(2))
        for file in scratch.folder.glob("*.pt"):
            file.write_bytes(file.read_bytes()[:50])
        with pytest.raises(StageError, match=r"k1\.pt.*k1\.previous\.pt.*stages\.checkpoints --clear k1`"):
            scratch.load()


def test_pickled_code_is_refused_and_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    buffer = io.BytesIO()
    torch.save({"model": Malicious()}, buffer)
    for payload in (buffer.getvalue(), pickle.dumps(Malicious(), protocol=2)):
        with opened(tmp_path / "scratch") as scratch:
            file = scratch.folder / "k1.pt"
            file.write_bytes(checkpoint_header(1, hashlib.sha256(encode_step(1) + payload).digest()) + payload)
            with pytest.raises(StageError, match=f"{file}: damaged checkpoint .not plain tensors"):
                scratch.load()
    assert not marker.exists()


def test_the_same_key_twice_at_once_is_refused_and_other_keys_are_not(tmp_path: Path) -> None:
    def enter() -> None:
        with pytest.raises(StageError, match=f"already training vae .*same settings: process {os.getppid()} holds"):
            opened(tmp_path).__enter__()
        for profile, model, key in (("cpu", "vae", "k2"), ("cpu", "nice", "k1"), ("gpu", "vae", "k1")):
            with Scratch(profile, model, key, tmp_path) as other:
                other.save(state_at(7))

    with opened(tmp_path) as scratch:
        scratch.save(state_at(1))
        assert processes.exit_code(processes.start(enter)) == 0
        assert {file.name for file in scratch.folder.iterdir()} == {"k1.lock", "k1.pt", "k2.pt"} | {"k2.lock"}
    with opened(tmp_path):
        pass


def test_entering_deletes_unfinished_files_of_its_own_key_and_nothing_else(tmp_path: Path) -> None:
    with opened(tmp_path, "old") as scratch:
        scratch.save(state_at(1))
        scratch.save(state_at(2))
    own = [".new.incoming.pt.x1y2", "new.incoming.pt"]
    others = {".old.incoming.pt.x1y2", "old.incoming.pt", "newer.incoming.pt", ".newer.incoming.pt.x1y2"}
    for name in (*own, *others):
        (scratch.folder / name).write_bytes(b"half")
    with opened(tmp_path, "new") as entered:
        names = {file.name for file in entered.folder.iterdir()}
        assert names == others | {"old.pt", "old.previous.pt", "old.lock", "new.lock"}
        assert entered.load() is None


def test_a_finished_key_leaves_nothing_and_keeps_the_others(tmp_path: Path) -> None:
    with opened(tmp_path, "other") as other:
        other.save(state_at(5))
    with opened(tmp_path) as scratch:
        scratch.save(state_at(1))
        scratch.save(state_at(2))
        scratch.clear()
        assert scratch.load() is None
    assert {file.name for file in scratch.folder.iterdir()} == {"other.pt", "other.lock"}
    with opened(tmp_path, "other") as other:
        loaded = other.load()
        assert loaded is not None and loaded["step"] == 5
        other.clear()
    assert not other.folder.exists()


def test_an_altered_step_is_damage(tmp_path: Path) -> None:
    with opened(tmp_path) as scratch:
        scratch.save(state_at(1))
        file = scratch.folder / "k1.pt"
        content = bytearray(file.read_bytes())
        content[len(MAGIC) + 32] ^= 2
        file.write_bytes(content)
        with pytest.raises(StageError, match="checksum does not match"):
            scratch.load()


def test_full_disk_is_one_clear_error_and_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    with opened(tmp_path) as scratch:
        scratch.save(state_at(1))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        try:
            with pytest.raises(StageError, match=r"k1\.pt: the checkpoint was not written .*File too large.*intact"):
                scratch.save(state_at(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        loaded = scratch.load()
        assert loaded is not None
        assert loaded["step"] == 1
        assert {file.name for file in scratch.folder.iterdir()} == {"k1.lock", "k1.pt"}


def test_state_that_could_not_be_loaded_is_refused_by_name(tmp_path: Path) -> None:
    with opened(tmp_path) as scratch:
        with pytest.raises(TypeError, match=r"state\['rows'\]\[1\]: .* not float64"):
            scratch.save({"rows": [0.5, np.float64(0.5)]})
        assert scratch.path is None


def test_default_root_is_the_main_project_even_in_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert Scratch("cpu", "vae", "k1").folder == tmp_path / ".scratch" / "cpu" / "vae"
    monkeypatch.delenv("DVC_ROOT")
    assert scratch_module.project_root() == Path.cwd()


@pytest.mark.parametrize(
    "state",
    [
        [1, 2],
        "state",
        {"step": "3"},
        {"step": -1},
        {"iteration": True},
        {"iteration": 2.5},
        {"seconds": float("nan")},
        {"startup_seconds": float("inf")},
        {"model": [1]},
        {"curve": {}},
        {"run": 3},
        {"interval_nats": 3.0},
    ],
    ids=repr,
)
def test_entries_of_another_kind_are_damage(tmp_path: Path, state: object) -> None:
    """The checksum holds: the file is whole, but no training wrote it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    step = encode_step(None)
    with opened(tmp_path) as scratch:
        path = scratch.folder / "k1.pt"
        digest = hashlib.sha256(step + buffer.getvalue()).digest()
        path.write_bytes(checkpoint_header(None, digest) + buffer.getvalue())
        with pytest.raises(StageError, match=r"^[^\n]*k1\.pt: damaged checkpoint \([^\n]*--clear k1[^\n]*$"):
            scratch.load()
