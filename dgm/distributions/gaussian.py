"""Gaussians in many dimensions: exact moments in chunks, Cholesky factors, log-densities. All in float64.

The covariance of natural images has a condition number of about 1e7, so nothing here is left to float32 rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dgm.errors import StageError
from dgm.types import Images

DEQUANTIZATION_VARIANCE = 1 / 12  # of a uniform variable on [0, 1)
LOG_TWO_PI = math.log(2 * math.pi)


class NotPositiveDefiniteError(StageError, ValueError):
    """A covariance matrix has no Cholesky factor."""


def image_moments(images: Images, chunk_size: int = 1024, is_mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """Maximum-likelihood mean and covariance of dequantized images, in grey levels: float64 (D,) and (D, D).

    x = v + u with u uniform on [0, 1)^D, in expectation over u: the mean of the integers plus 1/2, their covariance
    (divided by N) plus I/12. The sums are exact: centred bytes have products up to 2^14, so a chunk of up to 2^10
    images sums to integers that float32 holds without rounding.
    is_mirrored: over the images and their mirror images, left and right exchanged. Twice as many images, so the
    covariance fits the training images less and others better; the cost is that of the images alone.
    Shapes: uint8 (N, C, H, W) -> (D,), (D, D). Raises: ValueError if there is no image or a chunk is too large.
    """
    if not 0 < chunk_size <= 1024:
        raise ValueError(f"chunk_size must be between 1 and 1024 for exact sums, got {chunk_size}")
    if len(images) == 0:
        raise ValueError("moments of no image")
    dim = images[0].numel()
    total = torch.zeros(dim, dtype=torch.float64, device=images.device)
    products = torch.zeros(dim, dim, dtype=torch.float64, device=images.device)
    for chunk in images.flatten(1).split(chunk_size):
        centred = chunk.float() - 128
        total += centred.sum(dim=0)
        products += centred.T @ centred
    if is_mirrored:
        mirror = torch.arange(dim, device=images.device).view(images.shape[1:]).flip(-1).flatten()
        total = (total + total[mirror]) / 2
        products = (products + products[mirror][:, mirror]) / 2
    mean = total / len(images)
    covariance = products / len(images) - torch.outer(mean, mean)
    covariance.diagonal().add_(DEQUANTIZATION_VARIANCE)
    return mean + 128.5, covariance


def cholesky(covariance: Tensor, name: str) -> Tensor:
    """Lower Cholesky factor of each matrix. Shapes: (..., D, D) -> (..., D, D).

    Raises: NotPositiveDefiniteError saying which matrix of `name` has none.
    """
    factor, info = torch.linalg.cholesky_ex(covariance)
    if bool((info != 0).any()):
        failed = info.flatten().nonzero().flatten().tolist()
        which = "" if covariance.ndim == 2 else f" (matrices {', '.join(map(str, failed[:10]))})"
        raise NotPositiveDefiniteError(
            f"{name}{which} is not positive definite: fit on more images, fewer components or stronger shrinkage"
        )
    return factor


def gaussian_log_density(x: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """log N(x; mean, factor factor^T), in nats. Shapes: (N, D), (D,), lower-triangular (D, D) -> (N,) float64."""
    whitened = torch.linalg.solve_triangular(factor, (x.double() - mean).T, upper=False)
    return -0.5 * (x.shape[1] * LOG_TWO_PI + (whitened * whitened).sum(dim=0)) - factor.diagonal().log().sum()


def principal_axes(covariance: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Variances from large to small, (D,), and the directions that have them, as columns, (D, D).

    Raises: NotPositiveDefiniteError if a variance is not positive.
    """
    variances, axes = torch.linalg.eigh(covariance)
    if not bool((variances > 0).all()):
        raise NotPositiveDefiniteError(f"{name} has eigenvalue {float(variances.min()):.3g}: fit on more images")
    return variances.flip(0), axes.flip(1)


def zca(covariance: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Symmetric whitening S^(-1/2) and its log-determinant. Shapes: (D, D) -> (D, D), ().

    Raises: NotPositiveDefiniteError if an eigenvalue is not positive.
    """
    variances, axes = principal_axes(covariance, name)
    return (axes * variances.rsqrt()) @ axes.T, -0.5 * variances.log().sum()
