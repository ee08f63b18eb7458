"""Can everything be written that a training and the stages after it will write? Asked first: hours are lost else."""

from __future__ import annotations

from pathlib import Path

from dgm.model_api.contracts import Model
from dgm.runs.atomic import check_writable
from dgm.runs.files import RunFiles
from dgm.runs.room import check_room
from dgm.types import NUM_TEST_IMAGES, NUM_TRAIN_IMAGES

REPORT_BYTES = 2**20  # of records, a curve and a picture
NATS_BYTES = 8 * (NUM_TEST_IMAGES + NUM_TRAIN_IMAGES)
PARTS_OF_CHECKPOINT = 4  # weights, their average and two moments
CHECKPOINTS = 3  # the newest, the one before, and one that is being written
COPIES = 3  # of the weights in runs/: one that is being written, the one before, and DVC's


def check_outputs(files: RunFiles, scratch: Path, model: Model) -> None:
    """scratch: folder of the checkpoints. Raises: StageError naming what cannot be written, and why."""
    check_writable(files.weights, files.nats("test"), files.compressed, files.curve, files.provenance, files.metrics)
    check_writable(files.figures, files.samples, files.compression, files.conformance)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    there = sum(path.stat().st_size for path in scratch.glob("*.pt"))
    checkpoints = max(0, CHECKPOINTS * PARTS_OF_CHECKPOINT * weights - there)
    check_room({files.weights: COPIES * weights + NATS_BYTES, files.report: REPORT_BYTES, scratch: checkpoints})
