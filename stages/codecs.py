"""Compresses test images with general lossless codecs, reads them again, and writes a table of their sizes."""

from __future__ import annotations

import argparse

from dgm.coding.reference import codecs, measure
from dgm.config.params import PROFILES, load_params
from dgm.data.arrays import load_arrays
from dgm.runs.atomic import check_writable
from dgm.runs.files import reference_codecs_file
from dgm.runs.records import ReferenceCodec, write_reference_codecs
from stages.cli import DATA, run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", required=True, choices=PROFILES)
    profile = parser.parse_args().profile
    check_writable(reference_codecs_file(profile))
    images = load_arrays(DATA).test[: load_params().common_config(profile).codecs.num_images]
    records: list[ReferenceCodec] = []
    for codec in codecs():
        records.append(measure(codec, images))
        print(
            f"{codec.name}: {records[-1].file_bits_per_subpixel:.4f} bits per sub-pixel in files of one image, "
            f"{records[-1].joined_bits_per_subpixel:.4f} as one picture",
            flush=True,
        )
    write_reference_codecs(reference_codecs_file(profile), records)


if __name__ == "__main__":
    run_stage(main)
