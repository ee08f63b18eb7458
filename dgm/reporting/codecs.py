"""The table of general lossless codecs on the same test images: the baselines for the models' figures."""

from __future__ import annotations

from collections.abc import Sequence

from dgm.reporting.tables import Column, Table, make_table
from dgm.runs.records import ReferenceCodec

UNIT_NOTE = (
    "Bits per sub-pixel of whole files, headers included, smaller is better; every file was read back unchanged."
)
COLUMNS: tuple[Column[ReferenceCodec], ...] = (
    Column("Codec", lambda codec: codec.codec),
    Column("Settings", lambda codec: codec.settings),
    Column("Version", lambda codec: f"{codec.library} in {codec.package}"),
    Column("One file per image", lambda codec: f"{codec.file_bits_per_subpixel:.3f}", is_number=True),
    Column("All in one picture", lambda codec: f"{codec.joined_bits_per_subpixel:.3f}", is_number=True),
)


def codec_table(codecs: Sequence[ReferenceCodec]) -> Table:
    """One row per codec, in their order."""
    images = [f"The first {count:,} test images." for count in sorted({codec.num_images for codec in codecs})]
    return make_table(COLUMNS, codecs, UNIT_NOTE, images)
