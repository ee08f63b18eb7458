"""Records of what was proven of a trained model: the checks at real size, and all test images decoded.

Both say what they are proofs of: `test_nats_sha256` is the digest of the figures of the test images, as in Metrics,
and `code` that of the code that the proof has run. The report counts a proof only if both are those of its row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dgm.runs.checked import CHECKED, read_json
from dgm.runs.fields import Count, NumTestImages, PositiveBits, PositiveCount, Seconds, Sha256, Text
from dgm.small_files import is_there
from dgm.types import CIFAR10


@dataclass(frozen=True, config=CHECKED)
class Conformance:
    """conformance/<model>.json: what was asked of the trained model at 32x32 in float64, all of it answered well.

    num_changed_subpixels: changed by one level and to the far end each; num_replaced_endings: places of the order from
    which on all was replaced; both 0 for models without conditionals. num_images_in_company: how many were scored
    beside others.
    """

    model: Text
    profile: Text
    checks: Annotated[list[Text], Field(min_length=1)]
    num_changed_subpixels: Count
    num_replaced_endings: Count
    num_images_in_company: PositiveCount
    test_nats_sha256: Sha256
    code: Text


@dataclass(frozen=True, config=CHECKED)
class TestSetProof:
    """proof/<model>.json: test images written to files, each decoded in a process that had only it and the weights.

    *_core_seconds: processor time of one core for all of them, start of the processes not counted. decoded_sha256: of
    the decoded images, uint8 in their order; weights_sha256, files_sha256: of the weights' file and of the compressed
    files one after the other.
    """

    __test__ = False  # pytest: no class of tests

    model: Text
    profile: Text
    num_images: NumTestImages
    num_files: PositiveCount
    file_bytes: PositiveCount
    compressed_bits_per_subpixel: PositiveBits
    claimed_bits_per_subpixel: PositiveBits
    encode_core_seconds: Seconds
    decode_core_seconds: Seconds
    device: Text
    decoded_sha256: Sha256
    weights_sha256: Sha256
    files_sha256: Sha256
    test_nats_sha256: Sha256
    code: Text

    @model_validator(mode="after")
    def _is_consistent(self) -> TestSetProof:
        bits = 8 * self.file_bytes / (self.num_images * CIFAR10.num_subpixels)
        if abs(bits - self.compressed_bits_per_subpixel) > 1e-9 * bits:
            raise ValueError(f"file_bytes are {bits:.6g} bits per sub-pixel of num_images, not those that are said")
        return self


Proof = TypeVar("Proof", Conformance, TestSetProof)


def read_proof(path: Path, kind: type[Proof]) -> Proof | None:
    """The record, or None if the file is absent. Raises: StageError naming the file and the field that is wrong."""
    return read_json(path, kind) if is_there(path) else None
