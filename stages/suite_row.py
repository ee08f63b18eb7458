"""One row of a time-boxed suite, in a process of its own: trains, rounds, scores, samples, proves, compresses.

`python -m stages.suite` starts it. After each stage its files are whole, and row.json says so.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from dgm.config.params import Params, load_params
from dgm.config.sections import MAX_STEPS, TrainingConfig
from dgm.data.arrays import load_arrays
from dgm.data.splits import make_splits
from dgm.evaluation.evaluate import evaluate_split
from dgm.fingerprints import current_key, training_key
from dgm.model_api.contracts import Model
from dgm.runs.atomic import file_digest
from dgm.runs.files import RunFiles
from dgm.runs.progress import track
from dgm.runs.records import Provenance, read_record, write_record
from dgm.runs.weights import load_trained, save_weights
from dgm.settings import build_scored_model, evaluation_config, training_config
from dgm.suite.rounding import rounded
from dgm.suite.row import Row, write_row
from dgm.suite.schedule import evaluation_that_fits
from dgm.types import CIFAR10
from stages.cli import DATA, run_stage
from stages.compress import compress
from stages.device import prepare_device
from stages.evaluate import evaluate
from stages.prove import examine_row
from stages.sample import sample
from stages.train import Limits, train

TRAINING_PART = 0.75  # of what is left when the process is up: then come rounding and scoring
GPU_START_SECONDS = 10.0  # of preparing, choosing kernels and capturing: 8 to 20 on an H200, and no budget counts them
STARTS = 2.0  # as many times as long as starting took is kept for them at least
SCORING_PART = 0.8  # of what is left after that
LARGEST_LOSS_BITS = 0.002  # by rounding the weights, per sub-pixel of PROBED_IMAGES validation images
PROBED_IMAGES = 256
FURTHER_NICENESS = 10  # of what goes pixel by pixel: as fast on an idle core, and a GPU is for the rows in training
LONG_SECONDS = 600.0  # shorter trainings write no checkpoints: one of a large model takes seconds


def start(name: str, profile: str, device: str, begun: float, until: float, log: Path) -> NoReturn:
    """The row as a process: what it prints, and the traceback if it fails, goes to the log. Ends with the suite."""
    threading.Thread(target=end_with_suite, daemon=True).start()
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    run_stage(lambda: run_row(name, profile, device, begun, until))


def end_with_suite() -> None:
    """Waits for the end of the suite, also by SIGKILL, and ends this process then, wherever it is."""
    if (suite := multiprocessing.parent_process()) is not None:
        suite.join()
        os.kill(os.getpid(), signal.SIGKILL)


def run_row(name: str, profile: str, device: str, begun: float, until: float) -> None:
    """All stages of a row; its place, which it has until that Unix time, is free after the second of them."""
    params = load_params()
    config = training_config(params, name, profile)
    changes: dict[str, dict[str, Any]] = {}
    if isinstance(config, TrainingConfig):
        start_seconds = 0.0 if device == "cpu" else GPU_START_SECONDS
        changes["training"] = time_box(config, seconds_to_train(begun, time.time(), until - start_seconds))
    params = params.changed(name, profile, changes)
    limit = float(changes.get("training", {}).get("max_seconds", math.inf))
    print(f"{name} ({profile}): trains for {limit:g} s", flush=True)

    began = time.monotonic()
    if not train(name, profile, params, device, Limits(LONG_SECONDS / 2 if limit > LONG_SECONDS else math.inf)):
        raise SystemExit(1)
    seconds = time.monotonic() - began
    key = training_key(params, name, profile)
    row = Row(name, profile, changes, key, None, {}, {}, False).with_stage("train", seconds)
    write_row(row)
    probe = Probe(params, name, profile, device)
    if isinstance(config, TrainingConfig) and probe.round_weights():
        row = replace(row, has_half_weights=True).with_stage("train", seconds)
        write_row(row)

    if draws := probe.affordable_draws(SCORING_PART * (until - time.time())):
        changes = {**changes, "evaluation": draws}
        params = params.changed(name, profile, changes)
    del probe  # its memory is wanted by what follows, and by other rows
    row = replace(row, changes=changes, result_key=current_key(params, name, profile))
    stages: tuple[tuple[str, Callable[[str, str, Params, str | None], None]], ...] = (
        ("evaluate", evaluate),
        ("sample", sample),
        ("prove", examine_row),
        ("compress", compress),
    )
    for stage, work in stages:
        if stage != "evaluate" and device != "cpu":
            device = "cpu"
            os.nice(FURTHER_NICENESS)
        began = time.monotonic()
        work(name, profile, params, device)
        row = row.with_stage(stage, time.monotonic() - began)
        write_row(row)


def seconds_to_train(begun: float, now: float, until: float) -> float:
    """Of a row that began at `begun` and is ready to train now: what follows takes longer where starting did."""
    left = until - now
    return round(max(1.0, min(TRAINING_PART * left, left - STARTS * (now - begun))), 2)


def time_box(config: TrainingConfig, seconds: float) -> dict[str, Any]:
    """The changes that let a training end by the clock; steps are no budget then."""
    steps = {} if config.max_seconds is not None else {"max_steps": MAX_STEPS}
    return {"max_seconds": seconds, **steps}


class Probe:
    """A trained model on a few validation images: what rounding costs it, and how long scoring takes."""

    def __init__(self, params: Params, name: str, profile: str, device: str | None) -> None:
        self.name, self.common = name, params.common_config(profile)
        self.config, self.files = evaluation_config(params, name, profile), RunFiles(profile, name)
        self.section = params.own_section(name, profile, "evaluation")
        place = prepare_device(self.common.run, device)
        model = build_scored_model(params, name, profile, CIFAR10)
        load_trained(self.files, model, training_key(params, name, profile))
        self.model: Model = model.to(place).eval()
        splits = make_splits(load_arrays(DATA), self.common.run.num_training_images)
        self.images = torch.from_numpy(splits.validation[:PROBED_IMAGES].copy())

    def bits(self) -> float:
        """Bits per sub-pixel of the images, one draw each: always the same noise."""
        config = self.config.model_copy(update={"num_draws": 1, "num_importance_samples": 0})
        scored = evaluate_split(self.model, self.images, config, self.common.run.seed, self.name, track)
        return scored.bits_per_subpixel

    def round_weights(self) -> bool:
        """Rounds the weights file to bfloat16 and returns True, unless that costs more than LARGEST_LOSS_BITS."""
        before = self.bits()
        original = {key: tensor.clone() for key, tensor in self.model.state_dict().items()}
        state = rounded(self.model)
        self.model.load_state_dict(state)
        loss = self.bits() - before
        is_cheap = loss <= LARGEST_LOSS_BITS
        print(f"{self.name}: bfloat16 weights cost {loss:+.5f} bits, {'kept' if is_cheap else 'not kept'}", flush=True)
        if is_cheap:
            save_weights(self.files.weights, {key: tensor.cpu() for key, tensor in state.items()})
            if (provenance := read_record(self.files.provenance, Provenance)) is not None:
                origin = replace(provenance, weights_sha256=file_digest(self.files.weights))
                write_record(self.files.provenance, origin)
        else:
            self.model.load_state_dict(original)
        return is_cheap

    def affordable_draws(self, seconds: float) -> dict[str, int]:
        """The draws and importance samples that there is time for, at most those of params.yaml.

        Said also where they are all of them: the table that takes the row over may have fewer from an earlier one.
        """
        config, counts = self.config, self.common.evaluation
        if config.num_draws + config.num_importance_samples == 1:
            return {}
        began = time.monotonic()
        self.bits()
        per_image = (time.monotonic() - began) / PROBED_IMAGES
        per_draw = per_image * (counts.num_test_images + counts.num_train_images)
        draws, samples = evaluation_that_fits(config.num_draws, config.num_importance_samples, per_draw, seconds)
        wanted = {"num_draws": draws, "num_importance_samples": samples}
        return {key: value for key, value in wanted.items() if key in self.section}
