"""A row at a quarter, one and four times its budget: trained apart from the row, measured on the same images."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import stages.scaling as scaling_stage
import stages.train as train_stage
from dgm.config.params import Params, load_params
from dgm.config.sections import TrainingConfig
from dgm.data.arrays import CifarArrays
from dgm.errors import StageError
from dgm.fingerprints import scaling_key, training_key
from dgm.runs.files import BUDGETS, BudgetFiles, RunFiles
from dgm.runs.records import Provenance, read_curve, read_record, write_record
from dgm.runs.scaling_records import ScalingPoint, read_scaling_point
from dgm.settings import training_config
from stages.budget import NUM_IMAGES, num_scored, with_budget
from stages.report import scaling_keys
from stages.scaling import main, measure
from stages.train import Limits, train
from tests.untrained import train_for_no_time

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
SCORED = 8


def training_of(params: Params, model: str, profile: str) -> TrainingConfig:
    config = training_config(params, model, profile)
    assert isinstance(config, TrainingConfig)
    return config


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_a_budget_multiplies_steps_and_seconds_and_nothing_else(profile: str) -> None:
    row = training_of(PARAMS, "pixelcnn", profile)
    for budget, factor in BUDGETS.items():
        changed = training_of(with_budget(PARAMS, "pixelcnn", profile, budget), "pixelcnn", profile)
        assert changed.max_steps == round(factor * row.max_steps)
        assert changed.max_seconds == (None if row.max_seconds is None else factor * row.max_seconds)
        limits = ("max_steps", "max_seconds")
        assert changed.model_dump(exclude=set(limits)) == row.model_dump(exclude=set(limits))
    assert with_budget(PARAMS, "pixelcnn", profile, "one") is PARAMS
    assert training_of(PARAMS, "pixelcnn", "gpu").max_seconds is not None  # from its share of the table's minutes


def test_there_is_a_step_at_least_and_no_budget_of_a_fitted_model() -> None:
    short = PARAMS.changed("made", "cpu", {"training": {"max_steps": 1}})
    assert training_of(with_budget(short, "made", "cpu", "quarter"), "made", "cpu").max_steps == 1
    with pytest.raises(StageError, match=r"^ppca is fitted, not trained by gradient"):
        with_budget(PARAMS, "ppca", "cpu", "four")


def test_no_more_images_are_scored_than_the_profile_scores_of_the_test_images() -> None:
    assert (num_scored(PARAMS, "cpu"), num_scored(PARAMS, "smoke")) == (NUM_IMAGES, 64)


def test_the_key_is_of_what_the_figure_rests_on() -> None:
    key = scaling_key(PARAMS, "made", "cpu", 2000)
    assert scaling_key(with_budget(PARAMS, "made", "cpu", "four"), "made", "cpu", 2000) != key
    assert scaling_key(PARAMS, "made", "cpu", 1999) != key
    for section, change in (("training", {"learning_rate": 0.5}), ("evaluation", {"batch_size": 7})):
        assert scaling_key(PARAMS.changed("made", "cpu", {section: change}), "made", "cpu", 2000) != key
    common = PARAMS.common_config("cpu")
    fewer = common.model_copy(update={"evaluation": common.evaluation.model_copy(update={"num_train_images": 7})})
    other = PARAMS.model_copy(update={"common": {**PARAMS.common, "cpu": fewer}})
    assert scaling_key(other, "made", "cpu", 2000) == key  # the train column has no part in it


def test_the_key_follows_the_code_that_measures(tmp_path: Path) -> None:
    for folder in ("dgm", "stages"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    stage = tmp_path / "stages" / "scaling.py"
    text = stage.read_text(encoding="utf-8")
    assert "splits.validation[" in text
    stage.write_text(text.replace("splits.validation[", "splits.train_sample["), encoding="utf-8")
    key = scaling_key(PARAMS, "made", "cpu", 2000)
    assert scaling_key(PARAMS, "made", "cpu", 2000, tmp_path) != key
    assert training_key(PARAMS, "made", "cpu", tmp_path) == training_key(PARAMS, "made", "cpu")


@pytest.fixture
def project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, where the stages find random images."""
    few = np.random.default_rng(0).integers(0, 256, (100, 3, 32, 32), np.uint8)
    arrays = CifarArrays(train=np.tile(few, (500, 1, 1, 1)), test=np.tile(few, (100, 1, 1, 1)))
    for stage in (train_stage, scaling_stage):
        monkeypatch.setattr(stage, "load_arrays", lambda folder: arrays)
    monkeypatch.setattr(scaling_stage, "num_scored", lambda params, profile: SCORED)
    monkeypatch.setattr("stages.report.num_scored", lambda params, profile: SCORED)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    shutil.copyfile(ROOT / "params.yaml", project / "params.yaml")
    return project


def measured(budget: str) -> ScalingPoint:
    """Trains and measures by the stages' own commands."""
    params = with_budget(PARAMS, "made", "smoke", budget)
    assert train("made", "smoke", params, None, Limits(1e9), budget)
    files = BudgetFiles("smoke", "made", budget=budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["scaling", "--model", "made", "--profile", "smoke", "--budget", budget])
        main()
    point = read_scaling_point(files)
    assert point is not None
    return point


def test_three_budgets_are_trained_side_by_side_and_measured(project: Path) -> None:
    points = {budget: measured(budget) for budget in BUDGETS}
    assert [point.num_steps for point in points.values()] == [1, 4, 16]
    quarter, one, four = (point.training_flops for point in points.values())
    assert (one, four) == (4 * quarter, 16 * quarter)
    assert len({point.validation_bits_per_subpixel for point in points.values()}) == 3
    assert {point.num_images for point in points.values()} == {SCORED}
    row = RunFiles("smoke", "made")
    cost = read_record(row.provenance, Provenance)
    assert cost is not None and cost.num_steps == 4 and one == cost.images_seen * (cost.training_flops_per_image or 0)
    for budget, point in points.items():
        curve = read_curve(BudgetFiles("smoke", "made", budget=budget).curve)
        assert curve[-1].step == point.num_steps and curve[-1].validation_bits_per_subpixel is not None
    keys = scaling_keys(PARAMS, "smoke", ["made", "nice", "ppca"])
    assert keys == {("made", budget): point.key for budget, point in points.items()}


def test_a_paused_budget_goes_on_where_it_was(project: Path) -> None:
    params, files = with_budget(PARAMS, "made", "smoke", "four"), BudgetFiles("smoke", "made", budget="four")
    assert train("made", "smoke", params, None, Limits(1e9), "four")
    whole = files.weights.read_bytes()
    files.weights.unlink()
    sessions = 1
    while not train("made", "smoke", params, None, Limits(1e9, 0.0), "four"):
        assert not files.weights.exists()
        sessions += 1
    assert sessions > 2 and files.weights.read_bytes() == whole


def test_weights_of_another_budget_or_of_a_fit_are_refused_in_one_line(project: Path) -> None:
    row, files = train_for_no_time("smoke", "made"), BudgetFiles("smoke", "made", budget="four")
    params = with_budget(PARAMS, "made", "smoke", "four")
    with pytest.raises(StageError, match=r"four/weights\.safetensors: no trained weights; .* --budget four`$"):
        measure(files, params, None)
    shutil.copytree(row.weights.parent, files.folder)
    shutil.copyfile(row.provenance, files.provenance)
    with pytest.raises(StageError, match=r"trained with other settings or code than those of now .* --budget four`$"):
        measure(files, params, None)
    fitted = train_for_no_time("smoke", "histogram_per_channel")
    cost = read_record(fitted.provenance, Provenance)
    assert cost is not None
    write_record(fitted.provenance, replace(cost, forward_flops_per_image=None, training_flops_per_image=None))
    with pytest.raises(StageError, match=r"^histogram_per_channel is fitted, not trained by gradient"):
        measure(BudgetFiles("smoke", "histogram_per_channel"), PARAMS, None)
    assert not list(project.glob("reports/smoke/scaling/**/*.json"))
