"""RIDE: a recurrent image density estimator, a spatial LSTM that drives a mixture of Gaussian scale mixtures.

Source: Theis & Bethge (2015), arXiv 1506.03478, section 2.3, and the authors' code.
Differs: the paper has no CIFAR-10 model, so sizes and training are ours. All pixels are scored (the code skips those
whose neighbourhood does not fit), a pixel's channels are predicted jointly, and training is by AdamW only.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.dequantization import dequantize
from dgm.distributions.gaussian_scale_mixture import MCGSM
from dgm.model_api.contracts import TrainedDensityModel
from dgm.models.ride.conditional_whitening import ConditionalWhitening
from dgm.nets.layer_list import LayerList
from dgm.nets.lstm_scan import diagonal_pattern, scan
from dgm.types import Images, ImageSpec

WHITENING_BATCH = 100  # images whose covariances are summed at once


class RIDEConfig(Config):
    """neighbourhood_rows and _reach: rows above, and columns to either side, of the pixels that the LSTM reads.

    num_whitening_images: random training images that the whitening is fitted to; the scales of the mixture start from
    the first num_start_images of them.
    """

    neighbourhood_rows: int = Field(ge=0)
    neighbourhood_reach: int = Field(gt=0)
    num_hidden: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_components: int = Field(gt=0)
    num_scales: int = Field(gt=0)
    num_gate_features: int = Field(gt=0)
    num_whitening_images: int = Field(ge=2)
    num_start_images: int = Field(ge=2)


class SpatialLSTM(nn.Module):
    """One layer: h(i, j) from the features at (i, j) and from h and c at (i, j - 1) and (i - 1, j).

    Source: Theis & Bethge (2015), equations 9 and 10: a forget gate for each neighbour, h = tanh(o * c).
    Differs: forget gates start at sigmoid(1), so that c, a sum over two neighbours, is remembered but stays bounded.
    """

    def __init__(self, spec: ImageSpec, num_inputs: int, num_hidden: int) -> None:
        super().__init__()
        self.pattern = diagonal_pattern(spec.height, spec.width, carried=2, is_product_squashed=True)
        self.num_hidden = num_hidden
        self.input_to_state = nn.Linear(num_inputs, self.pattern.num_gates * num_hidden)
        self.state_to_state = nn.Parameter(torch.empty(2 * num_hidden, self.pattern.num_gates * num_hidden))
        nn.init.normal_(self.state_to_state, std=1 / math.sqrt(2 * num_hidden))
        nn.init.zeros_(self.input_to_state.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Shapes: (P, N, F) -> (P, N, h)."""
        start = self.state_to_state.new_zeros(1, self.num_hidden)
        gates = self.input_to_state(features).unsqueeze(0)
        return scan(gates, self.state_to_state.unsqueeze(0), self.pattern, start, start).squeeze(0)

    def step(
        self, features: Tensor, left: tuple[Tensor, Tensor], above: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """h and c of one pixel from those of its neighbours. Shapes: (N, F), four of (N, h) -> (N, h), (N, h)."""
        gates = self.input_to_state(features) + torch.cat([left[0], above[0]], dim=1) @ self.state_to_state
        gate_in, gate_out, of_left, of_above = gates[:, : -self.num_hidden].sigmoid().chunk(4, dim=1)
        c = gate_in * gates[:, -self.num_hidden :].tanh() + of_left * left[1] + of_above * above[1]
        return torch.tanh(gate_out * c), c


class RIDE(TrainedDensityModel[RIDEConfig]):
    """p(image) = product over pixels of an MCGSM of the pixel's channels, given the state of all pixels before."""

    config_type = RIDEConfig

    def __init__(self, spec: ImageSpec, config: RIDEConfig) -> None:
        super().__init__(spec, config)
        self.whitening = ConditionalWhitening(spec, config.neighbourhood_rows, config.neighbourhood_reach)
        widths = [self.whitening.num_features] + [config.num_hidden] * config.num_layers
        self.layers = LayerList(
            SpatialLSTM(spec, num_inputs, num_hidden) for num_inputs, num_hidden in pairwise(widths)
        )
        self.mixture = MCGSM(
            config.num_hidden, spec.channels, config.num_components, config.num_scales, config.num_gate_features
        )

    @torch.no_grad()
    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Fits the whitening, then the scales of what it leaves: step 0 is the linear predictor."""
        chosen = torch.randperm(len(images), generator=generator, device=images.device)
        x = dequantize(images[chosen[: self.config.num_whitening_images]], generator).to(self.whitening.factor.dtype)
        self.whitening.fit(x.split(WHITENING_BATCH))
        _, z, _ = self.whitening(x[: self.config.num_start_images])
        self.mixture.start_from(z.flatten(0, 1))

    def log_density(self, x: Tensor) -> Tensor:
        h, z, log_determinant = self.whitening(x.to(self.whitening.factor.dtype))
        for layer in self.layers:
            h = layer(h)
        return self.mixture.log_prob(z, h).sum(dim=0, dtype=torch.float64) + log_determinant

    def num_parameters(self) -> int:
        """Those of the network, and the fitted numbers of the whitening."""
        return super().num_parameters() + self.whitening.num_parameters()

    @torch.no_grad()
    def sample_density(self, num_images: int, generator: torch.Generator, temperature: float) -> Tensor:
        """Pixel after pixel, with the LSTM states of the row above and of the pixel on the left."""
        spec, reach, rows = self.spec, self.whitening.reach, self.whitening.rows
        like = self.whitening.factor
        x = like.new_zeros(num_images, *spec.shape)
        padded = self.whitening.padded(x)
        padded[:, : spec.channels] = 0  # mid-grey; the indicators are already right
        zero = like.new_zeros(num_images, self.config.num_hidden)
        above = [[(zero, zero)] * spec.width for _ in self.layers]
        for row in range(spec.height):
            left = [(zero, zero) for _ in self.layers]
            for column in range(spec.width):
                pixel = row * spec.width + column
                window = padded[:, :, row : row + rows + 1, column : column + 2 * reach + 1].flatten(2)
                h, prediction = self.whitening.at_pixel(window, pixel)
                for number, layer in enumerate(self.layers):
                    left[number] = above[number][column] = layer.step(h, left[number], above[number][column])
                    h = left[number][0]
                value = prediction + self.whitening.color(self.mixture.sample(h, generator, temperature), pixel)
                x[:, :, row, column] = value
                padded[:, : spec.channels, row + rows, column + reach] = value - spec.levels / 2
        return x
