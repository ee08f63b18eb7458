"""Compresses test images with one model to a real file, decodes it again, and compares its length with the claim."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from dgm.coding.codec import identity_of
from dgm.coding.proof import prove
from dgm.config.params import load_params
from dgm.data.arrays import load_arrays
from dgm.errors import StageError
from dgm.fingerprints import coder_code
from dgm.model_api.contracts import AutoregressiveModel
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
    device = prepare_device(params.common_config(profile).run, arguments.device, is_incremental=True)
    check_writable(files.compressed, files.compression)
    model = build_model(params, name, profile, CIFAR10)
    if not isinstance(model, AutoregressiveModel):
        files.compressed.parent.mkdir(parents=True, exist_ok=True)
        reason = "no exact conditionals: this model is not autoregressive"
        write_record(files.compression, Compression(name, profile, None, None, 0, None, None, reason))
        return
    load_weights(files.weights, model, f"run `python -m stages.train --model {name} --profile {profile}`")
    model.to(device)
    images = torch.from_numpy(load_arrays(DATA).test[: compression_config(params, name, profile).num_images].copy())
    remedy = f"run `python -m stages.evaluate --model {name} --profile {profile}`"
    claimed_nats = read_array(files.nats("test"), remedy)
    if len(claimed_nats) < len(images):
        raise StageError(
            f"models.{name}.{profile}.compression.num_images is {len(images)}, but only {len(claimed_nats)} test images"
            " were scored: lower it or raise num_test_images"
        )
    claimed_nats = claimed_nats[: len(images)]
    identity = identity_of(model, name, coder_code(name))

    def bar(steps: Iterable[int]) -> Iterable[int]:
        return track(steps, CIFAR10.num_subpixels, f"code {name}", "sub-pixel")

    record = prove(model, images, claimed_nats, files.compressed, identity, name, profile, bar)
    write_record(files.compression, record)
    print(
        f"{name} ({profile}): {record.num_images} test images in {record.file_bytes} bytes, "
        f"{record.compressed_bits_per_subpixel:.4f} bits per sub-pixel, claimed {record.claimed_bits_per_subpixel:.4f}"
    )


if __name__ == "__main__":
    run_stage(main)
