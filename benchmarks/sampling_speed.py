"""Images a second of every autoregressive model's three samplers: cached, parallel fixed point and naive.

Run from the project's root: python -m benchmarks.sampling_speed [--runs FOLDER]. One process, one thread, one after
the other, so that the ratios of a row are of the same machine. Prints and writes benchmarks/sampling_speed.md.

Cached: whole images, from scratch. Naive: the whole network again for each sub-pixel; every sub-pixel costs the same,
so a few are timed and the rest is extrapolated. Fixed point: until nothing changes, or, where that takes longer than
its budget, extrapolated from the share of leading sub-pixels that a pass no longer changed.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

from dgm.config.params import Params, load_params
from dgm.errors import StageError
from dgm.model_api.ancestral import Conditionals, RecomputedConditionals, invert_distribution
from dgm.model_api.contracts import AutoregressiveModel
from dgm.models.pixelcnn_pp.model import PixelCNNpp, PixelCNNppConfig
from dgm.registry import MODELS
from dgm.runs.atomic import write_text
from dgm.runs.files import RunFiles
from dgm.runs.weights import load_weights
from dgm.sampling.fixed_point import fixed_point_passes
from dgm.settings import build_model
from dgm.types import CIFAR10

NUM_IMAGES = 16
NUM_NAIVE_SUBPIXELS = 3
FIXED_POINT_SECONDS = 4.0
LEAST_RATIO, LEAST_RATIO_LARGE, MOST_SECONDS_LARGE = 20, 50, 20.0
LARGE = "pixelcnn_pp, 40 filters"
REPORT = Path(__file__).parent / "sampling_speed.md"
LARGE_CONFIG = PixelCNNppConfig(
    num_filters=40, num_resnets=2, num_stages=3, num_mixtures=10, dropout=0.0, weight_norm=False, num_init_images=0
)


@dataclass(frozen=True)
class Speed:
    """Seconds that NUM_IMAGES images take; is_extrapolated: the fixed point did not end within its budget."""

    name: str
    weights: str
    num_parameters: int
    cached_seconds: float
    naive_seconds: float
    fixed_point_seconds: float
    num_passes: int
    is_extrapolated: bool

    @property
    def ratio(self) -> float:
        """How many times faster the cached sampler is than the naive one."""
        return self.naive_seconds / self.cached_seconds


def seconds_of_steps(conditionals: Conditionals, uniforms: Tensor) -> float:
    """Seconds to draw as many sub-pixels as `uniforms` has columns."""
    began = time.perf_counter()
    for column in uniforms.unbind(dim=1):
        conditionals.push(invert_distribution(conditionals.log_pmf(), column))
    return time.perf_counter() - began


def cached_seconds(model: AutoregressiveModel, uniforms: Tensor) -> float:
    """Whole images, with the preparation of the caches."""
    seconds_of_steps(model.conditionals(len(uniforms)), uniforms[:, :6])
    began = time.perf_counter()
    seconds_of_steps(model.conditionals(len(uniforms)), uniforms)
    return time.perf_counter() - began


def naive_seconds(model: AutoregressiveModel, uniforms: Tensor) -> float:
    """Whole images, extrapolated from a few sub-pixels after one that warms up."""
    conditionals = RecomputedConditionals(model, len(uniforms))
    seconds_of_steps(conditionals, uniforms[:, :1])
    timed = seconds_of_steps(conditionals, uniforms[:, 1 : 1 + NUM_NAIVE_SUBPIXELS])
    return timed / NUM_NAIVE_SUBPIXELS * uniforms.shape[1]


def fixed_point_seconds(
    model: AutoregressiveModel, uniforms: Tensor, budget: float = FIXED_POINT_SECONDS
) -> tuple[float, int, bool]:
    """Seconds, passes, and whether both are extrapolated because the budget ran out first."""
    order, before = model.order(), torch.zeros(uniforms.shape, dtype=torch.uint8)
    num_settled, num_passes, seconds, began = 0, 0, 0.0, time.perf_counter()
    for num_passes, images in enumerate(fixed_point_passes(model, uniforms), start=1):
        flat = images.flatten(1)[:, order]
        is_same = (flat == before).all(dim=0)
        seconds = time.perf_counter() - began
        if bool(is_same.all()):
            return seconds, num_passes, False
        num_settled, before = max(1, int((~is_same).int().argmax())), flat
        if seconds > budget and num_passes > 1:
            break
    expected = min(round(num_passes * uniforms.shape[1] / num_settled), uniforms.shape[1] + 1)  # never more than D + 1
    return seconds * expected / num_passes, expected, True


@torch.no_grad()
def measure(name: str, weights: str, model: AutoregressiveModel, seed: int = 0) -> Speed:
    """All three samplers on the same noise."""
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(NUM_IMAGES, model.spec.num_subpixels, generator=generator, dtype=torch.float64)
    passes = fixed_point_seconds(model, uniforms)
    return Speed(
        name,
        weights,
        model.num_parameters(),
        cached_seconds(model, uniforms),
        naive_seconds(model, uniforms),
        *passes,
    )


def randomise(model: AutoregressiveModel) -> None:
    """Weights that make every sub-pixel depend on others, also where training begins at zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))


def models(params: Params, runs: Path) -> Iterator[tuple[str, str, AutoregressiveModel]]:
    """Name, origin of the weights, model: every autoregressive one at its cpu size, and the larger PixelCNN++."""
    torch.manual_seed(0)
    large = PixelCNNpp(CIFAR10, LARGE_CONFIG)
    randomise(large)
    yield LARGE, "random", large
    for name in sorted(MODELS):
        torch.manual_seed(0)
        model = build_model(params, name, "cpu", CIFAR10)
        if not isinstance(model, AutoregressiveModel):
            continue
        weights = "trained"
        try:
            load_weights(RunFiles("cpu", name, runs).weights, model, "")
        except StageError:
            weights = "random"
            randomise(model)
        yield name, weights, model


def table(speeds: list[Speed]) -> str:
    """Markdown: images per second and ratios, the slowest ratio first."""
    columns = ("Model", "Parameters", "Weights", "Cached", "Fixed point", "Passes", "Naive", "Cached ÷ naive",
               "Cached ÷ fixed point", "Seconds for 16, cached")  # fmt: skip
    cells = [
        [
            speed.name.replace("_", r"\_"),
            f"{speed.num_parameters:,}",
            speed.weights,
            f"{NUM_IMAGES / speed.cached_seconds:.3g}",
            ("≈ " if speed.is_extrapolated else "") + f"{NUM_IMAGES / speed.fixed_point_seconds:.2g}",
            ("≈ " if speed.is_extrapolated else "") + f"{speed.num_passes:,}",
            f"{NUM_IMAGES / speed.naive_seconds:.2g}",
            f"{speed.ratio:,.0f}",
            f"{speed.fixed_point_seconds / speed.cached_seconds:.3g}",
            f"{speed.cached_seconds:.1f}",
        ]
        for speed in sorted(speeds, key=lambda speed: speed.ratio)
    ]
    return tabulate(cells, columns, tablefmt="pipe", disable_numparse=True, colalign=["left", *["right"] * 9])


def bars(speeds: list[Speed]) -> list[str]:
    """What had to be reached, and whether it was."""
    slow = [f"{speed.name} ({speed.ratio:.0f})" for speed in speeds if speed.ratio < LEAST_RATIO]
    large = next(speed for speed in speeds if speed.name == LARGE)
    is_fast = large.ratio >= LEAST_RATIO_LARGE and large.cached_seconds <= MOST_SECONDS_LARGE
    return [
        f"* every model at least {LEAST_RATIO} times its naive sampler: "
        + (f"missed by {', '.join(slow)}" if slow else "reached"),
        f"* {LARGE}: at least {LEAST_RATIO_LARGE} times and {NUM_IMAGES} images in at most {MOST_SECONDS_LARGE:.0f} s: "
        + ("reached" if is_fast else "missed")
        + f" ({large.ratio:.0f} times, {large.cached_seconds:.1f} s)",
    ]


def cpu_name() -> str:
    """The processor's own name, or what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def report(speeds: list[Speed]) -> str:
    """What benchmarks/sampling_speed.md says."""
    lines = [
        f"# Sampling speed, images per second, {NUM_IMAGES} images at once",
        "",
        f"{cpu_name()}, {torch.get_num_threads()} torch thread, torch {torch.__version__.split('+')[0]}, float32.",
        f"Naive: extrapolated from {NUM_NAIVE_SUBPIXELS} sub-pixels of {CIFAR10.num_subpixels:,}.",
        "Fixed point: the same images by passes of the whole network until none changes; ≈ extrapolated where",
        f"{FIXED_POINT_SECONDS:.0f} s were not enough, coarse where few passes fit, never over "
        f"{CIFAR10.num_subpixels + 1:,} passes. They depend on the weights: trained (cpu profile), or",
        "random (noise on the initial ones). Made by `python -m benchmarks.sampling_speed`.",
    ]
    return "\n".join([*lines, "", table(speeds), "", *bars(speeds), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("."), help="a project whose runs/ has trained weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    speeds: list[Speed] = []
    for name, weights, model in models(load_params(), arguments.runs):
        speeds.append(measure(name, weights, model))
        print(f"{name}: {speeds[-1].cached_seconds:.1f} s cached, {speeds[-1].ratio:.0f} x naive", flush=True)
        write_text(REPORT, report(speeds))
    print(report(speeds))


if __name__ == "__main__":
    main()
