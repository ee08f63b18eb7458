"""Weights come back bit for bit, and a file that holds something else is named with the remedy."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from dgm.errors import StageError
from dgm.runs.weights import load_weights, save_weights


def test_parameters_and_buffers_come_back_bit_for_bit(tmp_path: Path) -> None:
    net, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    with torch.no_grad():
        net.weight.normal_()
        net.running_var.fill_(torch.pi)  # type: ignore[union-attr]
    save_weights(tmp_path / "w" / "weights.safetensors", net.state_dict())
    load_weights(tmp_path / "w" / "weights.safetensors", other, "train")
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_absent_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(StageError, match=r"weights.safetensors: no trained weights; train first"):
        load_weights(path, nn.Linear(2, 2), "train first")
    save_weights(path, nn.Linear(3, 2).state_dict())
    with pytest.raises(StageError, match=r"another architecture .*size mismatch.*; train first"):
        load_weights(path, nn.Linear(2, 2), "train first")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StageError, match=r"weights.safetensors: damaged .*; delete it and train first"):
        load_weights(path, nn.Linear(3, 2), "train first")


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    (tmp_path / "weights.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(StageError, match="damaged"):
        load_weights(tmp_path / "weights.safetensors", nn.Linear(1, 1), "train first")
    assert not (tmp_path / "exploded").exists()
