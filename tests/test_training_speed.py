"""The training benchmark really trains, times what comes after warming up, and has a row for what fails."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.timed_training import Settings, Speed, TimedTrainer, measure, shortened
from benchmarks.training_speed import COLUMNS, Failure, Machine, attempt, last_line, or_failure, report, table
from dgm.config.params import load_params
from dgm.config.sections import TrainingConfig
from dgm.engine.session import Session
from dgm.runs.checkpoint import Scratch
from tests.tiny import UntrackedRun, tiny_training

SETTINGS = Settings("smoke", 0.3, "cpu", 2, False)
SPEED = Speed("char_rnn", 640.0, 1200, 64, "bfloat16", True, False, 12.34, 3 * 2**30, 50_000_000_000, 8.0, 4.5, True)
MACHINE = Machine("a GPU", "bfloat16 matrix product of 8,192 x 8,192", 8e14)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_a_row_is_computed_from_what_was_measured() -> None:
    header, _, row = table([SPEED], 8e14).splitlines()
    assert tuple(cells(header)) == COLUMNS
    assert cells(row) == [
        *(r"char\_rnn", "640", "100", "1,200", "64", "bfloat16", "yes", "no", "12.3"),
        *("3.00", "50", "32", "4.0%", "8.000", "4.500"),
    ]
    assert cells(table([replace(SPEED, is_warm=False)], 8e14).splitlines()[2])[1] == "≈ 640"


def test_the_report_names_machine_images_and_every_failure() -> None:
    text = report([SPEED, Failure("made", "ValueError: no")], MACHINE, SETTINGS, "random images")
    assert "a GPU; torch" in text and "commit" in text
    assert "bfloat16 matrix product of 8,192 x 8,192, 800 TFLOP/s" in text
    assert "trained 0.3 s" in text and "random images" in text
    assert [cells(line)[:2] for line in text.splitlines() if "failed" in line and "|" in line] == [["made", "failed"]]
    assert text.endswith("\n\n* made failed: ValueError: no\n")


def test_a_model_is_trained_on_images_from_a_seed_where_there_are_no_others(tmp_path: Path) -> None:
    speed = measure("char_rnn", SETTINGS, load_params(), tmp_path)
    assert (speed.batch_size, speed.precision, speed.is_compiled) == (2, "float32", False)
    assert speed.num_steps > 3 and speed.is_warm
    assert 0 < speed.images_per_second < math.inf and speed.first_step_seconds > 0
    assert speed.training_flops_per_image > 1e6 and speed.peak_memory_bytes > 2**20
    assert 7.9 < speed.start_bits < 8.1 and speed.end_bits < speed.start_bits + 0.2


def test_the_seconds_begin_after_the_first_step_and_the_rate_after_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lengths = [50.0, 8.0, 8.0, *[1.0] * 6]  # seconds of the steps: compilation, warming up, the rest

    def train_step(self: TimedTrainer, progress: float) -> None:
        clock[0] += lengths[self.step]
        self.step += 1

    monkeypatch.setattr("dgm.engine.loop.Trainer._train_step", train_step)
    monkeypatch.setattr("dgm.engine.loop.Trainer._record", lambda self: None)
    trainer = TimedTrainer.__new__(TimedTrainer)
    trainer.step, trainer.session = 0, Session(Scratch("gpu", "made", "key", Path()), UntrackedRun(), None, 1e9)
    trainer.device, trainer.warm_seconds = torch.device("cpu"), 10.0
    for _ in lengths:
        trainer._train_step(0.0)
    trainer._record()
    assert trainer.first_step_seconds == 50.0
    assert trainer.session.seconds == pytest.approx(22.0)
    assert trainer.is_warm and trainer.steps_per_second() == pytest.approx(1.0)


def test_the_profile_s_training_is_shortened_and_otherwise_kept() -> None:
    config = TrainingConfig.model_validate(tiny_training(batch_size=8, compile=True))
    short = shortened(config, Settings("gpu", 60.0, None, None, None))
    assert (short.batch_size, short.compile, short.max_seconds, short.num_validation_images) == (8, True, 60.0, 8)
    same = {"batch_size", "compile", "learning_rate", "precision", "optimizer", "channels_last"}
    assert short.model_dump(include=same) == config.model_dump(include=same)
    assert not shortened(config, SETTINGS).compile


def raising(name: str) -> Speed:
    raise RuntimeError("backend raised:\nRuntimeError: no kernel\n\nSet a variable for more")


def dying(name: str) -> Speed:
    os._exit(9)


def test_a_model_that_fails_or_dies_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert or_failure(raising, "made") == Failure("made", "RuntimeError: no kernel")
    assert "Set a variable for more" in capsys.readouterr().err
    assert attempt(dying, "made").error.startswith("its process was killed")  # type: ignore[union-attr]
    assert last_line(ValueError("first\nsecond\n")) == "ValueError: second"
    assert last_line(ValueError()) == "ValueError: "
