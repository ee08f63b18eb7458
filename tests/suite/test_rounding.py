"""Weights travel in half the bytes, and are bit for bit those that were evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dgm.runs.weights import save_weights
from dgm.suite.rounding import packed, rounded, unpacked
from tests.tiny import SMALL, tiny_model


@pytest.mark.parametrize("name", ["made", "nice", "real_nvp"])
def test_rounded_weights_come_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = tiny_model(name, SMALL).float()
    state = rounded(model)
    save_weights(tmp_path / "w", state)
    data = packed(tmp_path / "w")
    assert unpacked(data, tmp_path / "scratch") == (tmp_path / "w").read_bytes()
    assert not (tmp_path / "scratch").exists()


def test_only_trained_matrices_are_rounded() -> None:
    model = torch.nn.Linear(5, 3)
    model.register_buffer("statistics", torch.rand(4, 4))
    state = rounded(model)
    before = model.state_dict()
    assert torch.equal(state["statistics"], before["statistics"]) and torch.equal(state["bias"], before["bias"])
    assert not torch.equal(state["weight"], before["weight"])
    assert torch.allclose(state["weight"], before["weight"], rtol=2**-8)


def test_weights_that_were_not_rounded_travel_whole(tmp_path: Path) -> None:
    state = {"a": torch.rand(100, 100), "b": torch.arange(9), "c": torch.rand(3, dtype=torch.float64)}
    save_weights(tmp_path / "w", state)
    assert unpacked(packed(tmp_path / "w"), tmp_path / "s") == (tmp_path / "w").read_bytes()
    save_weights(tmp_path / "w", {"a": torch.rand(100, 100).bfloat16().float()})
    assert len(packed(tmp_path / "w")) < 0.6 * (tmp_path / "w").stat().st_size


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not weights"):
        unpacked(b"no", tmp_path / "s")
