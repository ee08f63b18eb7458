"""A stage that could not write its results says so before it computes them."""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest

from dgm.errors import StageError

PARAMS = Path("params.yaml").resolve()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without data and weights: a stage that came so far would miss them."""
    shutil.copy(PARAMS, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "blocked"),
    [
        *((stage, "reports") for stage in ("train", "evaluate", "sample", "compress")),
        *((stage, "runs/smoke") for stage in ("train", "evaluate", "compress")),
    ],
)
def test_a_file_in_the_way_of_a_models_results_is_named(
    stage: str, blocked: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / blocked).parent.mkdir(exist_ok=True)
    (project / blocked).write_text("mine", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [stage, "--model", "pixelcnn", "--profile", "smoke"])
    with pytest.raises(StageError, match=f"cannot be written, because {blocked} is not a folder; name another one"):
        import_module(f"stages.{stage}").main()
    assert (project / blocked).read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("stage", ["codecs", "ppca_ladder"])
def test_so_is_one_in_the_way_of_a_table(stage: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "reports").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["stage", "--profile", "smoke"])
    with pytest.raises(StageError, match="cannot be written, because reports is not a folder"):
        import_module(f"stages.{stage}").main()
