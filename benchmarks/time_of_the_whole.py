"""How long scoring takes: seconds of one core per model of a profile, from a few images of each.

Run from the project's root: python -m benchmarks.time_of_the_whole [--profile cpu] [--models NAME ...] [--images 100].
Weights are untrained: the operations are those of trained ones. Processor time, the best of two tries.
"""

from __future__ import annotations

import argparse
import time

import torch
from tabulate import tabulate

from dgm.config.params import PROFILES, Params, load_params
from dgm.data.arrays import load_arrays
from dgm.model_api.contracts import GradientTrained
from dgm.model_api.scoring import score_images
from dgm.seeds import Stream, generator_for
from dgm.settings import build_scored_model, evaluation_config
from dgm.types import CIFAR10, Images
from stages.cli import DATA, run_stage

TRIES = 2
NUM_START_IMAGES = 200  # that a model's start is fitted to here
COLUMNS = ("Model", "ms per image and pass", "Passes", "Images", "Core seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=PROFILES, default="cpu")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--images", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    params, arrays = load_params(), load_arrays(DATA)
    start, images = (torch.from_numpy(each.copy()) for each in (arrays.train[:NUM_START_IMAGES], arrays.test))
    names: list[str] = given.models or [*params.suite]
    rows = [row_of(params, given.profile, name, start, images[: given.images]) for name in names]
    print(tabulate(rows, COLUMNS, tablefmt="github", floatfmt=".1f"))


def row_of(
    params: Params, profile: str, name: str, start: Images, images: Images
) -> tuple[str, float, int, int, float]:
    """The columns of one model; importance samples count as passes."""
    model = build_scored_model(params, name, profile, CIFAR10).eval()
    if isinstance(model, GradientTrained):
        model.prepare(start, generator_for(0))
    config, counts = evaluation_config(params, name, profile), params.common_config(profile).evaluation
    size, seconds = min(config.batch_size, len(images)), list[float]()
    for _ in range(TRIES):
        began = time.process_time()
        starts = range(0, len(images), size)
        score_images(model.log_likelihood, images, starts, size, 0, Stream.EVALUATION)
        seconds.append((time.process_time() - began) / len(images))
    passes, scored = config.num_draws + config.num_importance_samples, counts.num_test_images + counts.num_train_images
    return name, 1e3 * min(seconds), passes, scored, min(seconds) * passes * scored


if __name__ == "__main__":
    run_stage(main)
