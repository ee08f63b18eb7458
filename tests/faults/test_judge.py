"""The judge of the campaign: what must not be is caught where it is planted."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.faults import processes
from tests.faults.damage import DAMAGES, as_npy, of_report, without_a_word
from tests.faults.judge import Outcome, Verdict, judge, refusal
from tests.faults.processes import Attempt
from tests.faults.projects import copy_project, differences, replace_file, state_of
from tests.faults.record import Kind, page
from tests.faults.shown import missing_figures, shown, wrong_figures

GOOD_LINE = "error: reports/smoke/metrics/made.json: is empty; delete it and run `dvc repro`\n"
DONE = Attempt(("stages.report",), 0, "report (smoke): index.html\n", "", 1.0)
TRACE = "Traceback (most recent call last):\n  File x\nKeyError: 'model'\n"


def failed(errors: str, code: int | None = 1) -> Attempt:
    return Attempt(("stages.report",), code, "", errors, 1.0)


@pytest.mark.parametrize(
    ("attempt", "changed", "outcome"),
    [
        (DONE, [], Outcome.SAME),
        (failed(GOOD_LINE), [], Outcome.REFUSED),
        (failed("paused at step 3; the same command continues from there\n", 75), [], Outcome.REFUSED),
        (DONE, ["reports/smoke/results.csv differs"], Outcome.WRONG),
        (DONE, ["data/.train.npy.x is left"], Outcome.WRONG),
        (failed(GOOD_LINE), ["runs/smoke/made/weights differs"], Outcome.WRONG),
        (failed(TRACE), [], Outcome.TRACEBACK),
        (replace(DONE, output=TRACE), [], Outcome.TRACEBACK),
        (failed(GOOD_LINE + TRACE), [], Outcome.TRACEBACK),
        (failed("", None), [], Outcome.SILENT),
        (failed(""), [], Outcome.SILENT),
        (failed("", -15), [], Outcome.SILENT),
        (failed("", 143), [], Outcome.SILENT),
        (failed("something is wrong\n"), [], Outcome.SILENT),
        (failed("error: that went bad\n"), [], Outcome.SILENT),
        (failed(GOOD_LINE * 2), [], Outcome.SILENT),
        (failed(f"error: {'x' * 5000}; delete it\n"), [], Outcome.SILENT),
    ],
)
def test_each_outcome(attempt: Attempt, changed: list[str], outcome: Outcome) -> None:
    assert judge([attempt], changed).outcome is outcome


def test_a_refusal_names_the_thing() -> None:
    assert refusal(failed(GOOD_LINE), r"metrics/made\.json").is_good
    assert refusal(failed(GOOD_LINE), r"metrics/vae\.json").outcome is Outcome.SILENT


def test_an_earlier_command_is_judged_too() -> None:
    assert judge([failed(TRACE), DONE], []).outcome is Outcome.TRACEBACK


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """The files that show figures, with one model that is scored and one that is not."""
    folder = tmp_path / "golden" / "reports" / "smoke"
    (folder / "provenance").mkdir(parents=True)
    row = {"model": "made", "test_bits_per_subpixel": "4.5", "train_bits_per_subpixel": "4.25", "is_current": "True"}
    write(folder / "results.csv", [row, {"model": "vae", "is_current": ""}])
    for name in ("cifar10_pixelrnn", "cifar10_pixelcnn_pp"):
        write(folder / f"{name}.csv", [{"published_test": "4.0", **row}])
    write(folder / "cifar10_all.csv", [row])
    write(folder / "compute.csv", [{"model": "made", "train_seconds": "3"}])
    write(folder / "bound_terms.csv", [{"model": "vae", "term": "kl", "bits_per_subpixel": "1.5"}])
    write(folder / "curves.csv", [{"model": "made", "step": "4", "split": "train", "bits_per_subpixel": "5"}])
    write(folder / "reference_codecs.csv", [{"codec": "PNG", "joined_bits_per_subpixel": "6"}])
    write(
        folder / "paired_differences.csv",
        [{"model_a": "made", "model_b": "vae", "difference_bits_per_subpixel": "0", "standard_error": "0"}],
    )
    table = "| Model | Published | Ours, test |\n|:--|--:|--:|\n| MADE | 4.0 | 4.500 ± 0.010 |\n"
    (folder / "cifar10_all.md").write_text(table, encoding="utf-8")
    record = {"model": "made", "train_seconds": 3.0, "num_steps": 4}
    (folder / "provenance" / "made.json").write_text(json.dumps(record), encoding="utf-8")
    return tmp_path / "golden"


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), restval="")
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("results.csv", "4.5", "4.6"),
        ("cifar10_pixelrnn.csv", "4.25", "nan"),
        ("compute.csv", "3", "2"),
        ("bound_terms.csv", "1.5", "15"),
        ("curves.csv", "5", "6"),
        ("reference_codecs.csv", "6", "1e300"),
        ("cifar10_all.md", "4.500", "4.501"),
        ("paired_differences.csv", "0,0", "0.1,0"),
        ("results.csv", "vae,,", "vae,4.0,"),
    ],
)
def test_a_wrong_figure_is_found_anywhere(golden: Path, tmp_path: Path, file: str, old: str, new: str) -> None:
    nats = {"made": np.full(3, -9000.0), "vae": np.full(3, -9000.0)}
    right = shown(golden)
    project = copy_project(golden, tmp_path / "trial")
    assert wrong_figures(right, shown(project), nats) == []
    path = project / "reports" / "smoke" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    replace_file(path, text.replace(old, new, 1).encode())
    assert wrong_figures(right, shown(project), nats)
    verdict = of_report(project, DONE, lambda path: wrong_figures(right, shown(path), nats))
    assert verdict.outcome is Outcome.WRONG
    assert of_report(project, failed(GOOD_LINE), lambda path: wrong_figures(right, shown(path), nats)) == verdict


def test_marked_or_empty_figures_are_no_wrong_ones_but_missing(golden: Path, tmp_path: Path) -> None:
    right, project = shown(golden), copy_project(golden, tmp_path / "trial")
    folder = project / "reports" / "smoke"
    for name, old, new in (
        ("results.csv", "made,4.5,4.25,True", "made,4.6,4.25,False"),
        ("cifar10_all.md", "| MADE |", "| MADE † |"),
        ("reference_codecs.csv", "PNG,6", "PNG,"),
    ):
        replace_file(folder / name, (folder / name).read_text(encoding="utf-8").replace(old, new).encode())
    found = shown(project)
    assert wrong_figures(right, found, {}) == [] or found.pairs
    assert "made" in found.marked
    assert missing_figures(right, found) == ["reference_codecs.csv/PNG/joined_bits_per_subpixel"]
    assert without_a_word(right, found).outcome is Outcome.SILENT
    assert missing_figures(right, right) == []


def test_a_copy_differs_where_it_was_changed_and_leaves_the_golden_one_alone(golden: Path, tmp_path: Path) -> None:
    state, project = state_of(golden), copy_project(golden, tmp_path / "trial", ["reports/smoke/curves.csv"])
    assert differences(state, project) == ["reports/smoke/curves.csv is missing"]
    record = project / "reports" / "smoke" / "provenance" / "made.json"
    replace_file(record, record.read_bytes().replace(b"3.0", b"4.0"))  # how long it took is no result
    replace_file(project / "reports/smoke/compute.csv", b"")
    (project / ".scratch" / "tmp").mkdir(parents=True)
    (project / ".scratch" / "tmp" / ".x.dgm-tmp").touch()
    (project / "runs").mkdir()
    (project / "runs" / ".weights.x").touch()
    assert differences(state, project, missing_is_fine=True) == [
        "reports/smoke/compute.csv differs",
        "runs/.weights.x is left",
        ".scratch/tmp/.x.dgm-tmp is left",
    ]
    replace_file(record, record.read_bytes().replace(b'"num_steps": 4', b'"num_steps": 5'))
    assert "reports/smoke/provenance/made.json differs" in differences(state, project)
    assert state_of(golden) == state


def test_the_page_counts_every_outcome_and_says_what_was_bad() -> None:
    kind = Kind("kills", "killed", seed=7)
    for number, outcome in enumerate((*Outcome, Outcome.SAME)):
        kind.add(number, f"trial {outcome.name}", Verdict(outcome, "because"))
    kind.seconds = 2.0
    text = page([kind], 7, "python -m x", ["clocks"])
    assert "| kills | 6 | 2 | 1 | 1 | 1 | 1 | 2 |" in text and "| **all** | **6** | **2** | **1** |" in text
    assert "trial WRONG: wrong: because" in text and "seed 7" in text and "trial REFUSED" not in text
    assert "* Not tried: clocks\n" in text


def test_a_campaign_that_was_stopped_goes_on_and_tries_the_same(tmp_path: Path) -> None:
    def tried(kind: Kind, stop: int) -> None:
        for number, item, moments in kind.left("abcd"):
            if number == stop:
                return
            kind.add(
                number, f"{item} {moments.random()}", Verdict(Outcome.WRONG if item == "b" else Outcome.SAME, "why")
            )

    whole = Kind("two words", "", 7, tmp_path / "whole")
    tried(whole, 9)
    tried(Kind("two words", "", 7, tmp_path / "cut"), 2)
    again = Kind("two words", "", 7, tmp_path / "cut")
    assert len(again.verdicts) == 2 and again.bad == whole.bad
    tried(again, 9)
    assert again.verdicts == whole.verdicts and len({trial for trial, _ in whole.verdicts}) == 4


def test_a_stage_that_was_killed_before_it_began_has_said_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_be_stage", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    attempt = processes.run(tmp_path / "project", ("stages.check",))
    assert (attempt.code, attempt.said) == (-signal.SIGKILL, "") and not list(tmp_path.iterdir())


def test_every_damage_changes_a_text_and_an_array() -> None:
    for content in (b'{"a": 1.5, "b": 20}\n{"c": 3}\n', as_npy(np.arange(5.0))):
        for name, damage in DAMAGES.items():
            moments = random.Random(1)
            assert any(damage(content, moments) != content for _ in range(5)), name
