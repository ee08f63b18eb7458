"""The table of general lossless codecs on the same test images: the ladder that the models' figures stand against."""

from __future__ import annotations

from collections.abc import Sequence

from dgm.reporting.tables import Table
from dgm.runs.records import ReferenceCodec

CODEC_COLUMNS = ("Codec", "Settings", "Version", "One file an image", "All in one picture")
CODEC_NOTE = (
    "Bits per sub-pixel of whole files, headers included, smaller is better; every file was read back unchanged."
)


def codec_table(codecs: Sequence[ReferenceCodec]) -> Table:
    """One row a codec, in their order."""
    cells = [
        [
            codec.codec,
            codec.settings,
            f"{codec.library} in {codec.package}",
            f"{codec.file_bits_per_subpixel:.3f}",
            f"{codec.joined_bits_per_subpixel:.3f}",
        ]
        for codec in codecs
    ]
    images = [f"The first {count:,} test images." for count in sorted({codec.num_images for codec in codecs})]
    return Table(CODEC_COLUMNS, cells, [CODEC_NOTE, *images])
