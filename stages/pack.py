"""Packs what suites left on this disk into parts, as a suite does at its end: a later call brings further weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from dgm.config.params import PROFILES
from dgm.suite.packing import num_parts, pack_suite
from stages.cli import run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", required=True, choices=PROFILES)
    parser.add_argument("--out", type=Path, required=True, help="folder of the parts")
    parser.add_argument("--first", type=int, default=1, help="number of the first part to write (default: 1)")
    parser.add_argument("--parts", type=int, default=4, help="how many to write (default: 4)")
    given = parser.parse_args()
    paths = pack_suite(given.profile, given.out, given.first, given.parts)
    print(f"{given.out}: {num_parts(paths)}")


if __name__ == "__main__":
    run_stage(main)
