"""What an image is. Knows no library, so that every layer may import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    Images: TypeAlias = Annotated[Tensor, "uint8 (N, C, H, W)"]
    NatsPerImage: TypeAlias = Annotated[Tensor, "float64 (N,), natural logarithm, larger is better"]
else:  # names for annotations only: this file stays importable without torch
    Images = NatsPerImage = Any


@dataclass(frozen=True)
class ImageSpec:
    """Shape and alphabet of an image: every model takes one instead of a literal 3, 32 or 256."""

    channels: int
    height: int
    width: int
    levels: int

    def __post_init__(self) -> None:
        if min(self.channels, self.height, self.width) < 1 or self.levels < 2:
            raise ValueError(f"{self}: channels, height and width must be at least 1 and levels at least 2")

    @property
    def num_pixels(self) -> int:
        return self.height * self.width

    @property
    def num_subpixels(self) -> int:
        return self.channels * self.height * self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        return (self.channels, self.height, self.width)


NUM_TRAIN_IMAGES = 50000  # of CIFAR-10
NUM_TEST_IMAGES = 10000
CIFAR10 = ImageSpec(channels=3, height=32, width=32, levels=256)
