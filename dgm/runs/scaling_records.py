"""Records of the scaling figure: what a model reaches with a quarter, one and four times the budget of its row."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dgm.errors import StageError
from dgm.runs.checked import CHECKED, own, read_json
from dgm.runs.fields import Bits, Count, Likelihood, PositiveCount, Seconds, Sha256, Text
from dgm.runs.files import BudgetFiles
from dgm.types import NUM_TRAIN_IMAGES


@dataclass(frozen=True, config=CHECKED)
class ScalingPoint:
    """scaling/<budget>/<model>.json: a model that was trained with one budget, on the first validation images.

    Scored as the test images of its row are, on the same images for every model and budget. standard_error: one, of
    the mean over images. training_flops: floating-point operations of all images seen, forward and backward, an
    addition and a multiplication counted as two. key: of the code and the numbers of training and scoring;
    weights_sha256: of the file that was scored.
    """

    model: Text
    profile: Text
    budget: Annotated[str, Field(pattern=r"^(quarter|one|four)$")]
    likelihood: Likelihood
    validation_bits_per_subpixel: Bits
    standard_error: Bits
    num_images: Annotated[int, Field(gt=1, le=NUM_TRAIN_IMAGES)]
    training_flops: Annotated[int, Field(gt=0, le=10**24)]
    num_steps: PositiveCount
    images_seen: Count
    train_seconds: Seconds
    device: Text
    key: Text
    weights_sha256: Sha256

    @model_validator(mode="after")
    def _is_consistent(self) -> ScalingPoint:
        if self.images_seen < self.num_steps:
            raise ValueError(f"images_seen is {self.images_seen}, less than one for each of num_steps")
        return self

    @property
    def is_bound(self) -> bool:
        """Whether the true figure may be smaller."""
        return self.likelihood != "exact"


def read_scaling_point(files: BudgetFiles) -> ScalingPoint | None:
    """The record, or None if the file is absent. Raises: StageError naming the file and what is wrong with it."""
    path = files.scaling
    if not path.exists():
        return None
    remedy = f"delete it and run `{files.scaling_command}`"
    point = read_json(path, ScalingPoint, remedy)
    own(path, point, files)
    if point.budget != files.budget:
        raise StageError(f"{path}: says it is of the budget {point.budget}, not of {files.budget}; {remedy}")
    return point
