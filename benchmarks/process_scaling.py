"""How much two processes that train one model together get done, beside two that train one each.

`python -m benchmarks.process_scaling --model pixelcnn_pp --seconds 20`, on a machine with two idle cores: every process
has one thread. Prints images per second of wall time, and per second of processor time, which other work on the
machine disturbs less. Batches are those of the profile, in two slices.
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from stages.launch import HOST, start_rank

NUM_PROCESSES = 2
WARM_STEPS = 2
FILE = "PROCESS_SCALING_FILE"  # names the file that a measured process writes


@dataclass(frozen=True)
class Rate:
    """What one process did after its first steps, in wall seconds and in processor seconds."""

    images: float
    seconds: float
    processor_seconds: float


class MeasuredTrainer(SlicedTrainer):
    """Trains for a time, without validation."""

    def rate(self, seconds: float) -> Rate:
        """Of this rank, whose images are its part of each batch."""
        self._start()
        self.model.train()
        for _ in range(WARM_STEPS):
            self._train_step(0.5)
        began, used, first = time.monotonic(), time.process_time(), self.step
        while self.session.agree(self.ranks, (time.monotonic() - began) / seconds, has_advanced=False) < 1:
            self._train_step(0.5)
        images = (self.step - first) * self.config.batch_size / self.ranks.count
        return Rate(images, time.monotonic() - began, time.process_time() - used)


def measure(model_name: str, profile: str, seconds: float) -> Rate:
    """In this process, alone or as one rank. Raises: StageError if the model is not trained by gradient."""
    ranks = this_rank()
    torch.set_num_threads(1)
    params = load_params()
    run, config = params.common_config(profile).run, training_config(params, model_name, profile)
    seed_global(run.seed, Stream.CONSTRUCTION)
    model = build_model(params, model_name, profile, CIFAR10)
    if not isinstance(model, GradientTrained) or not isinstance(config, TrainingConfig):
        raise StageError(f"{model_name}: not trained by gradient")
    config = TrainingConfig.model_validate({**config.model_dump(), "num_slices": NUM_PROCESSES})
    splits = make_splits(load_arrays(DATA), run.num_training_images)
    images, held_out = torch.from_numpy(splits.train.copy()), torch.from_numpy(splits.validation.copy())
    with tempfile.TemporaryDirectory() as folder:
        session = JointSession(Scratch(profile, model_name, "speed", Path(folder)), UntrackedRun(), None, 1e9)
        return MeasuredTrainer(model, images, held_out, config, run.seed, session, ranks).rate(seconds)


def run_processes(is_together: bool, arguments: Sequence[str]) -> tuple[float, float]:
    """Images per second of two processes at once, and per second of processor time."""
    command = [sys.executable, "-m", "benchmarks.process_scaling", *arguments]
    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{rank}.json" for rank in range(NUM_PROCESSES)]
        processes: list[subprocess.Popen[bytes]] = []
        for rank, file in enumerate(files):
            os.environ[FILE] = str(file)
            together = start_rank(command, rank, NUM_PROCESSES, store.port) if is_together else None
            processes.append(together or subprocess.Popen(command))
        codes = [process.wait() for process in processes]
        if any(codes):
            raise StageError("a measured process failed")
        rates = [Rate(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
    images = sum(rate.images for rate in rates)
    return sum(rate.images / rate.seconds for rate in rates), images / sum(rate.processor_seconds for rate in rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pixelcnn_pp")
    parser.add_argument("--profile", default="cpu", choices=PROFILES)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind, in turn; medians count")
    given = parser.parse_args()
    if file := os.environ.get(FILE):
        rate = measure(given.model, given.profile, given.seconds)
        Path(file).write_text(json.dumps(asdict(rate)), encoding="utf-8")
        return
    measured: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(given.rounds):
        for is_together, found in measured.items():
            found.append(run_processes(is_together, sys.argv[1:]))
    (apart, apart_cpu), (together, together_cpu) = (
        (statistics.median(wall for wall, _ in found), statistics.median(cpu for _, cpu in found))
        for found in measured.values()
    )
    print(f"{given.model} ({given.profile}), {os.cpu_count()} cores, {given.rounds} rounds of {given.seconds:g} s")
    print(f"two processes apart:    {apart:.1f} images/s, {apart_cpu:.1f} per processor second")
    print(f"two processes together: {together:.1f} images/s, {together_cpu:.1f} per processor second")
    print(f"ratio: {together / apart:.3f} by the clock, {together_cpu / apart_cpu:.3f} by processor time")


if __name__ == "__main__":
    run_stage(main)
