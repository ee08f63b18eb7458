"""Images a second that one core encodes and decodes, for every autoregressive model, the entropy coder included.

Run from the project's root: python -m benchmarks.decoding_speed [--runs FOLDER] [--before CHECKOUT]. Each model runs in
a process of its own, one thread; with --before, another checkout of the project takes turns with this one, so that the
ratios are of the same machine at the same time. Writes benchmarks/decoding_speed.md.

Test images, side by side as the coder takes them. A few rows of sub-pixels are timed after a first one, in seconds of
the processor and not of the clock; the fastest stands for all, so that other programs disturb as little as possible.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from tabulate import tabulate

from benchmarks.sampling_speed import cpu_name, models
from dgm.coding.codec import compress, decompress, sums_in_one_order
from dgm.config.params import load_params
from dgm.data.arrays import load_arrays
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel
from dgm.registry import MODELS, model_class
from dgm.runs.atomic import write_text
from dgm.types import CIFAR10, NUM_TEST_IMAGES, Images

BATCHES = (16, 500)
ROW = CIFAR10.channels * CIFAR10.width  # sub-pixels
NUM_TIMED_ROWS = 4
MOST_MINUTES = 5.0
PARTS = ("conditionals", "encode", "decode")
PROJECT = Path(__file__).resolve().parent.parent
REPORT = Path(__file__).parent / "decoding_speed.md"

Speeds = dict[str, list[float]]  # batch -> images per second of each of PARTS


class Stopwatch:
    """Lets the first rows of sub-pixels through and times each but the first; `track` of the coder."""

    def __init__(self) -> None:
        self.seconds: list[float] = []  # of each row

    def __call__(self, positions: Iterable[int]) -> Iterator[int]:
        rows = torch.tensor(list(positions)).split(ROW)[: 1 + NUM_TIMED_ROWS]
        for number, row in enumerate(rows):
            began = time.process_time()
            yield from row.tolist()
            if number > 0:
                self.seconds.append(time.process_time() - began)

    def images_per_second(self, num_images: int) -> float:
        """Whole images, as if every row took as long as the fastest."""
        return num_images / (min(self.seconds) * CIFAR10.height)


@sums_in_one_order()
@torch.no_grad()
def speeds(model: AutoregressiveModel, images: Images) -> list[float]:
    """Images per second of each of PARTS."""
    model.eval()
    flat, conditionals = images.flatten(1).long(), model.conditionals(len(images))
    watches = {part: Stopwatch() for part in PARTS}
    for index in watches["conditionals"](model.order().tolist()):
        conditionals.log_pmf()
        conditionals.push(flat[:, index])
    compressed = compress(model, images, 0, watches["encode"])
    with contextlib.suppress(StageError):  # at the end: these are not whole images
        decompress(model, compressed, watches["decode"])
    return [watches[part].images_per_second(len(images)) for part in PARTS]


def work(name: str, runs: Path, data: Path) -> None:
    """Prints the weights' origin and the speeds of one model as JSON."""
    images = torch.from_numpy(load_arrays(data).test[: max(BATCHES)].copy())
    weights, model = next((w, m) for n, w, m in models(load_params(), runs) if n == name)
    print(json.dumps([weights, {str(size): speeds(model, images[:size]) for size in BATCHES}]))


def run_worker(checkout: Path, name: str, runs: Path, data: Path) -> tuple[str, Speeds]:
    """This file's `work` on the code of a checkout."""
    command = [sys.executable, str(Path(__file__).resolve()), "--work", name, "--runs", str(runs), "--data", str(data)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True, text=True).stdout
    weights, of_batch = json.loads(output.splitlines()[-1])
    return weights, of_batch


def row(name: str, weights: str, batch: int, after: list[float], before: list[float] | None) -> list[str]:
    """Cells of one line of the table."""
    cells = [name.replace("_", r"\_"), weights, str(batch)]
    for part in range(len(PARTS)):
        cells.append(f"{before[part]:.3g} → {after[part]:.3g}" if before else f"{after[part]:.3g}")
    cells.append(f"{after[-1] / before[-1]:.1f}" if before else "")
    return [*cells, f"{NUM_TEST_IMAGES / after[-1] / 60:.1f}"]


def report(rows: list[list[str]], is_compared: bool) -> str:
    """What benchmarks/decoding_speed.md says."""
    what = "Before → after, in turns on one machine. " if is_compared else ""
    slow = [
        f"{line[0]} ({line[-1]})" for line in rows if line[2] == str(BATCHES[-1]) and float(line[-1]) > MOST_MINUTES
    ]
    lines = [
        "# Decoding speed, images per second of one core",
        "",
        f"{cpu_name()}, 1 torch thread, torch {torch.__version__.split('+')[0]}, seconds of the processor, "
        f"fastest of {NUM_TIMED_ROWS} rows of {CIFAR10.height}.",
        f"{what}Encode and decode: conditionals and entropy coder together.",
        "Made by `python -m benchmarks.decoding_speed`.",
        "",
    ]
    columns = ["Model", "Weights", "Images at once", "Conditionals", "Encode", "Decode", "Decode, ratio"]
    columns.append(f"Minutes for {NUM_TEST_IMAGES:,}")
    table = tabulate(rows, columns, tablefmt="pipe", disable_numparse=True, colalign=["left", "left", *["right"] * 6])
    bar = f"* {NUM_TEST_IMAGES:,} images in at most {MOST_MINUTES:.0f} minutes, {BATCHES[-1]} at once: "
    return "\n".join([*lines, table, "", bar + (f"missed by {', '.join(slow)}" if slow else "reached"), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("."), help="a project whose runs/ has trained weights")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder of CIFAR-10 as arrays")
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    runs, data = arguments.runs.resolve(), arguments.data.resolve()
    if arguments.work:
        work(arguments.work, runs, data)
        return
    rows: list[list[str]] = []
    for name in sorted(MODELS):
        if not issubclass(model_class(name), AutoregressiveModel):
            continue
        before = run_worker(arguments.before.resolve(), name, runs, data)[1] if arguments.before else None
        weights, after = run_worker(PROJECT, name, runs, data)
        for batch, of_batch in after.items():
            rows.append(row(name, weights, int(batch), of_batch, before[batch] if before else None))
            print(*rows[-1], flush=True)
        write_text(REPORT, report(rows, arguments.before is not None))


if __name__ == "__main__":
    main()
