"""The two mixtures of discretized logistics: that of PixelCNN++ and one for each sub-pixel on its own.

dgm prove examples/prove/mixture.py:shared --weights shared.pt
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dgm.prove import LogisticMixtures, PixelMixture


def network(num_outputs: int) -> nn.Module:
    """Each row sees the rows above it: causal in raster order, and the smallest network that is."""
    rows_above = nn.ZeroPad2d((1, 1, 2, -1))
    return nn.Sequential(rows_above, nn.Conv2d(3, 16, (2, 3)), nn.ReLU(), nn.Conv2d(16, num_outputs, 1))


def shared(weights: Path) -> PixelMixture:
    """5 components, shared by the channels of a pixel: 10 numbers each, in the order of the PixelCNN++ code."""
    model = network(10 * 5)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return PixelMixture(model, inputs="symmetric")


def separate(weights: Path) -> LogisticMixtures:
    """5 components for each of the 3 channels: logits, means and log-scales."""
    model = network(3 * 3 * 5)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return LogisticMixtures(model, inputs="symmetric")
