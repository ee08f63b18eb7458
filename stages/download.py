"""CIFAR-10 -> data/train.npy, data/test.npy: fetched, verified bit for bit, written whole or not at all."""

from __future__ import annotations

from dgm.config import load_params
from dgm.data.arrays import DATA_FOLDER, save_arrays
from dgm.data.download import fetch_cifar
from stages.cli import run_stage


def main() -> None:
    params = load_params()
    fetched = fetch_cifar(params.data.local_path, announce=lambda line: print(line, flush=True))
    save_arrays(DATA_FOLDER, fetched.arrays)
    print(f"CIFAR-10 from {fetched.source}: verified, written to {DATA_FOLDER}/train.npy and {DATA_FOLDER}/test.npy")


if __name__ == "__main__":
    run_stage(main)
