"""What a network is given for an image, and in which order its sub-pixels depend on each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from dgm.types import Images, ImageSpec

Scaling: TypeAlias = Literal["levels", "unit", "symmetric", "integers"]
Inputs: TypeAlias = Scaling | Callable[[Tensor], Tensor]
Order: TypeAlias = Literal["raster", "planes"] | Tensor

SCALINGS = ("levels", "unit", "symmetric", "integers")
ORDERS = ("raster", "planes")


def network_input(images: Images, inputs: Inputs, levels: int, dtype: torch.dtype) -> Tensor:
    """The images as the network reads them. Shapes: uint8 (N, C, H, W) -> the same, or what a function makes of it.

    inputs: "levels" 0 to 255, "unit" 0 to 1, "symmetric" -1 to 1, "integers" int64, or a function of the images.
    """
    if not isinstance(inputs, str):
        x = inputs(images)
        return x.to(dtype) if x.is_floating_point() else x
    if inputs == "integers":
        return images.long()
    x = images.to(dtype)
    if inputs == "levels":
        return x
    return x / (levels - 1) if inputs == "unit" else x * (2.0 / (levels - 1)) - 1.0


def check_inputs(inputs: Inputs) -> None:
    """Raises: ValueError that lists what there is."""
    if inputs not in SCALINGS and not callable(inputs):
        raise ValueError(f"inputs: must be one of {', '.join(SCALINGS)} or a function of the images, got {inputs!r}")


def positions(order: Order, spec: ImageSpec) -> Tensor:
    """Position t in the order -> flat index into (C, H, W). Shapes: -> int64 (D,).

    "raster": pixel after pixel, the channels of one pixel after each other; "planes": channel after channel; or the
    permutation itself. Raises: ValueError if it is none.
    """
    flat = torch.arange(spec.num_subpixels)
    if isinstance(order, Tensor):
        found = order.detach().cpu().flatten().long()
        if not torch.equal(found.sort().values, flat):
            raise ValueError(f"order: must hold each of 0 to {spec.num_subpixels - 1} once, flat over (C, H, W)")
        return found
    if order not in ORDERS:
        raise ValueError(f"order: must be one of {', '.join(ORDERS)} or a permutation, got {order!r}")
    return flat if order == "planes" else flat.view(spec.channels, -1).T.reshape(-1)


def place(index: int, spec: ImageSpec) -> str:
    """A sub-pixel in words: '(channel 0, row 5, column 7)'."""
    channel, pixel = divmod(index, spec.num_pixels)
    row, column = divmod(pixel, spec.width)
    return f"(channel {channel}, row {row}, column {column})"
