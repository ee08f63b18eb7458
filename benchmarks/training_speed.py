"""Trains every gradient-trained model of a profile for some seconds, as the train stage does, and says how fast it is.

Run from the project's root: python -m benchmarks.training_speed [--profile gpu] [--models NAME ...] [--seconds 60]
[--device cpu] [--batch-size N] [--no-compile] [--no-graph] [--jobs N] [--output FILE.md]. Each model has a process of
its own, so a model that fails, or is killed for memory, costs a row and no more; the file is written anew after each.

A quick rehearsal of the published sizes without a GPU: --profile gpu --device cpu --batch-size 2 --seconds 5
--no-compile. It finds what breaks; its speeds say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
from tabulate import tabulate

from benchmarks.timed_training import WARM_SHARE, Settings, Speed, measure, training_arrays
from dgm.config.params import PROFILES, Params, load_params
from dgm.model_api.contracts import GradientTrained
from dgm.registry import MODELS, model_class
from dgm.runs.atomic import write_text
from dgm.runs.provenance import device_name, git_commit, git_is_dirty
from stages.cli import DATA, run_stage
from stages.device import prepare_device

OUTPUT = Path(__file__).parent / "training_speed.md"
CEILING = {"cuda": (8192, torch.bfloat16, 50), "cpu": (2048, torch.float32, 3)}  # size, precision, products
ERROR_CHARACTERS = 200
COLUMNS = ("Model", "Images/s", "ms per step", "Steps", "Batch", "Precision", "Compiled", "Graph", "First step, s",
           "Peak GiB", "GFLOP per image", "TFLOP/s", "Of the ceiling", "Bits before", "Bits after")  # fmt: skip
Result = TypeVar("Result")


@dataclass(frozen=True)
class Machine:
    """Where the rows were measured. ceiling_flops: operations a second of one large matrix product."""

    device: str
    ceiling: str
    ceiling_flops: float


@dataclass(frozen=True)
class Failure:
    """The row of a model that could not be trained."""

    model: str
    error: str


def measure_machine(settings: Settings, params: Params) -> Machine:
    """The device and what a large matrix product reaches on it, the best of three tries."""
    device = prepare_device(params.common_config(settings.profile).run, settings.device)
    size, precision, num_products = CEILING[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=precision) for _ in range(2))
    seconds = min(_seconds_of_products(a, b, num_products) for _ in range(3))
    name = f"{str(precision).removeprefix('torch.')} matrix product of {size:,} x {size:,}"
    return Machine(device_name(str(device)), name, 2 * size**3 * num_products / seconds)


def _seconds_of_products(a: torch.Tensor, b: torch.Tensor, num_products: int) -> float:
    wait: Callable[[], object] = torch.cuda.synchronize if a.is_cuda else lambda: None
    torch.mm(a, b)
    wait()
    began = time.monotonic()
    for _ in range(num_products):
        torch.mm(a, b)
    wait()
    return time.monotonic() - began


def in_own_process(work: Callable[..., Result], *arguments: Any) -> Result:
    """What `work` returns. Raises: what it raises, and BrokenProcessPool if it is killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.timed_training"])  # torch is imported once
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def attempt(work: Callable[..., Speed], name: str, *arguments: Any) -> Speed | Failure:
    """The row of a model, whatever happens to it."""
    try:
        return in_own_process(or_failure, work, name, *arguments)
    except BrokenProcessPool:
        return Failure(name, "its process was killed, by the system if there was not enough memory")


def or_failure(work: Callable[..., Speed], name: str, *arguments: Any) -> Speed | Failure:
    """Errors end here, with their traceback on stderr: not every one of them can be sent to another process."""
    try:
        return work(name, *arguments)
    except Exception as error:
        traceback.print_exc()
        return Failure(name, last_line(error))


def last_line(error: Exception) -> str:
    """What kind of error, and the last line of its text that names one; else its last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = next((line for line in reversed(lines) if "Error" in line), lines[-1])
    kind = f"{type(error).__name__}: "
    return (kind + text.removeprefix(kind))[:ERROR_CHARACTERS]


def table(rows: Sequence[Speed | Failure], ceiling_flops: float) -> str:
    """Markdown, the rows in the order in which they were measured."""
    cells = [_cells(row, ceiling_flops) for row in rows]
    alignment = ["left", *["right"] * 4, *["left"] * 3, *["right"] * 7]
    return tabulate(cells, COLUMNS, tablefmt="pipe", disable_numparse=True, colalign=alignment)


def _cells(row: Speed | Failure, ceiling_flops: float) -> list[str]:
    name = row.model.replace("_", r"\_")
    if isinstance(row, Failure):
        return [name, "failed", *[""] * (len(COLUMNS) - 2)]
    return [
        name,
        ("" if row.is_warm else "≈ ") + f"{row.images_per_second:,.4g}",
        f"{1000 * row.batch_size / row.images_per_second:,.4g}",
        f"{row.num_steps:,}",
        f"{row.batch_size:,}",
        row.precision,
        "yes" if row.is_compiled else "no",
        "yes" if row.is_graphed else "no",
        f"{row.first_step_seconds:.1f}",
        f"{row.peak_memory_bytes / 2**30:.2f}",
        f"{row.training_flops_per_image / 1e9:.4g}",
        f"{row.flops / 1e12:.3g}",
        f"{row.flops / ceiling_flops:.1%}",
        f"{row.start_bits:.3f}",
        f"{row.end_bits:.3f}",
    ]


def code_version() -> str:
    """The commit, and whether the code differs from it."""
    return f"commit {(git_commit() or 'unknown')[:10]}" + (" and local changes" if git_is_dirty() else "")


def report(rows: Sequence[Speed | Failure], machine: Machine, settings: Settings, images: str, jobs: int = 1) -> str:
    """What the output file says."""
    lines = [
        f"# Training speed, profile {settings.profile}",
        "",
        f"{machine.device}; torch {torch.__version__}; {datetime.now(UTC):%Y-%m-%d}; {code_version()}.",
        f"Ceiling, measured: {machine.ceiling}, {machine.ceiling_flops / 1e12:,.4g} TFLOP/s.",
        f"Each model trained {settings.seconds:g} s after its first step on {images}, "
        + ("alone" if jobs == 1 else f"{jobs} at once on the device")
        + "; images/s of the steps after the",
        f"first {WARM_SHARE:.0%} of the time (≈ where a step took longer). GFLOP: forward and backward, counted, a",
        "multiply-add as two. Bits per sub-pixel of one batch of validation images, averaged weights at the end.",
        "Made by `python -m benchmarks.training_speed`.",
        "",
        table(rows, machine.ceiling_flops),
        "",
        *(f"* {row.model} failed: {row.error}" for row in rows if isinstance(row, Failure)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    trained = [name for name in MODELS if issubclass(model_class(name), GradientTrained)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=PROFILES, default="gpu")
    parser.add_argument("--models", nargs="+", choices=trained, help="default: all that learn by gradient")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, a model")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction)
    parser.add_argument("--graph", action=argparse.BooleanOptionalAction)
    parser.add_argument("--jobs", type=int, default=1, help="models at once, which share the device")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    params = load_params()
    settings = Settings(given.profile, given.seconds, given.device, given.batch_size, given.compile, given.graph)
    machine = in_own_process(measure_machine, settings, params)
    images = training_arrays(DATA)[1]
    rows: list[Speed | Failure] = []
    with ThreadPoolExecutor(given.jobs) as threads:
        tries: list[Future[Speed | Failure]] = [
            threads.submit(attempt, measure, name, settings, params) for name in given.models or trained
        ]
        for row in as_completed(tries):
            rows.append(row.result())
            write_text(given.output, report(rows, machine, settings, images, given.jobs))
            print(table(rows[-1:], machine.ceiling_flops).splitlines()[-1], flush=True)
    print(report(rows, machine, settings, images, given.jobs))


if __name__ == "__main__":
    run_stage(main)
