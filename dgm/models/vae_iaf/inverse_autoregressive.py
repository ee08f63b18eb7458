"""One step of an inverse autoregressive flow on a grid of latents: all coordinates at once, triangular Jacobian.

Source: Kingma et al. (2016), arXiv 1606.04934, section 4 and appendix C.2: masked convolutions, hidden layers with the
context added after the first; mean and log-scale enter with a factor 0.1.
Differs: the mask is strict in the first layer instead of the last; both make the diagonal of the dependence zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.nets.layer_list import LayerList
from dgm.nets.masked_conv import MaskedConv2d

DAMPING = 0.1


class InverseAutoregressiveStep(nn.Module):
    """z -> (z - 0.1 m) exp(-0.1 s), with m and s of a coordinate read from the coordinates before it.

    Order: raster over places, then channels. The identity at first.
    """

    def __init__(self, num_latents: int, num_features: int, num_hidden_layers: int) -> None:
        super().__init__()
        latents = torch.arange(num_latents)
        hidden = torch.arange(num_features) % num_latents
        self.first = MaskedConv2d(latents, hidden, (3, 3), "A")
        self.hidden = LayerList(MaskedConv2d(hidden, hidden, (3, 3), "B") for _ in range(num_hidden_layers - 1))
        self.last = MaskedConv2d(hidden, latents.repeat(2), (3, 3), "B")
        nn.init.zeros_(self.last.weight)

    def shift_and_log_scale(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """0.1 m and 0.1 s, each as z. Shapes: z (N, latents, h, w), context (N, features, h, w)."""
        h = F.elu(self.first(z) + context)
        for layer in self.hidden:
            h = F.elu(layer(h))
        shift, log_scale = (DAMPING * self.last(h)).chunk(2, dim=1)
        return shift.to(z.dtype), log_scale.to(z.dtype)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The new latents and the logarithm of each diagonal entry of the Jacobian, both as z."""
        shift, log_scale = self.shift_and_log_scale(z, context)
        return (z - shift) * torch.exp(-log_scale), -log_scale
