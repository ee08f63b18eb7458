"""Runs a stage as a command whose verification accepts the images in data/, for tests that have no CIFAR-10.

`python -m tests.data.on_images_that_are_there stages.train --model made --profile smoke`
"""

from __future__ import annotations

import runpy
import sys

import numpy as np

from dgm.data import verify


def main() -> None:
    verify.TRAIN_SHA256 = verify.sha256_of_array(np.load("data/train.npy"))
    verify.TEST_SHA256 = verify.sha256_of_array(np.load("data/test.npy"))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
