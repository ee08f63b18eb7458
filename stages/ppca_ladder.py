"""Scores probabilistic PCA in closed form for a ladder of numbers of components, from one eigendecomposition.

For some of them it also fits PPCA by EM, and fails if the two disagree.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from dgm.config.params import PROFILES, load_params
from dgm.data.arrays import load_arrays
from dgm.data.splits import make_splits
from dgm.dequantization import dequantize
from dgm.errors import StageError
from dgm.models.ppca import PPCA, PPCAConfig, ladder
from dgm.runs.files import ladder_file
from dgm.runs.records import Rung, em_difference, write_rungs
from dgm.seeds import Stream, generator_for
from dgm.types import CIFAR10, Images
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
    em = {q: em_bits(train, x, q, config.num_em_iterations, common.run.seed) for q in config.em_components}
    rungs = [
        Rung(q, num_parameters(q), float(mean), float(error), len(bits), em.get(q))
        for q, mean, error in zip(config.num_components, means, errors, strict=True)
    ]
    check_agreement(rungs, config.em_tolerance_bits, f"common.{profile}.ppca_ladder")
    write_rungs(ladder_file(profile), rungs)
    best = min(rungs, key=lambda rung: rung.test_bits_per_subpixel)
    print(
        f"ppca_ladder ({profile}): down to {best.test_bits_per_subpixel:.4f} bits, at {best.num_components} components"
    )


def em_bits(train: Images, x: Tensor, num_components: int, num_iterations: int, seed: int) -> float:
    """Mean bits per sub-pixel of x, in grey levels, under PPCA fitted by EM on all of `train`.

    Shapes: train uint8 (M, C, H, W), x float (N, C, H, W).
    """
    model = PPCA(CIFAR10, PPCAConfig(num_components=num_components, method="em", num_fit_images=None))
    generator = generator_for(seed, Stream.PREPARATION)
    model.start(train, generator)
    for iteration in range(num_iterations):
        model.iterate(train, iteration, generator)
    nats = torch.cat([model.log_density(chunk) for chunk in x.split(2000)])
    return -nats_to_bits_per_subpixel(float(nats.mean()), CIFAR10)


def check_agreement(rungs: Sequence[Rung], tolerance_bits: float, where: str) -> None:
    """Prints how far EM and the closed form are apart. Raises: StageError naming a rung beyond the tolerance."""
    for rung in rungs:
        difference = em_difference(rung)
        if difference is None:
            continue
        print(f"ppca_ladder: {rung.num_components} components: EM is {difference:.1e} bits from the closed form")
        if not difference <= tolerance_bits:
            raise StageError(
                f"ppca_ladder: with {rung.num_components} components EM reaches {rung.em_test_bits_per_subpixel:.6f} "
                f"bits and the closed form {rung.test_bits_per_subpixel:.6f}, more than {tolerance_bits:.1e} apart; "
                f"raise {where}.num_em_iterations"
            )


def num_parameters(num_components: int) -> int:
    """Free parameters of PPCA with that many components."""
    config = PPCAConfig(num_components=num_components, method="closed_form", num_fit_images=None)
    with torch.device("meta"):
        return PPCA(CIFAR10, config).num_parameters()


if __name__ == "__main__":
    run_stage(main)
