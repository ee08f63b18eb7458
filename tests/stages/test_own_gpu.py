"""Jobs side by side have a GPU each, where there are several."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from stages.own_gpu import own_gpu, visible_gpus


def test_slots_take_the_gpus_in_turn() -> None:
    assert [own_gpu(slot, ["a", "b"]) for slot in range(3)] == [
        {"CUDA_VISIBLE_DEVICES": "a"},
        {"CUDA_VISIBLE_DEVICES": "b"},
        {"CUDA_VISIBLE_DEVICES": "a"},
    ]
    assert own_gpu(1, ["a"]) == own_gpu(1, []) == {}


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("0,1", ["0", "1"]),
        ("3", ["3"]),
        (" 3, 1 ", ["3", "1"]),
        ("GPU-1f2e,GPU-03ab", ["GPU-1f2e", "GPU-03ab"]),
        ("MIG-9a/1/0, MIG-9a/2/0", ["MIG-9a/1/0", "MIG-9a/2/0"]),
        ("", []),
        (" ", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", ["0"]),
        ("0,,1", ["0"]),
        ("2,1,2", []),
        ("GPU-1f2e,GPU-1f2e", []),
    ],
)
def test_the_users_choice_is_read_as_cuda_reads_it(text: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": text}) == gpus
    if " MIG" not in text:  # torch takes no spaces there
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert [str(gpu) for gpu in torch.cuda._parse_visible_devices()] == gpus


@pytest.mark.parametrize(
    ("printed", "gpus"),
    [
        ("GPU 0: NVIDIA H100 (UUID: GPU-x)\nGPU 1: NVIDIA H100 (UUID: GPU-y)\n", ["GPU-x", "GPU-y"]),
        (
            "GPU 0: NVIDIA A100 (UUID: GPU-x)\n  MIG 3g.20gb  Device  0: (UUID: MIG-a)\n"
            "  MIG 3g.20gb  Device  1: (UUID: MIG-b)\nGPU 1: NVIDIA A100 (UUID: GPU-y)\n",
            ["MIG-a", "MIG-b", "GPU-y"],
        ),
        ("No devices found.\n", []),
    ],
)
def test_without_a_choice_all_gpus_are_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, gpus: list[str]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'EOF'\n{printed}EOF\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus({}) == gpus
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == []
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert visible_gpus({}) == []
