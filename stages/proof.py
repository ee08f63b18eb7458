"""Compresses every test image with one exact model, and decodes each file in a process that has nothing else.

No part of `dvc repro`: see proof/dvc.yaml. A process that was killed goes on behind the last file that it proved.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import torch

from dgm.coding.alone import Coder, decode_alone
from dgm.coding.codec import Track
from dgm.coding.proof import Proven
from dgm.coding.resumable import IMAGES_IN_FILE, all_sha256, prove_files
from dgm.config.params import load_params
from dgm.data.arrays import load_arrays
from dgm.data.verify import sha256_of_array
from dgm.errors import StageError
from dgm.fingerprints import coder_code, current_key, fingerprint, training_key
from dgm.model_api.contracts import AutoregressiveModel
from dgm.runs.atomic import array_digest, file_digest, key_of
from dgm.runs.checked import write_json
from dgm.runs.files import RunFiles, project_root
from dgm.runs.locks import FileLock, LockHeldError
from dgm.runs.nats import scored_nats
from dgm.runs.progress import track
from dgm.runs.proof_records import TestSetProof
from dgm.runs.weights import load_trained
from dgm.settings import build_model
from dgm.types import CIFAR10, Images
from dgm.units import nats_to_bits_per_subpixel
from stages.cli import DATA, parse_arguments, run_stage
from stages.device import prepare_device


def main() -> None:
    arguments = parse_arguments(__doc__)
    name, profile = arguments.model, arguments.profile
    params, files = load_params(), RunFiles(profile, name)
    device = prepare_device(params.common_config(profile).run, arguments.device, is_incremental=True)
    model = build_model(params, name, profile, CIFAR10)
    if not isinstance(model, AutoregressiveModel):
        raise StageError(f"{name} has no exact conditionals: only autoregressive models are decoded")
    weights_sha256 = load_trained(files, model, training_key(params, name, profile))
    model.to(device)
    nats = scored_nats(files, CIFAR10, current_key(params, name, profile), weights_sha256)
    code = fingerprint("compress", name)
    images = torch.from_numpy(load_arrays(DATA).test[: len(nats)].copy())
    coder = Coder(model, name, files.weights, coder_code(name))
    key = key_of(f"{coder.identity:016x}", array_digest(nats), code, str(IMAGES_IN_FILE))
    scratch = project_root() / ".scratch" / profile / name
    lock = FileLock(scratch / "proof.lock")
    try:
        lock.acquire(wait_seconds=0)
    except LockHeldError as error:
        raise StageError(f"{name} ({profile}): process {error.holder} is proving it already") from None
    try:
        for left in scratch.glob("proof-*"):
            if left.name != f"proof-{key}":  # of other weights or other code
                shutil.rmtree(left)
        record = prove_all(coder, images, nats, files, scratch / f"proof-{key}", code)
        shutil.rmtree(scratch / f"proof-{key}")
    finally:
        lock.release(remove=True)
    print(
        f"{name} ({profile}): all {record.num_images} test images decoded from {record.file_bytes} bytes, "
        f"{record.compressed_bits_per_subpixel:.4f} bits per sub-pixel, claimed "
        f"{record.claimed_bits_per_subpixel:.4f}; {record.encode_core_seconds:.0f} s of one core to encode, "
        f"{record.decode_core_seconds:.0f} s to decode"
    )


def prove_all(
    coder: Coder, images: Images, nats: np.ndarray, files: RunFiles, scratch: Path, code: str
) -> TestSetProof:
    """Proves every file in `scratch`, moves them to the run's folder when all are, and writes the record."""

    def bar(title: str) -> Track:
        return lambda steps: track(steps, coder.model.spec.num_subpixels, f"encode {coder.name}, {title}", "sub-pixel")

    paths: list[Path] = []
    found: list[Proven] = []
    for path, proven in prove_files(coder, images, nats, scratch, decode_alone, bar):
        paths.append(path)
        found.append(proven)
        count = min(len(found) * IMAGES_IN_FILE, len(images))
        print(f"{coder.name} ({files.profile}): {count:,} images decoded", file=sys.stderr, flush=True)
    num_bytes = sum(proven.file_bytes for proven in found)
    record = TestSetProof(
        model=files.model,
        profile=files.profile,
        num_images=len(images),
        num_files=len(found),
        file_bytes=num_bytes,
        compressed_bits_per_subpixel=8 * num_bytes / (len(images) * coder.model.spec.num_subpixels),
        claimed_bits_per_subpixel=-float(nats_to_bits_per_subpixel(nats.mean(), coder.model.spec)),
        encode_core_seconds=sum(proven.encode_core_seconds for proven in found),
        decode_core_seconds=sum(proven.decode_core_seconds for proven in found),
        device=str(coder.model.device),
        decoded_sha256=sha256_of_array(images.numpy()),  # that of each file's images was compared
        weights_sha256=file_digest(files.weights),
        files_sha256=all_sha256(paths),
        test_nats_sha256=array_digest(nats),
        code=code,
    )
    shutil.rmtree(files.proof_files, ignore_errors=True)
    files.proof_files.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(path, files.proof_files / path.name)
    write_json(files.proof, record)
    return record


if __name__ == "__main__":
    run_stage(main)
