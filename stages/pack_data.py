"""Packs CIFAR-10 without loss for a machine without network: FOLDER/part_1 and FOLDER/part_2, 50 MB each at most.

There, `python -m stages.download --local-path FOLDER` reads both parts and checks the SHA-256 of every batch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dgm.data.arrays import load_arrays
from dgm.data.shipment import pack_cifar
from stages.cli import DATA, run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="one that git ignores, e.g. .work/cifar10")
    folder = parser.parse_args().folder
    paths = pack_cifar(load_arrays(DATA), folder, lambda line: print(line, flush=True))
    print(f"{folder}: {len(paths)} files, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB")


if __name__ == "__main__":
    run_stage(main)
