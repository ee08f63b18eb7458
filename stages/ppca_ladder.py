"""Scores probabilistic PCA in closed form for a ladder of numbers of components, from one eigendecomposition.

For some of them it also fits PPCA by EM, and fails if the two disagree.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from dgm.config.params import PROFILES, load_params
from dgm.config.sections import PPCALadderConfig
from dgm.data.arrays import load_arrays
from dgm.data.splits import Splits, make_splits
from dgm.dequantization import dequantize
from dgm.distributions.gaussian import image_moments
from dgm.errors import StageError
from dgm.models.ppca import em_ladder, ladder, num_ppca_parameters
from dgm.runs.atomic import check_writable
from dgm.runs.files import ladder_file
from dgm.runs.records import Rung, em_difference, write_rungs
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
    prepare_device(common.run, "cpu")  # it needs no GPU, nor does a report of GPU results
    check_writable(ladder_file(profile))
    rungs = make_rungs(
        make_splits(load_arrays(DATA), common.run.num_training_images), common.ppca_ladder, common.run.seed
    )
    check_agreement(rungs, common.ppca_ladder.em_tolerance_bits, f"common.{profile}.ppca_ladder")
    write_rungs(ladder_file(profile), rungs)
    best = min(rungs, key=lambda rung: rung.test_bits_per_subpixel)
    print(
        f"ppca_ladder ({profile}): down to {best.test_bits_per_subpixel:.4f} bits, at {best.num_components} components"
    )


def make_rungs(splits: Splits, config: PPCALadderConfig, seed: int) -> list[Rung]:
    """PPCA on the test images for every number of components, in closed form and, for some, by EM.

    Raises: StageError naming the number of components if a log-likelihood is not finite.
    """
    train = torch.from_numpy(splits.train[: config.num_fit_images].copy())
    test = torch.from_numpy(splits.test[: config.num_test_images].copy())
    x = dequantize(test, generator_for(seed, Stream.EVALUATION))
    moments = image_moments(train)
    bits = -nats_to_bits_per_subpixel(ladder(moments, x, config.num_components), CIFAR10)
    means, errors = bits.mean(dim=0), bits.std(dim=0) / len(bits) ** 0.5
    em_nats = em_ladder(CIFAR10, moments, x, config.em_components, config.num_em_iterations, seed)
    scored = [*zip(config.num_components, bits.T, strict=True), *em_nats.items()]
    if bad := [q for q, values in scored if not values.isfinite().all()]:
        raise StageError(
            f"ppca_ladder: not finite with {bad[0]} components; raise num_fit_images or take fewer of them"
        )
    em = {q: -nats_to_bits_per_subpixel(float(nats.mean()), CIFAR10) for q, nats in em_nats.items()}
    return [
        Rung(q, num_ppca_parameters(CIFAR10.num_subpixels, q), float(mean), float(error), len(bits), em.get(q))
        for q, mean, error in zip(config.num_components, means, errors, strict=True)
    ]


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


if __name__ == "__main__":
    run_stage(main)
