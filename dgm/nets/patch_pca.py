"""Probabilistic PCA of the square patches of an image: the linear variational autoencoder that a deep one starts from.

Source: Tipping & Bishop (1999), "Probabilistic principal component analysis", equations 7 and 8; Lucas et al. (2019),
arXiv 1911.02469, section 4: it is the global optimum of the linear variational autoencoder.
Differs: one fit for the patches of all places; the patches do not overlap.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.distributions.diagonal_gaussian import DiagonalGaussian
from dgm.distributions.discretized_logistic import unit_from_levels
from dgm.types import Images, ImageSpec


class PatchPCA(nn.Module):
    """Latents z of each patch: x = mean + directions * gains z + noise, with x in [-1, 1].

    Latents beyond the dimension of a patch less one are spare: posterior equal to the prior, no effect on x.
    Raises: ValueError if the patches do not tile the image.
    """

    def __init__(self, spec: ImageSpec, patch_size: int, num_latents: int) -> None:
        super().__init__()
        if spec.height % patch_size or spec.width % patch_size:
            raise ValueError(f"patches of {patch_size} x {patch_size} do not tile {spec.height} x {spec.width}")
        self.spec, self.patch_size = spec, patch_size
        dim = spec.channels * patch_size**2
        self.num_used = min(num_latents, dim - 1)
        self.num_spare = num_latents - self.num_used
        self.mean = nn.Buffer(torch.zeros(dim, 1, 1))
        self.directions = nn.Buffer(torch.eye(dim)[:, : self.num_used].contiguous())
        self.variances = nn.Buffer(torch.ones(self.num_used, 1, 1))
        self.noise_variance = nn.Buffer(torch.full((), 0.01))

    @torch.no_grad()
    def fit(self, images: Images) -> None:
        """Closed form on the patches of uint8 (N, C, H, W), with the variance of a bin on the diagonal."""
        patches = F.pixel_unshuffle(unit_from_levels(images, self.spec.levels, torch.float64), self.patch_size)
        rows = patches.movedim(1, -1).flatten(0, -2)
        covariance = torch.cov(rows.T, correction=0).reshape(rows.shape[1], rows.shape[1])
        bin_width = 2 / (self.spec.levels - 1)
        covariance.diagonal().add_(bin_width**2 / 12)
        variances, directions = torch.linalg.eigh(covariance)
        self.mean.copy_(rows.mean(dim=0)[:, None, None])
        self.directions.copy_(directions.flip(-1)[:, : self.num_used])
        self.variances.copy_(variances.flip(0)[: self.num_used, None, None])
        self.noise_variance.copy_(variances.flip(0)[self.num_used :].mean())

    def coefficients(self, x: Tensor) -> Tensor:
        """Coefficients of unit variance. Shapes: (N, C, H, W) in [-1, 1] -> (N, used latents, H / P, W / P)."""
        centred = F.pixel_unshuffle(x, self.patch_size) - self.mean
        with torch.autocast(x.device.type, enabled=False):  # three digits would be coarser than a level
            return torch.einsum("dq,ndhw->nqhw", self.directions, centred) / self.variances.sqrt()

    def posterior(self, coefficients: Tensor) -> DiagonalGaussian:
        """The exact posterior of the latents. Shapes: (N, used latents, h, w) -> (N, latents, h, w)."""
        shrinkage = ((self.variances - self.noise_variance).clamp(min=0) / self.variances).sqrt()
        log_std = 0.5 * (self.noise_variance / self.variances).log()
        return DiagonalGaussian(
            F.pad(shrinkage * coefficients, (0, 0, 0, 0, 0, self.num_spare)),
            F.pad(log_std, (0, 0, 0, 0, 0, self.num_spare)).expand(-1, *coefficients.shape[2:]).unsqueeze(0),
        )

    def posterior_shares(self, x: Tensor, num_shares: int) -> list[DiagonalGaussian]:
        """The exact posterior, its latents shared out in order. Shapes: (N, C, H, W) -> each (N, share, h, w)."""
        whole = self.posterior(self.coefficients(x))
        shares = zip(whole.mean.chunk(num_shares, dim=1), whole.log_std.chunk(num_shares, dim=1), strict=True)
        return [DiagonalGaussian(mean, log_std) for mean, log_std in shares]

    def num_parameters(self) -> int:
        """Number of fitted values; all of them are buffers."""
        return sum(buffer.numel() for buffer in self.buffers())

    def reconstruct(self, z: Tensor) -> Tensor:
        """Mean of x given the latents, in [-1, 1] units. Shapes: (N, latents, h, w) -> (N, C, H, W)."""
        scaled = z[:, : self.num_used] * (self.variances - self.noise_variance).clamp(min=0).sqrt()
        with torch.autocast(z.device.type, enabled=False):
            patches = torch.einsum("dq,nqhw->ndhw", self.directions, scaled)
        return F.pixel_shuffle(patches + self.mean, self.patch_size)
