"""Measures one model after one budget: bits of validation images, against what its training took.

No part of `dvc repro`: see scaling/dvc.yaml. The budget `one` is the row's own training.
"""

from __future__ import annotations

import torch
from pydantic import ValidationError

from dgm.config.params import Params, load_params
from dgm.data.arrays import load_arrays
from dgm.data.splits import make_splits
from dgm.errors import StageError
from dgm.evaluation.evaluate import evaluate_split
from dgm.fingerprints import scaling_key, training_key
from dgm.runs.atomic import check_writable
from dgm.runs.checked import first_fault, write_json
from dgm.runs.files import BudgetFiles
from dgm.runs.progress import track
from dgm.runs.records import Provenance, read_record
from dgm.runs.scaling_records import ScalingPoint
from dgm.runs.weights import load_trained
from dgm.settings import build_scored_model, evaluation_config
from dgm.types import CIFAR10
from stages.budget import num_scored, with_budget, with_budget_option
from stages.cli import DATA, make_parser, run_stage
from stages.device import prepare_device


def main() -> None:
    given = with_budget_option(make_parser(__doc__, can_pause=False)).parse_args()
    files = BudgetFiles(given.profile, given.model, budget=given.budget)
    point = measure(files, with_budget(load_params(), given.model, given.profile, given.budget), given.device)
    write_json(files.scaling, point)
    print(
        f"{point.model} ({point.profile}, budget {point.budget}): {point.validation_bits_per_subpixel:.4f} bits per "
        f"sub-pixel of {point.num_images:,} validation images after {point.training_flops:.3g} operations"
    )


def measure(files: BudgetFiles, params: Params, device_name: str | None) -> ScalingPoint:
    """The figure of the trained weights, scored as test images are. params: of that budget.

    Raises: StageError if the weights are absent or of other settings or code, if the model is fitted, or if the figure
    cannot be right.
    """
    name, profile = files.model, files.profile
    common = params.common_config(profile)
    check_writable(files.scaling)
    device = prepare_device(common.run, device_name)
    model = build_scored_model(params, name, profile, CIFAR10)
    weights_sha256 = load_trained(files, model, training_key(params, name, profile))
    cost = read_record(files.provenance, Provenance)
    if cost is None or cost.training_flops_per_image is None:
        raise StageError(f"{name} is fitted, not trained by gradient: its operations are not counted")
    model.to(device)
    splits = make_splits(load_arrays(DATA), common.run.num_training_images)
    images = torch.from_numpy(splits.validation[: num_scored(params, profile)].copy())
    config = evaluation_config(params, name, profile)
    scored = evaluate_split(model, images, config, common.run.seed, f"{name} validation", track)
    try:
        return ScalingPoint(
            model=name,
            profile=profile,
            budget=files.budget,
            likelihood=scored.method,
            validation_bits_per_subpixel=scored.bits_per_subpixel,
            standard_error=scored.standard_error,
            num_images=len(images),
            training_flops=cost.training_flops_per_image * cost.images_seen,
            num_steps=cost.num_steps,
            images_seen=cost.images_seen,
            train_seconds=cost.train_seconds,
            device=cost.device,
            key=scaling_key(params, name, profile, len(images)),
            weights_sha256=weights_sha256,
        )
    except ValidationError as error:
        raise StageError(f"{name} ({profile}, budget {files.budget}): {first_fault(error)}") from None


if __name__ == "__main__":
    run_stage(main)
