"""Room is asked for before the work, the sum of all files on one disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dgm.errors import StageError
from dgm.runs.files import RunFiles
from dgm.runs.room import check_room
from stages.outputs import check_outputs


def test_the_files_of_one_disk_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    files = {tmp_path / "runs" / "weights": 600_000, tmp_path / "reports": 400_000}
    check_room(files)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StageError, match=r"runs/weights: its disk has 1\.0 MB free, and 1\.1 MB are needed") as caught:
        check_room({**files, tmp_path / "nats": 100_000})
    assert "\n" not in str(caught.value)


def test_training_asks_for_its_checkpoints_weights_and_nats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1000, 1000)  # 4 MB: 15 times that, and about 2 MB of nats and records
    files, scratch = RunFiles("cpu", "made", tmp_path), tmp_path / ".scratch" / "cpu" / "made"
    for free, fits in ((61_000_000, False), (63_000_000, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        if fits:
            check_outputs(files, scratch, model)  # pyright: ignore[reportArgumentType]
        else:
            with pytest.raises(StageError, match="make room on it"):
                check_outputs(files, scratch, model)  # pyright: ignore[reportArgumentType]
    scratch.mkdir(parents=True)
    (scratch / "k.pt").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=60_500_000))
    check_outputs(files, scratch, model)  # pyright: ignore[reportArgumentType]  # what is there needs no more room
