"""The stage at full resolution: gated linear units, each after a causal convolution over the features nearby."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.models.hourglass.middle import matrix, normalized
from dgm.nets.layer_list import LayerList

ENTRY_GAIN, CONTEXT_GAIN = 0.5, 0.1


class LocalBlock(nn.Module):
    """x + GLU(W mixed), mixed = normalised features of the pixels nearby, one weight a feature and tap.

    The features of a pixel tell nothing of its own value, so the pixel itself is among the taps. reach: rows above, and
    columns to either side; with 0 there is no convolution. Shapes: (N, H, W, features) unchanged.
    """

    def __init__(self, features: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        is_past = torch.ones(reach + 1, 2 * reach + 1)
        is_past[-1, reach + 1 :] = 0.0
        self.is_past = nn.Buffer(is_past, persistent=False)
        self.taps: nn.Parameter | None = None
        if reach:
            self.taps = nn.Parameter(torch.zeros(features, 1, reach + 1, 2 * reach + 1))
            self.taps.data[:, :, -1, reach] = 1.0
        self.weight = matrix(features, 2 * features)
        self.bias = nn.Parameter(torch.zeros(2 * features))

    def idle_weights(self) -> Mapping[str, Tensor]:
        return {} if self.taps is None else {"taps": (self.is_past == 0).expand_as(self.taps)}

    def forward(self, x: Tensor) -> Tensor:
        mixed = normalized(x)
        if self.taps is not None:
            padded = F.pad(mixed, (0, 0, self.reach, self.reach, self.reach, 0)).permute(0, 3, 1, 2)
            mixed = F.conv2d(padded, self.taps * self.is_past, groups=len(self.taps)).permute(0, 2, 3, 1)
        return self._added(x, mixed)

    def at(self, x: Tensor, window: Tensor) -> Tensor:
        """At one pixel. Shapes: x (N, features), normalised features (N, reach + 1, 2 reach + 1, features)."""
        if self.taps is None:
            return self._added(x, window[:, 0, 0])
        taps = (self.taps * self.is_past).squeeze(1).permute(1, 2, 0)
        return self._added(x, (window * taps).sum(dim=(1, 2)))

    def _added(self, x: Tensor, mixed: Tensor) -> Tensor:
        return x + F.glu(F.linear(mixed, self.weight, self.bias), dim=-1)


class LocalStage(nn.Module):
    """Features of each pixel from its inputs and from what the middle says of its block.

    Shapes: inputs (N, H, W, inputs), their whitening (inputs, inputs), context (N, H, W, D), place in the block, int64
    (N, H, W) -> (N, H, W, features).
    """

    def __init__(
        self, num_inputs: int, context_features: int, num_places: int, features: int, num_blocks: int, reach: int
    ) -> None:
        super().__init__()
        self.entry = matrix(num_inputs, 2 * features, ENTRY_GAIN)
        self.entry_bias = nn.Parameter(torch.zeros(2 * features))
        self.of_context = matrix(context_features, 2 * features, CONTEXT_GAIN)
        self.embedding_of_place = nn.Parameter(torch.zeros(num_places, 2 * features))
        self.blocks = LayerList(LocalBlock(features, reach) for _ in range(num_blocks))

    def enter(self, inputs: Tensor, whitening: Tensor, context: Tensor, place: Tensor) -> Tensor:
        """The features before the first block."""
        with torch.autocast(inputs.device.type, enabled=False):  # half precision would lose what sets neighbours apart
            of_inputs = F.linear(inputs, self.entry @ whitening, self.entry_bias)
        of_block = F.linear(context, self.of_context) + self.embedding_of_place[place]
        return F.glu(of_inputs + of_block, dim=-1)

    def forward(self, inputs: Tensor, whitening: Tensor, context: Tensor, place: Tensor) -> Tensor:
        x = self.enter(inputs, whitening, context, place)
        for block in self.blocks:
            x = block(x)
        return x
