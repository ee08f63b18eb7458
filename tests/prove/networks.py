"""Causal networks of several kinds, each with leaks that real code has had, from images in [-1, 1] to logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.types import ImageSpec

SPEC = ImageSpec(3, 8, 8, levels=6)


class CausalConv(nn.Conv2d):
    """Sees the rows above and the pixels to the left; `sees`: how many pixels from itself on, too."""

    mask: Tensor

    def __init__(self, num_inputs: int, num_outputs: int, kernel_size: int, sees: int) -> None:
        super().__init__(num_inputs, num_outputs, kernel_size, padding=kernel_size // 2)
        mask = torch.ones(kernel_size, kernel_size)
        mask[kernel_size // 2, kernel_size // 2 + sees :] = 0
        mask[kernel_size // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight * self.mask, self.bias, padding=self.padding)


class Deep(nn.Module):
    """Layers of masked convolutions. leaks: the layer that sees one pixel too much; -1 none."""

    def __init__(self, spec: ImageSpec = SPEC, num_features: int = 12, num_layers: int = 15, leaks: int = -1) -> None:
        super().__init__()
        layers: list[nn.Module] = [CausalConv(spec.channels, num_features, 5, sees=int(leaks == 0))]
        for number in range(1, num_layers - 1):
            layers += [nn.ELU(), CausalConv(num_features, num_features, 3, sees=1 + (leaks == number))]
        self.layers = nn.Sequential(*layers, nn.ELU(), nn.Conv2d(num_features, spec.channels * spec.levels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Downsampling(nn.Module):
    """Coarse rows above, and fine pixels before. leaks: the coarse rows are not shifted."""

    def __init__(self, spec: ImageSpec = SPEC, num_features: int = 10, leaks: bool = False) -> None:
        super().__init__()
        self.leaks = leaks
        self.fine = CausalConv(spec.channels, num_features, 3, sees=0)
        self.down = nn.Conv2d(spec.channels, num_features, 2, stride=2)
        self.coarse = nn.Conv2d(num_features, num_features, (1, 3), padding=(0, 1))
        self.norm = nn.BatchNorm2d(num_features)
        self.last = nn.Conv2d(2 * num_features, spec.channels * spec.levels, 1)

    def forward(self, x: Tensor) -> Tensor:
        above = self.norm(self.coarse(self.down(x).relu()))
        above = above if self.leaks else F.pad(above, (0, 0, 1, -1))
        return self.last(torch.cat([self.fine(x), F.interpolate(above, scale_factor=2.0)], dim=1).relu())


class Sequence(nn.Module):
    """An LSTM over sub-pixels in raster order, or attention. leaks: it is not shifted, or not masked."""

    def __init__(self, kind: str, spec: ImageSpec = SPEC, num_features: int = 12, leaks: bool = False) -> None:
        super().__init__()
        self.kind, self.spec, self.leaks = kind, spec, leaks
        self.first = nn.Linear(1, num_features)
        self.lstm = nn.LSTM(num_features, num_features, batch_first=True)
        self.attention = nn.MultiheadAttention(num_features, 2, batch_first=True)
        self.norm = nn.LayerNorm(num_features)
        self.last = nn.Linear(num_features, spec.levels)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.permute(0, 2, 3, 1).flatten(1).unsqueeze(-1)
        is_shifted = not (self.leaks and self.kind == "lstm")
        h = self.first(F.pad(flat, (0, 0, 1, -1)) if is_shifted else flat)
        if self.kind == "lstm":
            h = self.lstm(h)[0]
        else:
            mask = nn.Transformer.generate_square_subsequent_mask(flat.shape[1], dtype=h.dtype)
            h = h + self.attention(h, h, h, attn_mask=None if self.leaks else mask, need_weights=False)[0]
        channels, height, width = self.spec.shape
        return self.last(self.norm(h)).view(-1, height, width, channels, self.spec.levels).permute(0, 3, 1, 2, 4)


class WithPair(nn.Module):
    """A causal network, and one output that sees one input: by `strength` of its logits. Places: (C, H, W)."""

    def __init__(self, inner: nn.Module, output: tuple[int, int, int], given: tuple[int, int, int], strength: float):
        super().__init__()
        self.inner, self.output, self.given, self.strength = inner, output, given, strength

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x).clone()
        channel, row, column = self.output
        levels = logits.shape[1] // x.shape[1]
        logits[:, channel * levels, row, column] += self.strength * x[(slice(None), *self.given)]
        return logits


class NormalisedOverTheImage(nn.Module):
    """Features divided by their spread over the whole image, as GroupNorm does: every pixel sees every other."""

    def __init__(self, spec: ImageSpec = SPEC, num_features: int = 12) -> None:
        super().__init__()
        self.first = CausalConv(spec.channels, num_features, 3, sees=0)
        self.norm = nn.GroupNorm(2, num_features)
        self.last = nn.Conv2d(num_features, spec.channels * spec.levels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu())


CAUSAL: dict[str, Callable[[], nn.Module]] = {
    "masked convolutions": Deep,
    "down-sampling": Downsampling,
    "lstm": lambda: Sequence("lstm"),
    "attention": lambda: Sequence("attention"),
}
LEAKING: dict[str, Callable[[], nn.Module]] = {
    "the first layer sees the pixel itself": lambda: Deep(leaks=0),
    "the eighth layer sees one pixel ahead": lambda: Deep(leaks=8),
    "coarse rows are not shifted": lambda: Downsampling(leaks=True),
    "the lstm is not shifted": lambda: Sequence("lstm", leaks=True),
    "attention is not masked": lambda: Sequence("attention", leaks=True),
    "features are normalised over the image": NormalisedOverTheImage,
}


def built(make: Callable[[], nn.Module], scale: float = 1.0) -> nn.Module:
    """In eval mode, with the weights of seed 0 times `scale`."""
    torch.manual_seed(0)
    network = make().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    return network
