"""How much two processes that train one model together get done, beside two that train one each.

`python -m benchmarks.process_scaling --model pixelcnn_pp`, on a machine with two idle cores: every process has one
thread. The two pairs take turns of some seconds, so that what else the machine does falls on both alike, and the ratio
is the median over rounds. Prints images per second of wall time, and per second of processor time, which other work
disturbs less. Batches are those of the profile, or of --batch-size images, in two slices.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from benchmarks.untracked_run import UntrackedRun
from dgm.config.params import PROFILES, load_params
from dgm.config.sections import TrainingConfig
from dgm.data.arrays import load_arrays
from dgm.data.splits import make_splits
from dgm.engine.sliced import JointSession, SlicedTrainer
from dgm.errors import StageError
from dgm.model_api.contracts import GradientTrained
from dgm.ranks import this_rank
from dgm.runs.checkpoint import Scratch
from dgm.seeds import Stream, seed_global
from dgm.settings import build_model, training_config
from dgm.types import CIFAR10
from stages.cli import DATA, run_stage
from stages.launch import HOST, end, start_rank

NUM_PROCESSES = 2
WARM_STEPS = 2
START_SECONDS = 600.0  # until all are ready, at most
LOOK_SECONDS = 0.05
BUSY_LOAD = 0.5  # of the other processes: the figures by the clock are worth little then
KINDS = ("apart", "together")
PLACE, PORT = "PROCESS_SCALING_PLACE", "PROCESS_SCALING_PORT"  # say to a measured process which one it is


@dataclass(frozen=True)
class Rate:
    """What one process did in one turn, in wall seconds and in processor seconds."""

    images: float
    seconds: float
    processor_seconds: float


@dataclass(frozen=True)
class Turn:
    """What two processes did in one turn: images per second of both, and per processor second; cores that they used."""

    by_clock: float
    by_processor: float
    cores: float

    @classmethod
    def of(cls, rates: Sequence[Rate]) -> Turn:
        """From what each has done."""
        images, used = sum(rate.images for rate in rates), sum(rate.processor_seconds for rate in rates)
        cores = sum(rate.processor_seconds / rate.seconds for rate in rates)
        return cls(sum(rate.images / rate.seconds for rate in rates), images / used, cores)


class MeasuredTrainer(SlicedTrainer):
    """Trains for a time, without validation."""

    def warm_up(self) -> None:
        """The first steps, which are slower."""
        self._start()
        self.model.train()
        for _ in range(WARM_STEPS):
            self._train_step(0.5)

    def rate(self, seconds: float) -> Rate:
        """Of this rank, whose images are its part of each batch."""
        began, used, first = time.monotonic(), time.process_time(), self.step
        while self.session.agree(self.ranks, (time.monotonic() - began) / seconds, has_advanced=False) < 1:
            self._train_step(0.5)
        images = (self.step - first) * self.config.batch_size / self.ranks.count
        return Rate(images, time.monotonic() - began, time.process_time() - used)


def trainer(model_name: str, profile: str, batch_size: int | None, folder: Path) -> MeasuredTrainer:
    """In this process, alone or as one rank. Raises: StageError if the model is not trained by gradient."""
    ranks = this_rank()
    torch.set_num_threads(1)
    params = load_params()
    run, config = params.common_config(profile).run, training_config(params, model_name, profile)
    seed_global(run.seed, Stream.CONSTRUCTION)
    model = build_model(params, model_name, profile, CIFAR10)
    if not isinstance(model, GradientTrained) or not isinstance(config, TrainingConfig):
        raise StageError(f"{model_name}: not trained by gradient")
    changes = {"num_slices": NUM_PROCESSES, "batch_size": batch_size or config.batch_size}
    config = TrainingConfig.model_validate({**config.model_dump(), **changes})
    splits = make_splits(load_arrays(DATA), run.num_training_images)
    images, held_out = torch.from_numpy(splits.train.copy()), torch.from_numpy(splits.validation.copy())
    session = JointSession(Scratch(profile, model_name, "speed", folder), UntrackedRun(), None, 1e9)
    return MeasuredTrainer(model, images, held_out, config, run.seed, session, ranks)


def take_turns(
    place: str, store: TCPStore, model_name: str, profile: str, batch_size: int | None, seconds: float, rounds: int
) -> None:
    """A measured process: says that it is ready, then trains whenever it is told to, and says what it has done."""
    kind = place.partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        measured = trainer(model_name, profile, batch_size, Path(folder))
        measured.warm_up()
        store.set(f"ready/{place}", "")
        for number in range(rounds):
            store.wait([f"{number}/{kind}"], timedelta(seconds=START_SECONDS + 10 * seconds))
            store.set(f"{number}/{place}", json.dumps(asdict(measured.rate(seconds))))


def run_pairs(arguments: Sequence[str], seconds: float, rounds: int) -> list[dict[str, Turn]]:
    """What the pairs do in each round. Raises: StageError if one of their processes ends early, or is not ready."""
    command = [sys.executable, "-m", "benchmarks.process_scaling", *arguments]
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    os.environ[PORT] = str(store.port)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for kind in KINDS:
            for rank in range(NUM_PROCESSES):
                os.environ[PLACE] = f"{kind}:{rank}"
                is_joint = kind == "together"
                joint = start_rank(command, rank, NUM_PROCESSES, store.port) if is_joint else None
                processes[f"{kind}:{rank}"] = joint or subprocess.Popen(command)
        await_keys(store, [f"ready/{place}" for place in processes], processes.values(), START_SECONDS)
        measured: list[dict[str, Turn]] = []
        for number in range(rounds):
            turns: dict[str, Turn] = {}
            for kind in KINDS if number % 2 == 0 else reversed(KINDS):
                store.set(f"{number}/{kind}", "")
                keys = [f"{number}/{kind}:{rank}" for rank in range(NUM_PROCESSES)]
                await_keys(store, keys, processes.values(), START_SECONDS + 10 * seconds)
                turns[kind] = Turn.of([Rate(**json.loads(store.get(key))) for key in keys])
            measured.append(turns)
        return measured
    finally:
        end(list(processes.values()))


def await_keys(
    store: TCPStore, keys: Sequence[str], processes: Iterable[subprocess.Popen[bytes]], seconds: float
) -> None:
    """Until all keys are set. Raises: StageError if a process fails, or the time is over."""
    until = time.monotonic() + seconds
    while not store.check(list(keys)):
        if any(process.poll() for process in processes) or time.monotonic() > until:
            raise StageError("a measured process failed, or was not ready in time")
        time.sleep(LOOK_SECONDS)


def summary(measured: Sequence[dict[str, Turn]]) -> list[str]:
    """A line for each pair, medians over the rounds, and one for each ratio of two turns that followed each other."""
    lines: list[str] = []
    for kind in KINDS:
        clock, used, cores = (
            statistics.median(getattr(turns[kind], name) for turns in measured)
            for name in ("by_clock", "by_processor", "cores")
        )
        name = f"two processes {kind}:"
        lines.append(f"{name:<24}{clock:.1f} images/s, {used:.1f} per processor second, on {cores:.2f} cores")
    for name, words in (("by_clock", "by the clock"), ("by_processor", "by processor time")):
        ratios = sorted(getattr(turns["together"], name) / getattr(turns["apart"], name) for turns in measured)
        middle = f"{ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f}"
        lines.append(f"ratio {words}: {statistics.median(ratios):.3f}, half of the rounds within {middle}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pixelcnn_pp")
    parser.add_argument("--profile", default="cpu", choices=PROFILES)
    parser.add_argument("--batch-size", type=int, help="instead of the profile's; a multiple of two")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each pair")
    given = parser.parse_args()
    if not (given.seconds > 0 and given.rounds > 0):
        raise StageError("--seconds and --rounds must be greater than 0")
    if place := os.environ.get(PLACE):
        store = TCPStore(HOST, int(os.environ[PORT]), is_master=False)
        take_turns(place, store, given.model, given.profile, given.batch_size, given.seconds, given.rounds)
        return
    load = os.getloadavg()[0]
    measured = run_pairs(sys.argv[1:], given.seconds, given.rounds)
    batches = f", batches of {given.batch_size}" if given.batch_size else ""
    rounds = f"{given.rounds} rounds of {given.seconds:g} s a pair"
    print(f"{given.model} ({given.profile}){batches}, {os.cpu_count()} cores, {rounds}")
    print(f"load of the machine before: {load:.2f}" + ("; it was busy" if load > BUSY_LOAD else ""))
    print("\n".join(summary(measured)))


if __name__ == "__main__":
    run_stage(main)
