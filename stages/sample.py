"""Draws a fixed-seed grid of samples from one model; autoregressive ones also complete upper halves of test images."""

from __future__ import annotations

import time

import numpy as np
import torch

from dgm.config.params import Params, load_params
from dgm.config.sections import SamplingConfig
from dgm.data.arrays import load_arrays
from dgm.fingerprints import training_key
from dgm.model_api.ancestral import sample_ancestrally
from dgm.model_api.contracts import AutoregressiveModel, Model
from dgm.runs.atomic import check_writable
from dgm.runs.files import RunFiles
from dgm.runs.picture import save_picture
from dgm.runs.weights import load_trained
from dgm.sampling.completion import upper_half
from dgm.seeds import Stream, generator_for
from dgm.settings import build_model
from dgm.types import CIFAR10, Images
from stages.cli import DATA, parse_arguments, run_stage
from stages.device import prepare_device


def draw(model: Model, test: Images, config: SamplingConfig, seed: int) -> tuple[Images, Images]:
    """Samples, and completions of the upper halves of `test`: none if the model cannot complete.

    Shapes: test uint8 (M, C, H, W) -> uint8 (num_images, C, H, W), uint8 (M or 0, C, H, W).
    """
    generator = generator_for(seed, Stream.SAMPLING, device=model.device)
    if not isinstance(model, AutoregressiveModel) or (given := upper_half(model, test)) is None:
        return model.sample(config.num_images, generator, config.temperature), test[:0]
    # samples and completions in one batch: the cost of incremental sampling is in its steps, not in its batch
    free = torch.full((config.num_images, model.spec.num_subpixels), -1, device=model.device)
    given = torch.cat([free, given])
    uniforms = torch.rand(given.shape, generator=generator, device=model.device, dtype=torch.float64)
    with torch.no_grad():
        images = sample_ancestrally(model, model.conditionals(len(given)), uniforms, config.temperature, given)
    return images[: config.num_images], images[config.num_images :]


def main() -> None:
    given = parse_arguments(__doc__)
    sample(given.model, given.profile, load_params(), given.device)


def sample(name: str, profile: str, params: Params, device_name: str | None) -> None:
    """Draws from the trained model and writes the picture. Raises: StageError if it was not trained."""
    files, common = RunFiles(profile, name), params.common_config(profile)
    config, device = common.sampling, prepare_device(common.run, device_name, is_incremental=True)
    check_writable(files.samples)
    model = build_model(params, name, profile, CIFAR10)
    load_trained(files, model, training_key(params, name, profile))
    model.to(device).eval()
    test = torch.from_numpy(load_arrays(DATA).test[: config.num_completions].copy()).to(device)
    began = time.monotonic()
    samples, completions = draw(model, test, config, common.run.seed)
    seconds = time.monotonic() - began

    originals = test[: len(completions)]
    save_picture(files.samples, *(np.asarray(part.cpu()) for part in (samples, originals, completions)))
    print(f"{name} ({profile}): {config.num_images} samples in {seconds:.1f} s")


if __name__ == "__main__":
    run_stage(main)
