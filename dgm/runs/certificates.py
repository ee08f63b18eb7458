"""What `dgm prove` found of one model: a JSON record, each value checked when made and when read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from dgm.errors import StageError
from dgm.runs.checked import CHECKED, read_json, write_json
from dgm.runs.fields import LARGEST_BITS

FOLDER = Path("reports") / "certificates"
FORMAT = 1
HOLDS, FAILS, IMPOSSIBLE = "✓", "✗", "–"
CIFAR10_TEST, OTHER_IMAGES, NO_IMAGES = "CIFAR-10 test images", "other images", "made-up images"
SUMS_TO_ONE = "probabilities sum to one"  # the check without which a figure is a claim

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Line = Annotated[str, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, config=CHECKED)
class CheckLine:
    """One line of the answer: ✓ holds, ✗ fails, – cannot be said of this form of model, or was not asked for."""

    mark: Annotated[str, Field(pattern=f"^[{HOLDS}{FAILS}{IMPOSSIBLE}]$")]
    check: Annotated[str, Field(min_length=1, max_length=60)]
    detail: Line

    def __str__(self) -> str:
        return f"{self.mark} {self.check}: {self.detail}"


@dataclass(frozen=True, config=CHECKED)
class Certificate:
    """certificates/<name>.json.

    likelihood: exact, dequantized, elbo, or claimed (a log_prob without conditionals). bits_per_subpixel: over
    num_scored images, the CIFAR-10 test images or others, None if none were; standard_error: of that mean over images.
    num_images: asked to be decoded by a fresh process; num_decoded: were. payload_bytes, header_bytes: of that file.
    code: SHA-256 by path; data: of the images scored. The tier follows from the rest.
    """

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    name: Annotated[str, Field(min_length=1, max_length=60)]
    target: Line
    weights_file: Line
    likelihood: Annotated[str, Field(pattern=r"^(exact|dequantized|elbo|claimed|importance-weighted \([0-9]+\))$")]
    tier: Line
    checks: list[CheckLine]
    bits_per_subpixel: Annotated[float, Field(ge=-LARGEST_BITS, le=LARGEST_BITS)] | None
    standard_error: NonNegativeFloat | None
    images: Annotated[str, Field(pattern=f"^({CIFAR10_TEST}|{OTHER_IMAGES}|{NO_IMAGES})$")]
    num_scored: NonNegativeInt
    num_decoded: NonNegativeInt
    num_images: NonNegativeInt
    payload_bytes: NonNegativeInt
    header_bytes: NonNegativeInt
    parameters: NonNegativeInt
    weights_bytes: PositiveInt
    code: dict[Annotated[str, Field(min_length=1, max_length=300)], Digest]
    weights: Digest
    data: Digest | None
    nats: Digest | None
    versions: dict[str, str]
    device: str
    seconds: NonNegativeFloat

    @model_validator(mode="after")
    def _is_consistent(self) -> Certificate:
        if not self.checks or not self.code:
            raise ValueError("a certificate without checks or without code certifies nothing")
        is_scored = [value is not None for value in (self.bits_per_subpixel, self.data, self.nats)]
        if any(is_scored) != all(is_scored) or any(is_scored) != (self.num_scored > 0):
            raise ValueError("num_scored, bits_per_subpixel, data and nats do not fit: all of them, or none")
        if self.tier != (expected := tier_of(self.checks, self.num_decoded)):
            raise ValueError(f"tier is {self.tier!r}, but the checks make it {expected!r}")
        return self


def tier_of(checks: list[CheckLine], num_decoded: int) -> str:
    """What the checks are worth together: nothing, once one fails; little, if nothing shows that the sum is one."""
    num_failed = sum(line.mark == FAILS for line in checks)
    if num_failed:
        return f"refuted ({num_failed} of {len(checks)} checks fail)"
    if num_decoded:
        return f"decoded ({num_decoded} image{'s' if num_decoded > 1 else ''})"
    is_normalised = any(line.check == SUMS_TO_ONE and line.mark == HOLDS for line in checks)
    return "contract-tested" if is_normalised else "scored only"


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Writes the certificate as JSON, whole or not at all."""
    write_json(path, certificate)


def read_certificate(path: Path) -> Certificate:
    """Raises: StageError naming the file and the field that is wrong."""
    return read_json(path, Certificate, "write it again with `dgm prove`")


def read_certificates(folder: Path) -> tuple[list[Certificate], list[str]]:
    """Those of a folder that can be read, in the order of their file names, and one line for each that cannot."""
    certificates, faults = list[Certificate](), list[str]()
    for path in sorted(folder.glob("*.json")):
        try:
            certificates.append(read_certificate(path))
        except StageError as error:
            faults.append(str(error))
    return certificates, faults
