"""The remedy fits the cause: nothing is to be deleted because memory, handles or a disk are at fault."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dgm.data.arrays import DataError, load_arrays
from dgm.errors import StageError
from dgm.runs import atomic, weights
from dgm.runs.atomic import atomic_file, read_array, write_text
from dgm.runs.checkpoint import Scratch
from dgm.runs.system_errors import errno_of, line_of, remedy_for, shortage
from dgm.runs.weights import save_weights

CAUSES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "quota",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "open files",
    errno.ENOMEM: "stop other programs",
    errno.EACCES: "make it readable",
    errno.EROFS: "mounted read-only",
    errno.EIO: "check its disk",
    errno.ESTALE: "network disk",
}


@pytest.mark.parametrize(("number", "remedy"), CAUSES.items())
def test_what_the_system_refuses_is_no_reason_to_delete(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "nats.npy").touch()
    monkeypatch.setattr(np, "load", refuse)
    for read in (lambda: load_arrays(tmp_path), lambda: read_array(tmp_path / "nats.npy", "run it again")):
        with pytest.raises(StageError, match=remedy) as caught:
            read()
        assert "delete" not in str(caught.value)
        assert os.strerror(number) in str(caught.value)


def test_only_a_damaged_file_is_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "train.npy").write_bytes(b"half")
    with pytest.raises(DataError, match=r"train\.npy: cannot be read .*; delete it and run `dvc repro download`"):
        load_arrays(tmp_path)


def test_a_full_disk_is_known_in_the_words_of_every_library() -> None:
    full = (OSError(errno.ENOSPC, "No space"), OSError("1000 requested and 10 written"))
    assert [errno_of(error) for error in full] == [errno.ENOSPC] * 2
    assert errno_of(RuntimeError("I/O error: No space left on device (os error 28)")) == errno.ENOSPC
    assert remedy_for(ValueError("no header"), "delete it") == "delete it"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "memory is used up .*9 TiB.*lower batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "memory is used up"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory is used up"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("shapes differ"), None),
        (ValueError("shapes differ"), None),
    ],
)
def test_what_is_used_up_is_one_line_and_a_mistake_is_not(error: Exception, expected: str | None) -> None:
    line = shortage(error)
    assert (line is None) == (expected is None)
    assert expected is None or re.search(expected, line or "")


def test_a_write_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(target: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(atomic, "Unfinished", refuse)
    with pytest.raises(OSError, match=r"Too many open files: raise the limit on open files") as caught:
        atomic_file(tmp_path / "x.json").__enter__()
    assert caught.value.filename == str(tmp_path / "x.json")


def test_a_checkpoint_that_memory_does_not_suffice_for_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with Scratch("cpu", "made", "k", tmp_path) as scratch:
        scratch.save({"step": 1})
        monkeypatch.setattr(torch, "load", refuse)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            scratch.load()


def test_nor_are_weights_that_no_handle_is_left_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "weights.safetensors", torch.nn.Linear(2, 2)
    save_weights(path, model.state_dict())

    def refuse(path: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(weights, "load_file", refuse)
    with pytest.raises(StageError, match=r"cannot be read \(Too many open files\); raise the limit") as caught:
        weights.load_weights(path, model, "train it again")
    assert "delete" not in str(caught.value)


def test_a_folder_in_the_way_is_named_itself_not_the_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.mkdir()
    with pytest.raises(OSError, match=r"Is a directory: nothing was written") as caught:
        write_text(path, "x")
    assert caught.value.filename == str(path)


def test_one_line_for_what_is_expected_and_none_for_a_mistake_of_the_program() -> None:
    assert line_of(StageError("x: absent; run it")) == "x: absent; run it"
    assert line_of(PermissionError(errno.EACCES, "Permission denied", "a.png")) == "a.png: Permission denied"
    assert line_of(OSError("no disk")) == "no disk"
    assert "memory is used up" in str(line_of(MemoryError("9 GB")))
    assert line_of(RuntimeError("shapes differ")) is None
    assert line_of(KeyError("made")) is None
