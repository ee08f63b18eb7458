"""python -m stages.experiments: what an experiment changed and what came of it, within 120 columns."""

from __future__ import annotations

import csv
import io

import pytest

from dgm.errors import StageError
from stages.experiments import experiments_table

BITS = "reports/cpu/bits/{}.json:{}"
BOTH = ("test", "train")
LONG = "models.histogram_per_channel.cpu.training.a_setting_with_a_very_long_name_that_does_not_fit"


def csv_lines(*records: dict[str, str]) -> list[str]:
    text = io.StringIO()
    names = ["Experiment", "rev", "typ", "Created", "parent"]
    names += sorted({name for record in records for name in record} - set(names))
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().splitlines(keepends=True)


def baseline() -> dict[str, str]:
    values = {
        "rev": "main",
        "typ": "baseline",
        "models.made.cpu.training.learning_rate": "0.002",
        LONG: "1",
        "data": "a1",
    }
    for model, bits in (("made", "4.1"), ("histogram_per_channel", "7.9")):
        values |= {
            BITS.format(model, "test"): bits,
            BITS.format(model, "train"): "4.0",
            BITS.format(model, "error"): "0.01",
        }
    return values


def test_a_line_has_the_change_and_the_figure_before_and_after() -> None:
    changed = {
        "Experiment": "slow",
        "runs/cpu/made/weights": "0123",  # digests of files are no settings
        "params.yaml": "4567",
        "data": "89ab",
        "rev": "abc",
        "typ": "branch_commit",
        "models.made.cpu.training.learning_rate": "0.001",
        BITS.format("made", "test"): "4.25",
        BITS.format("made", "train"): "4.2",
        BITS.format("made", "error"): "0.02",
    }
    lines = experiments_table(csv_lines(baseline(), baseline() | changed)).splitlines()
    assert lines[0].split() == ["Experiment", "Changed", "Model", "Before", "Test", "Train"]
    assert lines[1].split() == ["slow", "made.cpu.training.learning_rate=0.001", "made", "4.1000", "4.2500", "4.2000"]
    assert len(lines) == 2


def test_long_names_stay_within_120_columns() -> None:
    changed = {"Experiment": "a-name-of-an-experiment-that-is-long", "typ": "branch_base", LONG: "123456"}
    changed |= {"models.made.cpu.training.learning_rate": "1e-05", BITS.format("histogram_per_channel", "test"): "7.5"}
    text = experiments_table(csv_lines(baseline(), baseline() | changed))
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "histogram_per_channel" in text and "7.5000" in text and "made.cpu.training.learning_rate=1e-05" in text


def test_an_experiment_without_another_figure_is_still_listed() -> None:
    changed = {"Experiment": "same", "typ": "branch_base", "models.made.cpu.training.learning_rate": "0.003"}
    assert "same" in experiments_table(csv_lines(baseline(), baseline() | changed))
    assert "No experiment yet" in experiments_table(csv_lines(baseline()))


@pytest.mark.parametrize("block", ["smoke", "all", "cpu"])
def test_a_model_whose_settings_changed_has_its_figure_also_if_it_is_the_same(block: str) -> None:
    """Of the experiment's profile: a change to another profile's block has run nothing."""
    figures = {f"reports/{profile}/bits/made.json:{key}": "4.5" for profile in ("smoke", "cpu") for key in BOTH}
    was = {"rev": "main", "typ": "baseline", "profile": "smoke", **figures}
    changed = {"Experiment": "it", "typ": "branch_base", f"models.made.{block}.training.ema_decay": "0.5"}
    line = experiments_table(csv_lines(was, was | changed)).splitlines()[-1].split()
    expected = "no figure changed" if block == "cpu" else "made 4.5000 4.5000 4.5000"
    assert line == ["it", f"made.{block}.training.ema_decay=0.5", *expected.split()]


@pytest.mark.parametrize("name", ["training_defaults.smoke.ema_decay", "common.smoke.run.threads"])
def test_shared_settings_that_changed_no_figure_say_so(name: str) -> None:
    was = baseline() | {"profile": "smoke"}
    text = experiments_table(csv_lines(was, was | {"Experiment": "it", "typ": "branch_base", name: "3"}))
    assert text.splitlines()[-1].split() == ["it", f"{name}=3", "no", "figure", "changed"]


@pytest.mark.parametrize("value", ["0.003", "1e-05", "0", "False", "[1, 2]", "text", ""])
@pytest.mark.parametrize("was", ["0.002", ""])
def test_a_change_to_any_value_is_shown_also_to_none(value: str, was: str) -> None:
    """DVC writes nothing for a null and for a key that is not there."""
    name = "models.nice.cpu.model.some_setting"
    records = [{**baseline(), name: was}, {**baseline(), name: value, "Experiment": "it", "typ": "branch_base"}]
    text = " ".join(experiments_table(csv_lines(*records)).split())
    shown = f"nice.cpu.model.some_setting={value or 'null, or removed'}"
    assert (shown in text) == (value != was)


def test_what_is_not_there_yet_is_blank() -> None:
    """A model that the baseline or the experiment has not scored (DVC's sign is !), an experiment in the queue."""
    new, other = BITS.format("nice", "test"), BITS.format("made", "test")
    first = {"Experiment": "first", "typ": "branch_base", new: "4.5", BITS.format("nice", "train"): "!", other: "!"}
    text = experiments_table(csv_lines(baseline() | {new: "!"}, baseline() | first, {"rev": "a1b2", "typ": "queued"}))
    assert [line.split() for line in text.splitlines()[1:]] == [["first", "nice", "4.5000"], ["a1b2"]]


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "error: no such command\nx\n"])
def test_other_input_is_refused(text: str) -> None:
    with pytest.raises(StageError, match="not the output of `dvc exp show --csv`"):
        experiments_table(text.splitlines(keepends=True))
