"""CIFAR-10 -> data/train.npy, data/test.npy: fetched, verified bit for bit, written whole or not at all."""

from __future__ import annotations

import argparse
from pathlib import Path

from dgm.config.params import load_params
from dgm.data.arrays import remove_leftovers, save_arrays
from dgm.data.download import fetch_cifar, find_arrays
from dgm.runs.atomic import check_writable
from stages.cli import DATA, run_stage

SCRATCH = Path(".scratch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--local-path", help="file or folder to use instead of data.local_path in params.yaml")
    arguments = parser.parse_args()
    local_path = load_params().data.local_path if arguments.local_path is None else arguments.local_path
    remove_leftovers(DATA, SCRATCH)
    there = find_arrays(DATA, announce) if local_path is None else None
    if there is not None and Path(there.source) == DATA.resolve():
        print(f"CIFAR-10 in {DATA}: verified, nothing to download")
        return
    check_writable(DATA / "train.npy", SCRATCH / "download.lock")
    fetched = there or fetch_cifar(local_path, announce)
    save_arrays(DATA, fetched.arrays, SCRATCH)
    print(f"CIFAR-10 from {fetched.source}: verified, written to {DATA}/train.npy and {DATA}/test.npy")


def announce(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run_stage(main)
