"""How far each row is proven, and which rows ask for a proof: computed from the records, never typed.

A proof counts only for the figure in its row: it says which figures of the test images it is a proof of, and which
code it has run. Both must be those of now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dgm.data.verify import TEST_SHA256
from dgm.reporting.published import PIXELCNN_PP_TABLE, PIXELRNN_TABLE
from dgm.reporting.rows import Row
from dgm.runs.proof_records import Conformance, TestSetProof
from dgm.runs.records import Compression
from dgm.types import NUM_TEST_IMAGES

CONTRACT_TESTED, UNTESTED, PUBLISHED_ONLY = "contract-tested", "untested", "published only"


@dataclass(frozen=True)
class BestKnown:
    """The smallest figure on CIFAR-10 that is known to us for a kind of likelihood, in bits per sub-pixel."""

    bits_per_subpixel: float
    source: str


# A smaller figure of ours would be a discovery or a fault, and is marked. Kind of likelihood -> figure.
BEST_KNOWN: dict[str, BestKnown] = {
    "exact": BestKnown(2.80, "Sparse Transformer: Child, Gray, Radford & Sutskever (2019), arXiv 1904.10509"),
    "lower_bound": BestKnown(2.35, "W-PCDM: Li, Basri & Kluger (2024), ICLR, arXiv 2501.06999"),
}
_TABLES: dict[str, tuple[str, ...]] = {
    "the PixelRNN paper's table": tuple(row.key for row in PIXELRNN_TABLE),
    "the PixelCNN++ paper's table": tuple(row.key for row in PIXELCNN_PP_TABLE),
}


def decoded_images(row: Row) -> int:
    """Test images that were decoded from a file whose length confirms the row's figure; 0 if none is current."""
    counts = [0]
    if (compression := row.compression) is not None and compression.is_lossless and _is_current(row, compression):
        counts.append(compression.num_images)
    if (proof := row.proof) is not None and _is_current(row, proof):
        is_all = proof.num_images == NUM_TEST_IMAGES
        if not is_all or proof.decoded_sha256 == TEST_SHA256:
            counts.append(proof.num_images)
    return max(counts)


def tier(row: Row) -> str:
    """decoded (n images) > contract-tested > untested, of a row with our figure; published only without one."""
    if row.metrics is None:
        return PUBLISHED_ONLY
    if count := decoded_images(row):
        return f"decoded ({count:,} images)"
    return UNTESTED if current_conformance(row) is None else CONTRACT_TESTED


def _is_current(row: Row, record: Compression | Conformance | TestSetProof) -> bool:
    if row.metrics is None or row.is_current is not True or record.test_nats_sha256 is None:
        return False
    expected = row.codes.prove if isinstance(record, Conformance) else row.codes.compress
    return record.test_nats_sha256 == row.metrics.test_nats_sha256 and record.code == expected


def current_conformance(row: Row) -> Conformance | None:
    """What was asked of the weights that the row's figure is of; None if it was another model or other checks."""
    return row.conformance if row.conformance is not None and _is_current(row, row.conformance) else None


def with_alarms(rows: Sequence[Row]) -> list[Row]:
    """The rows, those with `alarm` whose figure is too good to be believed as it stands.

    That is one below the best figure known for its kind, and one below all others of a table of which no file has
    been decoded.
    """
    tables = {**_TABLES, "all models": tuple(row.model for row in rows)}
    bits = {row.model: row.test_bits for row in rows if row.test_bits is not None}
    return [replace(row, alarm=_alarm(row, bits, tables)) for row in rows]


def _alarm(row: Row, bits: Mapping[str, float], tables: Mapping[str, Sequence[str]]) -> str | None:
    if row.metrics is None:
        return None
    reasons: list[str] = []
    best, figure = BEST_KNOWN[row.metrics.kind], row.metrics.test_bits_per_subpixel
    if figure < best.bits_per_subpixel:
        reasons.append(f"below {best.bits_per_subpixel:.2f}, the best figure known of its kind ({best.source})")
    for title, models in tables.items():
        others = [bits[model] for model in models if model in bits and model != row.model]
        if row.model in models and others and figure < min(others) and not decoded_images(row):
            reasons.append(f"below all others of {title}, and no file of it was decoded")
            break
    return f"{row.published.name}, {figure:.3f}, is " + "; and ".join(reasons) if reasons else None
