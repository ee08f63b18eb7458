"""What has to be said of a profile's rows beside their figures: which settings, images and machines.

What depends on the settings is made from the settings; what was measured once says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dgm.reporting.published import Remark
from dgm.reporting.rows import Row
from dgm.types import NUM_TRAIN_IMAGES


@dataclass(frozen=True)
class ModelSettings:
    """One model as params.yaml has it now: how many parameters, of them acting, and its section `model`."""

    parameters: int
    acting_parameters: int
    values: Mapping[str, object]


@dataclass(frozen=True)
class ProfileSettings:
    """Of one profile: how many training images are trained on (None: not known), and its models by name."""

    num_training_images: int | None = None
    models: Mapping[str, ModelSettings] = field(default_factory=dict[str, ModelSettings])


NO_SETTINGS = ProfileSettings()


def with_acting_parameters(row: Row, settings: ProfileSettings) -> Row:
    """The row with the number of parameters that can act, where the settings are still those of the result."""
    model = settings.models.get(row.model)
    if model is None or row.metrics is None or row.metrics.parameters != model.parameters:
        return row
    return replace(row, acting_parameters=model.acting_parameters)


def basis_notes(rows: Sequence[Row], settings: ProfileSettings) -> list[Remark]:
    """What every figure rests on: the images, the near-duplicates among them, and the processor."""
    return [*_images(rows, settings), *MEASURED_ONCE]


def _images(rows: Sequence[Row], settings: ProfileSettings) -> list[Remark]:
    if settings.num_training_images is None:
        return []
    trained = f"{settings.num_training_images:,} of the {NUM_TRAIN_IMAGES:,} training images are trained on"
    others = NUM_TRAIN_IMAGES - settings.num_training_images
    held_out = f"; the last {others:,} are held out for validation" if others else ""
    counts = sorted({row.metrics.num_train_images for row in rows if row.metrics})
    sample = " or ".join(f"{count:,}" for count in counts)
    train = f" “Train” is the figure of {sample} of those, the same for every model." if counts else ""
    return [Remark("Which images", f"{trained}{held_out}.{train}")]


MEASURED_ONCE: tuple[Remark, ...] = (
    Remark(
        "Near-duplicates of test images among the training images",
        "CIFAR-10 has some. A search by thumbnails found six. Without them the figures change by at most 0.0002 bits. "
        "All 10,000 test images stay in.",
    ),
    Remark(
        "Another processor",
        "On one machine the same seed gives the same bits. Between processors sums are rounded differently, and "
        "training carries that on: from AMD to Intel the figures moved by up to 0.0026 bits.",
    ),
    Remark(
        "What a coder could and could not prove of a dequantized figure",
        "No file is written for these rows. A coder could: it cuts space into small bins, chooses a point in the "
        "image's cube by bits that the reader gets back, and writes the point's bin. Decoding would prove that the "
        "model's map can be undone, and the length of the file, less the bits got back, that the bound holds for these "
        "images. It could not prove the probability of the integer image itself, the density's integral over the cube: "
        "nobody has computed it, and the figure stays a bound. In place of a file, tests compare log-determinants with "
        "automatic differentiation, and integrate the density of tiny images.",
    ),
)
