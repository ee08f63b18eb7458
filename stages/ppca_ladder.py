"""Scores probabilistic PCA in closed form for a ladder of numbers of components, from one eigendecomposition."""

from __future__ import annotations

import argparse

import torch

from dgm.config import PROFILES, load_params
from dgm.data.arrays import load_arrays
from dgm.data.splits import make_splits
from dgm.dequantization import dequantize
from dgm.models.ppca import PPCA, PPCAConfig, ladder
from dgm.reporting.ppca_ladder import Rung, ladder_file, write_rungs
from dgm.seeds import Stream, generator_for
from dgm.types import CIFAR10
from dgm.units import nats_to_bits_per_subpixel
from stages.cli import DATA, run_stage
from stages.device import prepare_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", required=True, choices=PROFILES)
    profile = parser.parse_args().profile
    common = load_params().common_config(profile)
    config = common.ppca_ladder
    prepare_device(common.run, "cpu")  # it needs no GPU, nor does a report of GPU results
    splits = make_splits(load_arrays(DATA), common.run.num_training_images)
    train = torch.from_numpy(splits.train[: config.num_fit_images].copy())
    test = torch.from_numpy(splits.test[: config.num_test_images].copy())
    x = dequantize(test, generator_for(common.run.seed, Stream.EVALUATION))
    bits = -nats_to_bits_per_subpixel(ladder(train, x, config.num_components), CIFAR10)
    means, errors = bits.mean(dim=0), bits.std(dim=0) / len(bits) ** 0.5
    rungs = [
        Rung(q, num_parameters(q), float(mean), float(error), len(bits))
        for q, mean, error in zip(config.num_components, means, errors, strict=True)
    ]
    write_rungs(ladder_file(profile), rungs)
    best = min(rungs, key=lambda rung: rung.test_bits_per_subpixel)
    print(
        f"ppca_ladder ({profile}): down to {best.test_bits_per_subpixel:.4f} bits, at {best.num_components} components"
    )


def num_parameters(num_components: int) -> int:
    """Free parameters of PPCA with that many components."""
    config = PPCAConfig(num_components=num_components, method="closed_form", num_fit_images=None)
    with torch.device("meta"):
        return PPCA(CIFAR10, config).num_parameters()


if __name__ == "__main__":
    run_stage(main)
