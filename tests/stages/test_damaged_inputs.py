"""Small files that stages leave for each other and read again: damaged, each is one line, or is not taken."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from dgm.errors import StageError
from dgm.reporting.companion import load_questions
from dgm.runs.progress import Position, read_position
from dgm.tracking.outbox import Entry
from dgm.tracking.undelivered import parse
from stages.dvc_command import locked_stages
from stages.readme_tables import BEGIN, END, TABLES, cost, with_tables
from stages.submit import Note, Place, Submission
from stages.submit_row import job_folder

COSTS = "name,train_seconds,peak_memory_bytes\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no columns name, train_seconds"),
        (b"\xff\xfe", "not a CSV table"),
        (COSTS.encode(), "has no rows"),
        (f"{COSTS}A,,\n".encode(), "no model was trained"),
        (f"{COSTS}A,60\n".encode(), "line 2 has 2 fields"),
        (f"{COSTS}A,60,10".encode(), "line 2 is cut off"),
        *(
            (f"{COSTS}A,{seconds},10\n".encode(), "line 2: train_seconds")
            for seconds in ("nan", "inf", "-1", "x", "True")
        ),
        *((f"{COSTS}A,60,{size}\n".encode(), "line 2: peak_memory_bytes") for size in ("1.5", "-1", "1e400", "null")),
        (f"{COSTS}A,60,10\nA,60,10\n".encode(), "line 3 is the second of 'A'"),
    ],
)
def test_what_training_costs_is_read_with_care(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "compute.csv"
    path.write_bytes(content)
    with pytest.raises(StageError, match=rf"compute\.csv: {reason}"):
        cost(path)


def test_a_table_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / next(iter(TABLES))).write_bytes(b"\xff")
    with pytest.raises(StageError, match=r"cifar10_pixelrnn\.md: missing or no text"):
        with_tables(BEGIN + END, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"\xff", b"stages: [", b"[" * 10**5, b"- " * 10**5, b"a: 2020-13-45", b"schema: '2.0'"]
)
def test_a_damaged_lock_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_bytes(content)
    with pytest.raises(StageError, match=r"dvc\.lock: cannot be read .*`git checkout dvc\.lock`") as caught:
        locked_stages()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"- a: [", b"\xff", b"- 3", b"3"])
def test_damaged_questions_are_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "questions.yaml"
    path.write_bytes(content)
    with pytest.raises(StageError, match=r"questions\.yaml: ") as caught:
        load_questions(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cluster": "slurm"}', '{"cluster": "slurm", "job": 3}'])
def test_a_damaged_note_of_a_job_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = job_folder("smoke", "made") / "job.json"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    submission = Submission("smoke", Place("slurm", None, {}, []), 1, None)
    with pytest.raises(StageError, match=r"job\.json: .*; delete it: the row is then submitted again"):
        submission._left_over("made")
    path.write_text(json.dumps(asdict(Note("another", "3"))), encoding="utf-8")
    assert submission._left_over("made") is None


POSITION = Position("train@smoke-made", "step 3", 0.5, None)


@pytest.mark.parametrize("change", [{"fraction": "x"}, {"stage": 3}, {"text": None}, {"seconds_left": []}])
def test_a_position_of_another_type_is_not_shown(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "position"
    path.write_text(json.dumps(asdict(POSITION)), encoding="utf-8")
    assert read_position(path) == POSITION
    path.write_text(json.dumps({**asdict(POSITION), **change}), encoding="utf-8")
    assert read_position(path) is None


ENTRY = Entry("metric", "bits", 3.5, 4, 1000)


@pytest.mark.parametrize(
    "change", [{"kind": "other"}, {"key": 3}, {"step": "x"}, {"step": 1.5}, {"value": None}, {"timestamp_ms": []}]
)
def test_a_kept_record_of_another_type_is_not_sent(change: dict[str, object]) -> None:
    assert parse(json.dumps(asdict(ENTRY))) == ENTRY
    assert parse(json.dumps({**asdict(ENTRY), **change})) is None
    assert parse("[" * 10000) is None
