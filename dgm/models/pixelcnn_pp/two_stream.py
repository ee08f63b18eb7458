"""The trunk of PixelCNN++: two streams of gated blocks, down to coarser grids and up again, with short-cuts.

Stream u sees all rows above a pixel; stream ul sees those and the pixels to the left in its row.
Source: Salimans et al. (2017), arXiv 1701.05517, sections 2.3 to 2.5 and the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgm.models.pixelcnn_pp.activations import activate
from dgm.models.pixelcnn_pp.shifted_conv import (
    GatedResnet,
    ShiftedConv2d,
    ShiftedConvTranspose2d,
    Window,
    shift_down,
    shift_right,
)
from dgm.nets.layer_list import LayerList


class TwoStreamNet(nn.Module):
    """Features of each pixel that depend on earlier pixels only. Shapes: (N, in, H, W) -> (N, features, H, W).

    Both sides must be divisible by 2^(num_stages - 1). Each stage has `num_resnets` pairs of blocks on the way to
    coarser grids and, on the way back, one pair for each pair of maps to which a short-cut leads.
    """

    def __init__(
        self, in_channels: int, features: int, num_resnets: int, num_stages: int, dropout: float, weight_norm: bool
    ) -> None:
        super().__init__()

        def blocks(window: Window, num: int, num_linked: int) -> LayerList[GatedResnet]:
            return LayerList(GatedResnet(features, window, num_linked, dropout, weight_norm) for _ in range(num))

        self.stem_u = ShiftedConv2d(in_channels, features, "down", weight_norm=weight_norm)
        self.stem_above = ShiftedConv2d(in_channels, features, "down", kernel_size=(1, 3), weight_norm=weight_norm)
        self.stem_left = ShiftedConv2d(in_channels, features, "down_right", kernel_size=(2, 1), weight_norm=weight_norm)
        sizes = [num_resnets + 1] * (num_stages - 1) + [num_resnets]  # short-cuts per stage: blocks and the map before
        self.encoder_u = LayerList(blocks("down", num_resnets, 0) for _ in sizes)
        self.encoder_ul = LayerList(blocks("down_right", num_resnets, 1) for _ in sizes)
        self.decoder_u = LayerList(blocks("down", size, 1) for size in sizes)
        self.decoder_ul = LayerList(blocks("down_right", size, 2) for size in sizes)
        steps = range(num_stages - 1)
        self.shrink_u = LayerList(
            ShiftedConv2d(features, features, "down", stride=2, weight_norm=weight_norm) for _ in steps
        )
        self.shrink_ul = LayerList(
            ShiftedConv2d(features, features, "down_right", stride=2, weight_norm=weight_norm) for _ in steps
        )
        self.expand_u = LayerList(ShiftedConvTranspose2d(features, features, "down", weight_norm) for _ in steps)
        self.expand_ul = LayerList(ShiftedConvTranspose2d(features, features, "down_right", weight_norm) for _ in steps)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        u = shift_down(self.stem_u(x))
        ul = shift_down(self.stem_above(x)) + shift_right(self.stem_left(x))
        active_u, active_ul = activate(u), activate(ul)
        shortcuts = [(active_u, active_ul)]
        for stage in range(len(self.encoder_u)):
            if stage > 0:
                u, ul = self.shrink_u[stage - 1](u), self.shrink_ul[stage - 1](ul)
                active_u, active_ul = activate(u), activate(ul)
                shortcuts.append((active_u, active_ul))
            for block_u, block_ul in zip(self.encoder_u[stage], self.encoder_ul[stage], strict=True):
                u = block_u(u, active_u)
                active_u = activate(u)
                ul = block_ul(ul, active_ul, active_u)
                active_ul = activate(ul)
                shortcuts.append((active_u, active_ul))
        shortcuts.pop()
        for stage in reversed(range(len(self.decoder_u))):
            for block_u, block_ul in zip(self.decoder_u[stage], self.decoder_ul[stage], strict=True):
                shortcut_u, shortcut_ul = shortcuts.pop()
                u = block_u(u, active_u, shortcut_u)
                active_u = activate(u)
                ul = block_ul(ul, active_ul, active_u, shortcut_ul)
                active_ul = activate(ul)
            if stage > 0:
                u, ul = self.expand_u[stage - 1](u), self.expand_ul[stage - 1](ul)
                active_u, active_ul = activate(u), activate(ul)
        return ul
