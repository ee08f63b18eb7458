"""CIFAR-10 -> data/train.npy, data/test.npy: fetched, verified bit for bit, written whole or not at all."""

from __future__ import annotations

import argparse

from dgm.config.params import load_params
from dgm.data.arrays import save_arrays
from dgm.data.download import fetch_cifar
from stages.cli import DATA, run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--local-path", help="archive or folder to use instead of data.local_path in params.yaml")
    local_path = parser.parse_args().local_path or load_params().data.local_path
    fetched = fetch_cifar(local_path, announce=lambda line: print(line, flush=True))
    save_arrays(DATA, fetched.arrays)
    print(f"CIFAR-10 from {fetched.source}: verified, written to {DATA}/train.npy and {DATA}/test.npy")


if __name__ == "__main__":
    run_stage(main)
