"""The model that MLflow stores: it scores as `dgm score` does, takes no second place on the disk, and is there once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from dgm.config.params import load_params
from dgm.fingerprints import current_key
from dgm.runs.atomic import file_digest
from dgm.runs.files import RunFiles
from dgm.runs.records import write_record
from dgm.saved_run import load_run
from dgm.tracking import logged_model
from dgm.tracking.results import About, record_results
from tests.reporting.made_up import METRICS
from tests.untrained import train_for_no_time

ROOT = Path(__file__).parent.parent.parent
NAME = "histogram_left"
ABOUT = About("closed form", "text", "untested", None)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with a model of the smoke profile that was trained and scored, and its key: copied, never changed."""
    root = tmp_path_factory.mktemp("original")
    shutil.copy(ROOT / "params.yaml", root)
    files, key = train_for_no_time("smoke", NAME, root), current_key(load_params(root / "params.yaml"), NAME, "smoke")
    metrics = replace(METRICS, model=NAME, profile="smoke", code_and_params_key=key)
    write_record(files.metrics, replace(metrics, weights_sha256=file_digest(files.weights)))
    return root, key


@dataclass(frozen=True)
class Scored:
    """The copy that is the working folder."""

    key: str

    @property
    def files(self) -> RunFiles:
        return RunFiles("smoke", NAME)

    def record(self, about: About = ABOUT) -> None:
        record_results("smoke", [NAME], {NAME: self.key}, {NAME: about})


@pytest.fixture
def scored(client: MlflowClient, project: Path, original: tuple[Path, str]) -> Scored:
    shutil.copytree(original[0], project, dirs_exist_ok=True)
    return Scored(original[1])


def models(client: MlflowClient) -> Sequence[LoggedModel]:
    experiment = client.get_experiment_by_name("cifar10-smoke")
    assert experiment is not None
    return client.search_logged_models([experiment.experiment_id])


def test_it_scores_images_as_the_run_does_and_refuses_what_is_none(client: MlflowClient, scored: Scored) -> None:
    scored.record()
    [stored] = models(client)
    loaded = mlflow.pyfunc.load_model(stored.artifact_location)
    expected = load_run("smoke", NAME).bits_per_subpixel(IMAGES).numpy()
    rows = pd.DataFrame({"image": [image.ravel().tolist() for image in IMAGES]})
    for given in (IMAGES, rows):
        bits = loaded.predict(given)
        assert list(bits.columns) == ["bits_per_subpixel"]
        np.testing.assert_array_equal(bits["bits_per_subpixel"], expected)
    for wrong in (IMAGES[:, :1], IMAGES.astype(np.float32), IMAGES[0]):
        with pytest.raises(MlflowException, match="does not match expected"):
            loaded.predict(wrong)


def test_it_is_stored_once_and_its_weights_are_on_the_disk_once(client: MlflowClient, scored: Scored) -> None:
    scored.record()
    scored.record()
    [stored] = models(client)
    copies = list(Path("mlruns").rglob("weights.safetensors"))
    assert [path.stat().st_ino for path in copies] == [scored.files.weights.stat().st_ino]
    run = client.get_run(stored.source_run_id or "")
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [stored.model_id]
    assert {metric.key for metric in stored.metrics or []} >= {"test_bits_per_subpixel", "train_seconds"}
    assert stored.tags["tier"] == "untested" and stored.tags["family"] == "closed form"
    assert len(client.get_metric_history(run.info.run_id, "test_bits_per_subpixel")) == 1


def test_figures_and_tier_of_later_are_shown_beside_it(client: MlflowClient, scored: Scored) -> None:
    scored.record()
    scored.record(replace(ABOUT, tier="contract-tested", published=4.0))
    [stored] = models(client)
    assert stored.tags["tier"] == "contract-tested"
    assert 4.0 in [m.value for m in stored.metrics or [] if m.key == "published_test_bits_per_subpixel"]


def test_a_figure_that_is_back_is_the_one_shown(
    client: MlflowClient, scored: Scored, capsys: pytest.CaptureFixture[str]
) -> None:
    for published in (4.0, 4.1, 4.0, 4.0):
        scored.record(replace(ABOUT, published=published))
    assert "warning" not in capsys.readouterr().err
    [stored] = models(client)
    points = [m for m in stored.metrics or [] if m.key == "published_test_bits_per_subpixel"]
    assert [m.value for m in sorted(points, key=lambda m: m.timestamp)] == [4.0, 4.1, 4.0]


@pytest.mark.parametrize("fault", ["no weights", "other weights", "other key"])
def test_without_the_weights_of_the_figures_there_is_none(client: MlflowClient, scored: Scored, fault: str) -> None:
    if fault == "no weights":
        scored.files.weights.unlink()
    elif fault == "other weights":
        scored.files.weights.write_bytes(b"other")
    else:
        write_record(scored.files.metrics, replace(METRICS, model=NAME, profile="smoke", code_and_params_key="old"))
    scored.record()
    assert not models(client)


def test_a_model_that_cannot_be_stored_is_a_warning_and_tried_again(
    client: MlflowClient, scored: Scored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(logged_model, "write_folder", full)
        scored.record()
    assert "warning: MLflow did not take the model of run" in capsys.readouterr().err
    scored.record()
    assert sorted(str(model.status) for model in models(client)) == ["FAILED", "READY"]


def test_other_disks_get_a_copy(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    Path("weights").write_bytes(b"1")
    monkeypatch.setattr("os.link", other_disk)
    logged_model.link_or_copy(Path("weights"), Path("copy"))
    assert Path("copy").read_bytes() == b"1"


def test_the_environment_of_the_model_is_the_one_here() -> None:
    lines = logged_model.requirements()
    assert any(line.startswith("torch==") for line in lines) and f"numpy=={np.__version__}" in lines
    assert not any("+" in line or line.startswith("dgm") for line in lines)
