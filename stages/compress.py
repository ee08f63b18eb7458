"""Compresses test images with one model to a real file, decodes it again, and compares its length with the claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from dgm.coding.bound_proof import prove_bound
from dgm.coding.codec import identity_of
from dgm.coding.proof import prove
from dgm.config.params import load_params
from dgm.data.arrays import load_arrays
from dgm.errors import StageError
from dgm.fingerprints import coder_code
from dgm.model_api.contracts import AutoregressiveModel, LatentVariableModel
from dgm.model_api.latent_steps import can_compress
from dgm.runs.atomic import check_writable, read_array
from dgm.runs.files import RunFiles
from dgm.runs.progress import track
from dgm.runs.records import Compression, write_record
from dgm.runs.weights import load_weights
from dgm.settings import build_model, compression_config
from dgm.types import CIFAR10
from stages.cli import DATA, parse_arguments, run_stage
from stages.device import prepare_device


def main() -> None:
    arguments = parse_arguments(__doc__)
    name, profile = arguments.model, arguments.profile
    params, files = load_params(), RunFiles(profile, name)
    run = params.common_config(profile).run
    device = prepare_device(run, arguments.device, is_incremental=True)
    check_writable(files.compressed, files.compression)
    model = build_model(params, name, profile, CIFAR10)
    if not can_compress(type(model)):
        files.compressed.parent.mkdir(parents=True, exist_ok=True)
        reason = "neither exact conditionals nor latents that bits-back coding could use"
        write_record(files.compression, Compression(name, profile, None, None, 0, None, None, reason))
        return
    load_weights(files.weights, model, f"run `python -m stages.train --model {name} --profile {profile}`")
    model.to(device)
    images = torch.from_numpy(load_arrays(DATA).test[: compression_config(params, name, profile).num_images].copy())
    identity = identity_of(model, name, coder_code(name))

    def bar(steps: Sequence[int]) -> Iterable[int]:
        unit = "sub-pixel" if isinstance(model, AutoregressiveModel) else "image"
        return track(steps, len(steps), f"code {name}", unit)

    if isinstance(model, LatentVariableModel):
        record = prove_bound(model, images, files.compressed, identity, name, profile, run.seed, bar)
    else:
        assert isinstance(model, AutoregressiveModel)
        claimed_nats = claims(files, name, profile, len(images))
        record = prove(model, images, claimed_nats, files.compressed, identity, name, profile, bar)
    write_record(files.compression, record)
    initial = f" after {record.initial_bits} initial bits" if record.initial_bits else ""
    print(
        f"{name} ({profile}): {record.num_images} test images in {record.file_bytes} bytes, "
        f"{record.compressed_bits_per_subpixel:.4f} bits per sub-pixel{initial}, "
        f"claimed {record.claimed_bits_per_subpixel:.4f}"
    )


def claims(files: RunFiles, name: str, profile: str, num_images: int) -> np.ndarray:
    """Nats of the first test images by evaluation. Shapes: -> (num_images,). Raises: StageError if it scored fewer."""
    nats = read_array(files.nats("test"), f"run `python -m stages.evaluate --model {name} --profile {profile}`")
    if len(nats) < num_images:
        raise StageError(
            f"models.{name}.{profile}.compression.num_images is {num_images}, but only {len(nats)} test images"
            " were scored: lower it or raise num_test_images"
        )
    return nats[:num_images]


if __name__ == "__main__":
    run_stage(main)
