"""python -m stages.report: its files, their schema and its failures."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import yaml

from dgm.config.params import load_params
from dgm.errors import StageError
from dgm.fingerprints import current_key
from stages.report import main, profile_settings
from tests.reporting.made_up import whole_run

PARAMS = Path("params.yaml").resolve()
FILES = {
    "index.html",
    "results.csv",
    "bound_terms.csv",
    "curves.csv",
    "paired_differences.csv",
    "training_curves.png",
    "ladder.png",
    "ppca_ladder.png",
    "scaling.png",
    *(f"cifar10_{table}.{kind}" for table in ("pixelrnn", "pixelcnn_pp", "all") for kind in ("md", "csv", "tex")),
    *(f"{table}.{kind}" for table in ("reference_codecs", "compute", "scaling") for kind in ("md", "csv", "tex")),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one model in params.yaml, as the working directory."""
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["models"] = {"uniform": values["models"]["uniform"]}
    values["suite"] = ["uniform"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report", "--profile", "cpu"])
    return tmp_path


def test_an_empty_profile_gets_the_whole_report(project: Path) -> None:
    main()
    assert {path.name for path in (project / "reports" / "cpu").iterdir()} == FILES


def test_current_and_stale_results_are_told_apart(project: Path) -> None:
    key = current_key(load_params(), "uniform", "cpu")
    whole_run(project, "uniform", code_and_params_key=key, parameters=0, num_train_images=2000)
    whole_run(project, "made", code_and_params_key=key)
    main()
    text = (project / "reports" / "cpu" / "cifar10_all.md").read_text(encoding="utf-8")
    assert "| Uniform Distribution  " in text
    assert "| MADE † " in text


def test_a_damaged_record_empties_its_row_only_and_fails_the_stage(project: Path) -> None:
    key = current_key(load_params(), "uniform", "cpu")
    whole_run(project, "uniform", code_and_params_key=key, parameters=0, num_train_images=2000)
    whole_run(project, "made").metrics.write_text("{")
    with pytest.raises(
        StageError, match=r"^reports/cpu/metrics/made\.json: Invalid JSON.*; delete it and run `dvc repro`$"
    ):
        main()
    text = (project / "reports" / "cpu" / "cifar10_all.md").read_text(encoding="utf-8")
    assert "| Uniform Distribution  " in text and "3.457 ± 0.008" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| MADE"))
    assert row.split("|")[1].strip() == "MADE ‡" and row.split("|")[3].strip() == ""
    assert "‡ damaged: reports/cpu/metrics/made.json: Invalid JSON" in text
    assert "Damaged, and left out: reports/cpu/metrics/made.json" in (project / "reports/cpu/index.html").read_text()


def test_settings_count_the_parameters_and_say_what_is_trained_on() -> None:
    settings = profile_settings(load_params(), "smoke", ["pixelcnn", "uniform"])
    assert settings.num_training_images == 45000
    assert settings.models["pixelcnn"].acting_parameters < 0.7 * settings.models["pixelcnn"].parameters
    assert (settings.models["uniform"].parameters, settings.models["uniform"].acting_parameters) == (0, 0)


def test_the_report_gives_the_parameters_that_can_act(project: Path) -> None:
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["models"] = {"pixelcnn": values["models"]["pixelcnn"]}
    values["suite"] = ["pixelcnn"]
    (project / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    counted = profile_settings(load_params(), "cpu", ["pixelcnn"]).models["pixelcnn"]
    whole_run(project, "pixelcnn", parameters=counted.parameters)
    main()
    with (project / "reports" / "cpu" / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows["pixelcnn"]["parameters"] == str(counted.parameters)
    assert rows["pixelcnn"]["acting_parameters"] == str(counted.acting_parameters)
    assert rows["made"]["acting_parameters"] == ""
