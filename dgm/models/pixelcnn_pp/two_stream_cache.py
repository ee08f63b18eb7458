"""TwoStreamNet one pixel at a time: stream u once per row, stream ul once per pixel, coarser grids at their own rate.

What a block of stream ul takes from the row above is added up for the whole row when the row begins, so that a pixel
costs two small matrix products per block. Its features are kept mirrored, (x, -x): concat_elu is then a plain ELU, and
every packed weight also writes its output mirrored.
Source of the idea: Ramachandran et al. (2017), arXiv 1704.06001.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.models.pixelcnn_pp.activations import concat_elu
from dgm.models.pixelcnn_pp.shifted_conv import GatedResnet, ShiftedConv2d
from dgm.models.pixelcnn_pp.two_stream import TwoStreamNet


class RowConv:
    """A "down" convolution fed with one row after another. Shapes: (N, in, 1, W) -> (N, out, 1, W / stride)."""

    def __init__(self, layer: ShiftedConv2d) -> None:
        self.kernel, self.bias, self.stride = layer.kernel(), layer.bias, layer.stride
        self.above: Tensor | None = None

    def push(self, row: Tensor) -> Tensor:
        """Takes one row; returns it with the row above it. Shapes: (N, in, 1, W) -> (N, in, 2, W)."""
        pair = torch.cat([torch.zeros_like(row) if self.above is None else self.above, row], dim=2)
        self.above = row
        return pair

    def __call__(self, row: Tensor) -> Tensor:
        return F.conv2d(self.push(row), self.kernel, self.bias, stride=self.stride, padding=(0, 1))


class RowBlock:
    """A gated block of stream u fed with one row after another. Shapes: (N, features, 1, W) unchanged."""

    def __init__(self, block: GatedResnet) -> None:
        self.entry, self.exit, self.link = RowConv(block.entry), RowConv(block.exit), block.link

    def __call__(self, row: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        y = self.entry(concat_elu(row))
        if self.link is not None and auxiliary is not None:
            y = y + self.link(concat_elu(auxiliary))
        value, gate = self.exit(concat_elu(y)).chunk(2, dim=1)
        return row + value * torch.sigmoid(gate)


class PixelConv:
    """A "down_right" convolution fed with one pixel after another.

    weight_above, weight_here: (2 in, outputs), the taps (left column, own column) of the row above and of this row.
    """

    def __init__(self, kernel: Tensor, bias: Tensor, num_images: int, width: int) -> None:
        outputs, features = kernel.shape[:2]
        self.weight_above, self.weight_here = kernel.permute(2, 3, 1, 0).reshape(2, 2 * features, outputs).unbind()
        self.bias, self.features = bias, features
        self.row = bias.new_zeros(num_images, width + 1, features)  # column 0 is the padding
        self.above = bias.new_zeros(num_images, width, outputs)

    def start_row(self, stride: int = 1) -> None:
        """Adds up what the row that just ended contributes to the row below it."""
        images, columns = self.row.shape[0], (self.row.shape[1] - 1) // stride
        size = (images, columns, 2 * self.features)
        windows = self.row.as_strided(size, (self.row.stride(0), stride * self.features, 1))
        self.above = windows @ self.weight_above + self.bias

    def store(self, x: Tensor, column: int) -> None:
        """Shapes: (N, in)."""
        self.row[:, column + 1] = x

    def at(self, column: int, stride: int = 1) -> Tensor:
        """The output whose window ends at `column`, already stored. Shapes: -> (N, outputs)."""
        window = self.row[:, column : column + 2].flatten(1)
        return torch.addmm(self.above[:, column // stride], window, self.weight_here)


class PixelBlock:
    """A gated block of stream ul fed with one pixel after another, mirrored. Shapes: (N, 2 features) unchanged."""

    def __init__(self, block: GatedResnet, num_images: int, width: int) -> None:
        entry, exit_ = block.entry.kernel(), block.exit.kernel()
        self.entry = PixelConv(torch.cat([entry, -entry]), _mirrored(block.entry.bias), num_images, width)
        value, gate = exit_.chunk(2)
        value_bias, gate_bias = block.exit.bias.chunk(2)
        kernel = torch.cat([value, -value, gate, gate])
        bias = torch.cat([_mirrored(value_bias), gate_bias, gate_bias])
        self.exit = PixelConv(kernel, bias, num_images, width)
        assert block.link is not None  # every block of stream ul reads stream u
        link = block.link.kernel()[:, :, 0, 0].T
        features = link.shape[1]
        link = torch.cat([link, -link], dim=1)
        num_maps = len(link) // (2 * features)  # stream u alone, or u and a short-cut
        by_sign_and_map = link.view(2, num_maps, features, 2 * features)
        self.link_u = by_sign_and_map[:, 0].flatten(0, 1)
        self.link_shortcut = by_sign_and_map[:, 1].flatten(0, 1) if num_maps == 2 else None
        self.link_bias = _mirrored(block.link.bias)

    def start_row(self, u: Tensor) -> None:
        """Shapes: the row of stream u that this block reads, (N, features, 1, W)."""
        self.entry.start_row()
        self.entry.above += concat_elu(u[:, :, 0].transpose(1, 2), dim=2) @ self.link_u + self.link_bias
        self.exit.start_row()

    def at(self, column: int, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        self.entry.store(F.elu(x), column)
        y = self.entry.at(column)
        if self.link_shortcut is not None and shortcut is not None:
            y.addmm_(F.elu(shortcut), self.link_shortcut)
        self.exit.store(F.elu(y), column)
        value, gate = self.exit.at(column).chunk(2, dim=1)
        return torch.addcmul(x, value, torch.sigmoid(gate))


class StageCache:
    """The blocks of one grid, and the link to the next coarser grid, if there is one."""

    def __init__(self, net: TwoStreamNet, stage: int, num_images: int, width: int) -> None:
        self.encoder_u = [RowBlock(block) for block in net.encoder_u[stage]]
        self.decoder_u = [RowBlock(block) for block in net.decoder_u[stage]]
        self.encoder_ul = [PixelBlock(block, num_images, width) for block in net.encoder_ul[stage]]
        self.decoder_ul = [PixelBlock(block, num_images, width) for block in net.decoder_ul[stage]]
        self.coarser: StageCache | None = None
        if stage + 1 < len(net.encoder_u):
            self.coarser = StageCache(net, stage + 1, num_images, width // 2)
            self._build_links(net, stage, num_images, width)

    def _build_links(self, net: TwoStreamNet, stage: int, num_images: int, width: int) -> None:
        shrink_u, shrink_ul = net.shrink_u[stage], net.shrink_ul[stage]
        expand_u, expand_ul = net.expand_u[stage], net.expand_ul[stage]
        self.shrink_u = RowConv(shrink_u)
        kernel = shrink_ul.kernel()
        self.shrink_ul = PixelConv(torch.cat([kernel, -kernel]), _mirrored(shrink_ul.bias), num_images, width)
        self.expand_u = (expand_u.kernel(), expand_u.bias)
        kernel = expand_ul.kernel().permute(0, 2, 3, 1)  # (in, 2, 2, out)
        self.features = kernel.shape[-1]
        self.expand_ul = torch.cat([kernel, -kernel], dim=3).flatten(1)
        self.expand_ul_bias = _mirrored(expand_ul.bias)
        self.expanded_u = kernel.new_zeros(num_images, self.features, 2, width)
        self.expanded_ul = kernel.new_zeros(num_images, 2, width, 2 * self.features)

    def start_row(self, row: int, u: Tensor) -> Tensor:
        """Everything that depends on rows above `row` only. Shapes: u (N, features, 1, W) -> the same, decoded."""
        shortcuts = [u]
        for block_u, block_ul in zip(self.encoder_u, self.encoder_ul, strict=True):
            u = block_u(u)
            block_ul.start_row(u)
            shortcuts.append(u)
        if self.coarser is None:
            shortcuts.pop()
        else:
            self._start_coarser_row(row, u)
            u = self.expanded_u[:, :, row % 2, None]
        for block_u, block_ul in zip(self.decoder_u, self.decoder_ul, strict=True):
            u = block_u(u, shortcuts.pop())
            block_ul.start_row(u)
        return u

    def _start_coarser_row(self, row: int, u: Tensor) -> None:
        assert self.coarser is not None
        if row % 2:
            self.shrink_u.push(u)
            return
        self.shrink_ul.start_row(stride=2)
        decoded = self.coarser.start_row(row // 2, self.shrink_u(u))
        kernel, bias = self.expand_u
        self.expanded_u = F.conv_transpose2d(decoded, kernel, bias, stride=2)[..., 1:]

    def at(self, row: int, column: int, ul: Tensor) -> Tensor:
        """The decoded features of one pixel. Shapes: (N, 2 features) mirrored, unchanged."""
        shortcuts = [ul]
        for block in self.encoder_ul:
            ul = block.at(column, ul)
            shortcuts.append(ul)
        if self.coarser is None:
            shortcuts.pop()
        else:
            self.shrink_ul.store(ul[:, : self.features], column)
            if row % 2 == 0 and column % 2 == 0:
                coarse = self.coarser.at(row // 2, column // 2, self.shrink_ul.at(column, stride=2))
                expanded = (coarse[:, : self.features] @ self.expand_ul).view(-1, 2, 2, 2 * self.features)
                self.expanded_ul[:, :, column : column + 2] = expanded + self.expand_ul_bias
            ul = self.expanded_ul[:, row % 2, column]
        for block in self.decoder_ul:
            ul = block.at(column, ul, shortcuts.pop())
        return ul


class TwoStreamCache:
    """Features of a pixel from the pixels before it, in raster order. Keeps packed copies of the weights."""

    @torch.no_grad()
    def __init__(self, net: TwoStreamNet, num_images: int, width: int) -> None:
        self.net, self.width = net, width
        self.row, self.column = 0, 0
        self.finest = StageCache(net, 0, num_images, width)
        channels = net.stem_u.weight.shape[1]
        self.pixels = net.stem_u.bias.new_zeros(num_images, channels, 2, width)  # the row above, this row
        self.stem_u, self.stem_above = RowConv(net.stem_u), net.stem_above
        kernel = net.stem_left.kernel()[..., 0].permute(2, 1, 0)  # (2, in, features)
        self.stem_left_above, self.stem_left_here = torch.cat([kernel, -kernel], dim=2).unbind()
        self.stem_left_bias = _mirrored(net.stem_left.bias)

    def features(self) -> Tensor:
        """Output of the network at the next pixel. To be called once per pixel. Shapes: -> (N, features)."""
        if self.column == 0:
            self._start_row()
        ul = self.stem[:, self.column]
        if self.column > 0:
            ul = torch.addmm(ul, self.pixels[:, :, 1, self.column - 1], self.stem_left_here)
        return self.finest.at(self.row, self.column, ul).chunk(2, dim=1)[0]

    def push(self, pixel: Tensor) -> None:
        """Shapes: the network's input at the next pixel, (N, in)."""
        self.pixels[:, :, 1, self.column] = pixel
        self.column += 1
        if self.column == self.width:
            self.row, self.column = self.row + 1, 0

    def _start_row(self) -> None:
        above = self.pixels[:, :, 1:].clone()
        self.pixels = torch.cat([above, torch.zeros_like(above)], dim=2)
        left = F.pad(above[:, :, 0].transpose(1, 2)[:, :-1] @ self.stem_left_above + self.stem_left_bias, (0, 0, 1, 0))
        if self.row == 0:  # the rows of the shifted convolutions that lie outside the image are zero, without a bias
            zeros = left.new_zeros(len(left), self.stem_u.bias.numel(), 1, self.width)
            self.stem = left
            self.finest.start_row(0, zeros)
            return
        ul = self.stem_above(above)[:, :, 0].transpose(1, 2)
        self.stem = left + torch.cat([ul, -ul], dim=2)
        self.finest.start_row(self.row, self.stem_u(above))


def _mirrored(bias: Tensor) -> Tensor:
    return torch.cat([bias, -bias])
