"""The only file that contains log(2): nats per image <-> bits per sub-pixel."""

from __future__ import annotations

import math
from typing import TypeVar

from dgm.types import ImageSpec

Quantity = TypeVar("Quantity")  # a float, a numpy array or a torch tensor: anything with * and /


def nats_to_bits_per_subpixel(nats_per_image: Quantity, spec: ImageSpec) -> Quantity:
    """Bits per sub-pixel of a quantity in nats per image. Shapes: unchanged. The sign is unchanged too."""
    return nats_per_image / (spec.num_subpixels * math.log(2))  # type: ignore[operator]  # no type says "has * and /"


def bits_per_subpixel_to_nats(bits_per_subpixel: Quantity, spec: ImageSpec) -> Quantity:
    """Nats per image of a quantity in bits per sub-pixel. Shapes: unchanged."""
    return bits_per_subpixel * (spec.num_subpixels * math.log(2))  # type: ignore[operator]  # no type says "has * and /"
