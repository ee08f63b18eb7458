"""The records of the scaling figure: where they are, and that a damaged one is refused by name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dgm.errors import StageError
from dgm.runs.checked import write_json
from dgm.runs.files import BUDGETS, BudgetFiles, RunFiles
from dgm.runs.scaling_records import read_scaling_point
from tests.reporting.made_up import SCALED


def test_another_budget_has_its_own_files_and_shares_only_what_names_it(tmp_path: Path) -> None:
    row = RunFiles("cpu", "made", tmp_path)
    places: list[Path] = []
    for budget in BUDGETS:
        files = BudgetFiles("cpu", "made", tmp_path, budget)
        own = [files.weights, files.curve, files.provenance]
        assert (own == [row.weights, row.curve, row.provenance]) == (budget == "one")
        assert files.training_command.endswith("--profile cpu" if budget == "one" else f"--budget {budget}")
        assert (files.metrics, files.nats("test")) == (row.metrics, row.nats("test"))
        places += [*own, files.scaling]
    assert len(set(places)) == 4 * len(BUDGETS)
    assert BudgetFiles("cpu", "made", tmp_path) == BudgetFiles("cpu", "made", tmp_path, "one")


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    files = BudgetFiles("cpu", "made", tmp_path, "four")
    assert read_scaling_point(files) is None
    write_json(files.scaling, replace(SCALED, budget="four"))
    assert read_scaling_point(files) == replace(SCALED, budget="four")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"validation_bits_per_subpixel": float("nan")}, "validation_bits_per_subpixel"),
        ({"validation_bits_per_subpixel": -0.5}, "validation_bits_per_subpixel"),
        ({"standard_error": float("inf")}, "standard_error"),
        ({"num_images": 1}, "num_images"),
        ({"num_images": 50001}, "num_images"),
        ({"training_flops": 0}, "training_flops"),
        ({"training_flops": 1.5}, "training_flops"),
        ({"num_steps": 100, "images_seen": 99}, "images_seen is 99, less than one for each of num_steps"),
        ({"train_seconds": 0.0}, "train_seconds"),
        ({"likelihood": "about right"}, "likelihood"),
        ({"budget": "eight"}, "budget"),
        ({"budget": "quarter"}, "says it is of the budget quarter, not of one"),
        ({"model": "nice"}, r"says it is of nice \(cpu\), not of made \(cpu\)"),
        ({"profile": "gpu"}, r"says it is of made \(gpu\), not of made \(cpu\)"),
        ({"weights_sha256": "0" * 63}, "weights_sha256"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_record_that_cannot_be_right_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    files = BudgetFiles("cpu", "made", tmp_path)
    files.scaling.parent.mkdir(parents=True)
    files.scaling.write_text(json.dumps(asdict(SCALED) | change))
    with pytest.raises(StageError, match=rf"scaling/one/made\.json: {said}.*delete it and run") as caught:
        read_scaling_point(files)
    assert "\n" not in str(caught.value)


def test_the_remedy_is_the_command_that_writes_it(tmp_path: Path) -> None:
    files = BudgetFiles("cpu", "made", tmp_path, "four")
    files.scaling.parent.mkdir(parents=True)
    files.scaling.write_text("{")
    with pytest.raises(StageError, match=r"run `python -m stages.scaling --model made --profile cpu --budget four`$"):
        read_scaling_point(files)
