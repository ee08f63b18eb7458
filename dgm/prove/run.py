"""`dgm prove`: all checks on one model, printed line by line, and the certificate; and the check of a certificate."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from dgm.data.arrays import load_arrays
from dgm.data.given_images import given_images
from dgm.data.verify import sha256_of_array
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel, DensityModel, Model
from dgm.model_api.scoring import Scored, score_images
from dgm.prove import checks
from dgm.prove.checks import guarded, line
from dgm.prove.file_proof import FileProof, prove_by_file
from dgm.prove.target import THEIRS, Target, described, find_target
from dgm.runs import certificates
from dgm.runs.atomic import array_digest, file_digest
from dgm.runs.certificates import Certificate, CheckLine, tier_of
from dgm.runs.checked import first_fault
from dgm.runs.fields import LARGEST_BITS
from dgm.runs.progress import clock, track
from dgm.runs.provenance import device_name, package_versions
from dgm.seeds import Stream
from dgm.types import CIFAR10, Images
from dgm.units import nats_to_bits_per_subpixel

CHECKED_IMAGES = 6  # that the short checks look at


@dataclass(frozen=True)
class Asked:
    """num_images: in the file; limit: images scored, None all; leak_seconds: that the search for a leak may take."""

    target: str
    weights: Path
    data: Path
    num_images: int = 1
    limit: int | None = None
    batch_size: int = 16
    leak_seconds: float = 45.0
    device: str = "cpu"


@dataclass(frozen=True)
class TestImages:
    """The images to score, None with the reason if there are none; kind: as in the certificate."""

    images: Images | None
    kind: str
    reason: str = ""


def prove(asked: Asked, say: Callable[[str], None]) -> Certificate:
    """Every check, each said as soon as it is known. Raises: StageError if the model cannot be loaded or run at all."""
    began = time.monotonic()
    _check_asked(asked)
    target = find_target(asked.target, asked.weights)
    model = target.load().to(asked.device)
    test = _test_images(asked, model)
    some = checks.made_up_images(model.spec, CHECKED_IMAGES) if test.images is None else test.images[:CHECKED_IMAGES]
    try:
        likelihood = model.log_likelihood(
            some[:2].to(model.device), torch.Generator(asked.device).manual_seed(0)
        ).method
    except THEIRS as error:
        raise StageError(f"{asked.target}: does not score images: {described(error, target.folder)}") from None
    lines = list[CheckLine]()

    def tell(check: str, answer: Callable[[], CheckLine]) -> None:
        lines.append(guarded(check, answer, target))
        say(str(lines[-1]))

    tell("determinism", lambda: checks.deterministic(model, some))
    tell("eval mode", lambda: checks.in_eval_mode(model, some))
    tell("batch independence", lambda: checks.independent_of_the_batch(model, some))
    tell("targets round-trip", lambda: checks.targets_round_trip(model, some))
    tell(certificates.SUMS_TO_ONE, lambda: checks.sums_to_one(model, some))
    tell("log_prob is the sum of log_pmf", lambda: checks.conditionals_add_up(model, some))
    tell("causality", lambda: checks.causal(target, asked.device, some, asked.leak_seconds))
    scored = list[Scored]()
    tell("test images scored", lambda: _score(model, test, asked, scored))
    proofs = list[FileProof]()
    tell("file decoded", lambda: _file(target, model, test, asked, proofs, say))
    if proofs:
        tell("causality in the file", lambda: line("causality in the file", proofs[0].is_causal, proofs[0].causality))
    try:
        certificate = _certificate(asked, target, model, test, likelihood, lines, scored, proofs)
    except ValidationError as error:  # e.g. a kind of likelihood that is none of ours
        raise StageError(f"{asked.target}: no certificate can be written: {first_fault(error)}") from None
    return replace(certificate, seconds=round(time.monotonic() - began, 1))


def _check_asked(asked: Asked) -> None:
    counts = (("--images", asked.num_images, 0), ("--limit", asked.limit, 0), ("--batch-size", asked.batch_size, 1))
    for name, value, least in counts:
        if value is not None and value < least:
            raise StageError(f"{name}: must be at least {least}, got {value}")
    if not math.isfinite(asked.leak_seconds) or asked.leak_seconds <= 0:
        raise StageError(f"--leak-seconds: must be a positive number, got {asked.leak_seconds}")
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise StageError("--device cuda: torch sees no GPU here")


def _test_images(asked: Asked, model: Model[Any]) -> TestImages:
    """The CIFAR-10 test images of a data folder, else images as `dgm score` takes them."""
    path, none = asked.data, certificates.NO_IMAGES
    if (path / "test.npy").is_file() and (path / "train.npy").is_file():
        if model.spec != CIFAR10:
            return TestImages(
                None, none, f"the model is one of {model.spec}, not of CIFAR-10 images; --data names others"
            )
        return TestImages(torch.from_numpy(load_arrays(path).test.copy()), certificates.CIFAR10_TEST)
    if not path.exists():
        return TestImages(
            None, none, f"no images at {path}: `dvc repro download` fetches CIFAR-10, --data names others"
        )
    return TestImages(given_images(path, model.spec).images, certificates.OTHER_IMAGES)


def _score(model: Model[Any], test: TestImages, asked: Asked, scored: list[Scored]) -> CheckLine:
    name = "test images scored"
    if test.images is None or asked.limit == 0:
        return line(name, None, test.reason or "--limit 0")
    images, size = test.images[: asked.limit], asked.batch_size
    starts = range(0, len(images), size)
    bar = track(starts, len(starts), "score", "batch")
    result = score_images(model.log_likelihood, images, bar, size, 0, Stream.EVALUATION, device=model.device)
    bits, error = _bits(model, result)
    if not abs(bits) <= LARGEST_BITS or not math.isfinite(error or 0.0):
        return line(name, False, f"{len(images):,} {test.kind}: a mean of {bits:.4g} bits per sub-pixel is no figure")
    scored.append(result)
    bound = "≤ " if result.method in ("dequantized", "elbo") else ""
    spread = "" if error is None else f" ± {error:.4f}"
    part = "" if len(images) == len(test.images) else f" of {len(test.images):,}"
    what = f"{len(images):,}{part} {test.kind}: {bound}{bits:.4f}{spread} bits per sub-pixel ({result.method})"
    noise = ", one draw of noise each" if isinstance(model, DensityModel) or result.method == "elbo" else ""
    lowest = float(nats_to_bits_per_subpixel(-result.nats.max(), model.spec))
    is_possible = result.method in ("dequantized", "elbo") or lowest >= 0
    if not is_possible:
        image = int(result.nats.argmax())
        return line(name, False, f"{what}; image {image} has a probability above one ({lowest:.4f} bits)")
    return line(name, True, what + noise)


def _bits(model: Model[Any], scored: Scored) -> tuple[float, float | None]:
    """Mean bits per sub-pixel and its standard error over images; None for one image."""
    bits = -nats_to_bits_per_subpixel(scored.nats, model.spec)
    return float(bits.mean()), float(bits.std()) / len(bits) ** 0.5 if len(bits) > 1 else None


def _file(
    target: Target,
    model: Model[Any],
    test: TestImages,
    asked: Asked,
    proofs: list[FileProof],
    say: Callable[[str], None],
) -> CheckLine:
    name = "file decoded"
    if not isinstance(model, AutoregressiveModel):
        reason = "a coder needs the conditionals of each sub-pixel, or for a bound its latents; this form has neither"
        return line(name, None, reason)
    if asked.num_images == 0:
        return line(name, None, "--images 0")
    images = checks.made_up_images(model.spec, asked.num_images) if test.images is None else test.images
    images = images[: asked.num_images].contiguous()
    seconds = _seconds_a_step(model, len(images)) * 2 * model.spec.num_subpixels
    passes = f"{model.spec.num_subpixels:,} steps to code and as many to decode"
    say(f"  file of {len(images)}: {passes}, about {clock(seconds)}")
    proofs.append(prove_by_file(target, model, images, [asked.data]))
    detail = proofs[0].detail + ("" if test.images is not None else "; made-up images, there are no others")
    return line(name, proofs[0].holds, detail)


@torch.no_grad()
def _seconds_a_step(model: AutoregressiveModel[Any], num_images: int) -> float:
    conditionals = model.conditionals(num_images)
    times = list[float]()
    for _ in range(min(4, model.spec.num_subpixels)):
        began = time.monotonic()
        conditionals.log_pmf()
        conditionals.push(torch.zeros(num_images, dtype=torch.int64, device=model.device))
        times.append(time.monotonic() - began)
    return min(times)


def _certificate(
    asked: Asked,
    target: Target,
    model: Model[Any],
    test: TestImages,
    likelihood: str,
    lines: list[CheckLine],
    scored: list[Scored],
    proofs: list[FileProof],
) -> Certificate:
    nats = scored[0].nats.numpy() if scored else None
    bits, error = _bits(model, scored[0]) if scored else (None, None)
    images = None if test.images is None or nats is None else test.images[: len(nats)].contiguous().numpy()
    is_decoded = bool(proofs) and proofs[0].holds and test.images is not None
    num_decoded = min(asked.num_images, len(test.images)) if is_decoded and test.images is not None else 0
    return Certificate(
        format=certificates.FORMAT,
        name=(asked.target.rpartition(":")[2] or asked.target)[:60],
        target=_portable(asked.target),
        weights_file=_portable(str(asked.weights)),
        likelihood=likelihood,
        tier=tier_of(lines, num_decoded),
        checks=lines,
        bits_per_subpixel=bits,
        standard_error=error,
        images=test.kind,
        num_scored=0 if nats is None else len(nats),
        num_decoded=num_decoded,
        num_images=asked.num_images,
        payload_bytes=proofs[0].payload_bytes if proofs else 0,
        header_bytes=proofs[0].header_bytes if proofs else 0,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights_bytes=asked.weights.stat().st_size,
        code=target.code(),
        weights=file_digest(asked.weights),
        data=None if images is None else sha256_of_array(images),
        nats=None if nats is None else array_digest(nats),
        versions=package_versions(),
        device=device_name(asked.device),
        seconds=0.0,
    )


def _portable(path: str) -> str:
    """A path as seen from here, so that a certificate names no folder of this machine above the working one."""
    if not Path(path).is_absolute():
        return path
    relative = os.path.relpath(path)
    return Path(path).name if relative.startswith("..") else relative
