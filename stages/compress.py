"""Compresses test images with one model to a real file, decodes it again, and compares its length with the claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from dgm.coding.alone import Coder, decode_alone
from dgm.coding.bound_proof import prove_bound
from dgm.coding.proof import prove
from dgm.config.params import Params, load_params
from dgm.data.arrays import load_arrays
from dgm.errors import StageError
from dgm.fingerprints import coder_code, current_key, fingerprint, training_key
from dgm.model_api.contracts import AutoregressiveModel
from dgm.model_api.latent_steps import can_compress
from dgm.runs.atomic import array_digest, check_writable
from dgm.runs.files import RunFiles
from dgm.runs.nats import scored_nats
from dgm.runs.progress import track
from dgm.runs.records import Compression, write_record
from dgm.runs.weights import load_trained
from dgm.settings import build_model, compression_config
from dgm.types import CIFAR10
from stages.cli import DATA, parse_arguments, run_stage
from stages.device import prepare_device


def main() -> None:
    given = parse_arguments(__doc__)
    compress(given.model, given.profile, load_params(), given.device)


def compress(name: str, profile: str, params: Params, device_name: str | None) -> None:
    """Writes the file and its record; a model that cannot be coded has only a record that says so.

    Raises: StageError if the model was not trained and scored, or the file does not prove its claim.
    """
    files = RunFiles(profile, name)
    run = params.common_config(profile).run
    device = prepare_device(run, device_name, is_incremental=True)
    check_writable(files.compressed, files.compression)
    model = build_model(params, name, profile, CIFAR10)
    if not can_compress(type(model)):
        files.compressed.parent.mkdir(parents=True, exist_ok=True)
        reason = "neither exact conditionals nor latents that bits-back coding could use"
        write_record(files.compression, Compression(name, profile, None, None, 0, None, None, reason))
        return
    weights_sha256 = load_trained(files, model, training_key(params, name, profile))
    model.to(device)
    images = torch.from_numpy(load_arrays(DATA).test[: compression_config(params, name, profile).num_images].copy())
    nats = scored_nats(files, CIFAR10, current_key(params, name, profile), weights_sha256)
    if len(nats) < len(images):
        raise StageError(
            f"models.{name}.{profile}.compression.num_images is {len(images)}, but only {len(nats)} test images"
            " were scored: lower it or raise num_test_images"
        )

    def bar(steps: Sequence[int]) -> Iterable[int]:
        unit = "sub-pixel" if isinstance(model, AutoregressiveModel) else "image"
        return track(steps, len(steps), f"code {name}", unit)

    coder = Coder(model, name, files.weights, coder_code(name))
    if isinstance(model, AutoregressiveModel):
        proven = prove(coder, images, nats[: len(images)], files.compressed, decode_alone, bar)
    else:
        proven = prove_bound(coder, images, files.compressed, decode_alone, run.seed, bar)
    record = Compression(
        model=name,
        profile=profile,
        compressed_bits_per_subpixel=proven.compressed_bits_per_subpixel,
        claimed_bits_per_subpixel=proven.claimed_bits_per_subpixel,
        num_images=len(images),
        file_bytes=proven.file_bytes,
        is_lossless=True,
        reason="decoded by a process that had the file and the weights only, pixel by pixel equal",
        initial_bits=proven.initial_bits,
        decoded_sha256=proven.decoded_sha256,
        test_nats_sha256=array_digest(nats),
        code=fingerprint("compress", name),
    )
    write_record(files.compression, record)
    initial = f" after {record.initial_bits} initial bits" if record.initial_bits else ""
    print(
        f"{name} ({profile}): {record.num_images} test images in {record.file_bytes} bytes, "
        f"{proven.compressed_bits_per_subpixel:.4f} bits per sub-pixel{initial}, claimed "
        f"{proven.claimed_bits_per_subpixel:.4f}; on one core {len(images) / proven.encode_core_seconds:.1f} images/s "
        f"to encode, {len(images) / proven.decode_core_seconds:.1f} to decode"
    )


if __name__ == "__main__":
    run_stage(main)
