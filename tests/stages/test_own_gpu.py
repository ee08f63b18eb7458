"""Jobs side by side have a GPU each, where there are several."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stages.own_gpu import own_gpu, visible_gpus


def test_slots_take_the_gpus_in_turn() -> None:
    assert [own_gpu(slot, ["a", "b"]) for slot in range(3)] == [
        {"CUDA_VISIBLE_DEVICES": "a"},
        {"CUDA_VISIBLE_DEVICES": "b"},
        {"CUDA_VISIBLE_DEVICES": "a"},
    ]
    assert own_gpu(1, ["a"]) == own_gpu(1, []) == {}


def test_the_users_choice_is_shared_out_else_all_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, 1"}) == ["3", "1"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-x\necho GPU-y\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus({}) == ["GPU-x", "GPU-y"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == []
