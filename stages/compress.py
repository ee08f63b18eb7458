"""Compresses test images with one model to a real file, decodes it again, and compares its length with the claim."""

from __future__ import annotations

import time

import numpy as np
import torch

from dgm.coding.codec import compress, decompress, identity_of
from dgm.coding.container import read_compressed, write_compressed
from dgm.config import load_params
from dgm.data.arrays import load_arrays
from dgm.fingerprints import fingerprint
from dgm.model_api import AutoregressiveModel
from dgm.registry import build_model, compression_config
from dgm.runs import Compression, Provenance, RunFiles, StageError, key_of, read_record, write_record
from dgm.tracking.mlflow_store import open_run
from dgm.tracking.progress import track
from dgm.types import CIFAR10
from dgm.units import nats_to_bits_per_subpixel
from dgm.weights import load_weights
from stages.cli import DATA, parse_arguments, prepare_device, run_stage

LARGEST_DIFFERENCE = 0.005  # between the file and the claim, relative


def main() -> None:
    arguments = parse_arguments(__doc__)
    name, profile = arguments.model, arguments.profile
    params, files = load_params(), RunFiles(profile, name)
    prepare_device(params.common_config(profile).run)
    config = compression_config(params, name, profile)
    model = build_model(params, name, profile, CIFAR10)
    if not isinstance(model, AutoregressiveModel):
        reason = "no exact conditionals: this model is not autoregressive"
        files.compressed.parent.mkdir(parents=True, exist_ok=True)
        write_record(files.compression, Compression(name, profile, None, None, 0, None, None, reason))
        return
    load_weights(files.weights, model, f"run `python -m stages.train --model {name} --profile {profile}`")
    images = torch.from_numpy(load_arrays(DATA).test[: config.num_images].copy())
    identity = identity_of(model, name, key_of(fingerprint("compress", name)))

    began = time.monotonic()
    written = compress(model, images, identity, lambda steps: track(steps, 3072, f"compress {name}", "sub-pixel"))
    write_compressed(files.compressed, written)
    content = read_compressed(files.compressed, identity, name)
    decoded = decompress(model, content, lambda steps: track(steps, 3072, f"decompress {name}", "sub-pixel"))
    if not torch.equal(decoded, images):
        raise StageError(f"{files.compressed}: the decoded images differ from the test images")
    claimed_nats = -np.load(files.nats("test"), allow_pickle=False)[: len(images)].mean()
    claimed = float(nats_to_bits_per_subpixel(claimed_nats, CIFAR10))
    measured = content.num_bits / (len(images) * CIFAR10.num_subpixels)
    if abs(measured / claimed - 1) > LARGEST_DIFFERENCE:
        raise StageError(
            f"{files.compressed}: {measured:.4f} bits per sub-pixel, but the model claims {claimed:.4f} for these images: "
            f"over {LARGEST_DIFFERENCE:.1%} apart, so one of the two is wrong"
        )
    num_bytes = files.compressed.stat().st_size
    record = Compression(
        name, profile, measured, claimed, len(images), num_bytes, True, "decoded, pixel by pixel equal"
    )
    write_record(files.compression, record)
    provenance = read_record(files.provenance, Provenance)
    with open_run(profile, name, "", provenance.mlflow_run_id if provenance else None, "compress") as run:
        run.log_metrics({"compressed_bits_per_subpixel": measured, "compress_seconds": time.monotonic() - began}, 0)
    print(f"{name} ({profile}): {len(images)} test images in {num_bytes} bytes, {measured:.4f} bits per sub-pixel")


if __name__ == "__main__":
    run_stage(main)
