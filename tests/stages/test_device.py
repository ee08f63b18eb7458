"""Where a stage computes: the profile's device, or the command line's; never more threads than cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dgm.config.sections import RunConfig
from dgm.errors import StageError
from stages.device import prepare_device

ON_A_GPU = RunConfig(seed=1, threads=1000, device="cuda", num_training_images=45000)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_command_line_goes_before_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1}, raising=False)
    assert prepare_device(ON_A_GPU, "cpu") == torch.device("cpu")
    assert torch.get_num_threads() == 2


def test_incremental_work_takes_one_thread() -> None:
    prepare_device(ON_A_GPU, "cpu", is_incremental=True)
    assert torch.get_num_threads() == 1


def test_a_missing_gpu_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StageError, match="--device cpu"):
        prepare_device(ON_A_GPU)
