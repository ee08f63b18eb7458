"""What must hold of a figure over a set of images: every image counts once, and none of them was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from torch import Tensor

from dgm.conformance.checks import TOLERANCE, Finding
from dgm.types import Images


def figure_is_the_mean_over_images(figure: Callable[[int], float], of_images: Tensor) -> Finding:
    """`figure` of a batch size, on as many images as `of_images` (N,) has values, is their mean for every size."""
    mean, num_images = float(of_images.double().mean()), len(of_images)
    worst = max(
        abs(figure(size) - mean) for size in {1, max(1, num_images // 2 + 1), max(1, num_images - 1), num_images}
    )
    holds = worst <= TOLERANCE * max(1.0, abs(mean))
    return Finding("figure is the mean over images", holds, f"up to {worst:.3g} off, by the size of the batches")


def no_image_was_trained_on(test: Images, train: Images) -> Finding:
    """No test image equals a training image or its mirror image, nor another test image. Shapes: (N, C, H, W)."""
    trained = set(_digests(train)) | set(_digests(train.flip(-1)))
    tested = list(_digests(test))
    shared = [number for number, digest in enumerate(tested) if digest in trained]
    num_twice = len(tested) - len(set(tested))
    first = f", the first is number {shared[0]}" if shared else ""
    detail = f"{len(shared)} test images are training images{first}; {num_twice} are there twice"
    return Finding("no image was trained on", not shared and not num_twice, detail)


def _digests(images: Images) -> Iterable[bytes]:
    return (hashlib.sha256(image.tobytes()).digest() for image in images.cpu().contiguous().numpy())
