"""A character-level LSTM on the raster sequence of sub-pixels: an image as a text of levels.

Source: Graves (2013), arXiv 1308.0850, section 3, for text; Hochreiter & Schmidhuber (1997) for the cell. There is no
published CIFAR-10 figure.
Differs: besides the table of symbols the network reads the value as a number and the channel, which the position alone
decides. Row, column and the sub-pixel one row back are read only with `has_position_features`, which is off in the
headline: a text knows nothing of rows.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.distributions import categorical
from dgm.model_api.ancestral import Conditionals
from dgm.model_api.contracts import Objective, TrainedAutoregressiveModel
from dgm.models.char_rnn.lstm_stepper import LSTMStepper
from dgm.nets.level_logits import LevelLogits
from dgm.nets.sequence import SubpixelEmbedding, from_sequence, shifted, to_sequence
from dgm.seeds import number_below
from dgm.types import Images, ImageSpec


class CharRNNConfig(Config):
    """segment_rows: rows of the random segments of training, read from a zero state; 0 trains on whole images.

    Scoring and sampling always read the whole image and carry the state from its first sub-pixel to its last.
    """

    num_embedding_features: int = Field(gt=0)
    num_hidden: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    has_position_features: bool
    segment_rows: int = Field(ge=0)


class CharRNN(TrainedAutoregressiveModel[CharRNNConfig]):
    """Embedding of the previous sub-pixel -> LSTM -> softmax over levels."""

    config_type = CharRNNConfig

    def __init__(self, spec: ImageSpec, config: CharRNNConfig) -> None:
        super().__init__(spec, config)
        if config.segment_rows > spec.height:
            raise ValueError(f"segment_rows {config.segment_rows} is more than the image's {spec.height} rows")
        num_features = config.num_embedding_features
        self.embedding = SubpixelEmbedding(spec, num_features)
        if config.has_position_features:
            self.embedding_above = nn.Embedding(spec.levels + 1, num_features)
            self.embedding_row = nn.Embedding(spec.height, num_features)
            self.embedding_column = nn.Embedding(spec.width, num_features)
        self.lstm = nn.LSTM(num_features, config.num_hidden, config.num_layers, batch_first=True)
        self.head = LevelLogits(config.num_hidden, spec.levels)
        self._initialise()

    def _initialise(self) -> None:
        hidden = self.config.num_hidden
        for layer in range(self.config.num_layers):  # a forget gate that starts open; PyTorch's order is i, f, g, o
            nn.init.orthogonal_(getattr(self.lstm, f"weight_hh_l{layer}"))
            nn.init.zeros_(getattr(self.lstm, f"bias_hh_l{layer}"))
            getattr(self.lstm, f"bias_ih_l{layer}").data[hidden : 2 * hidden] = 1.0

    def position_features(self, above: Tensor, positions: Tensor) -> Tensor:
        """Features of the place and of the sub-pixel above. Shapes: (..., T) int64, (T,) -> (..., T, F)."""
        row = positions // (self.spec.width * self.spec.channels)
        column = positions // self.spec.channels % self.spec.width
        return self.embedding_above(above) + self.embedding_row(row) + self.embedding_column(column)

    def inputs(self, values: Tensor, first: int, last: int) -> Tensor:
        """What the LSTM reads at positions first to last - 1, whole rows. Shapes: (N, T) -> (N, last - first, F)."""
        features = self.embedding(shifted(values, self.spec)[:, first:last])
        if self.config.has_position_features:
            reach = self.spec.width * self.spec.channels
            start = torch.full_like(values[:, :reach], self.spec.levels)
            above = torch.cat([start, values[:, : values.shape[1] - reach]], dim=1)[:, first:last]
            features = features + self.position_features(above, torch.arange(first, last, device=values.device))
        return features

    def logits(self, values: Tensor, first: int, last: int) -> Tensor:
        """Logits from a zero state at `first`. Shapes: (N, T) int64 -> (N, last - first, levels)."""
        with torch.autocast(values.device.type, enabled=False):  # cuDNN's LSTM would take float16: gradients vanish
            hidden, _ = self.lstm(self.inputs(values, first, last))
        return self.head(hidden)

    def objective(self, images: Images, generator: torch.Generator, progress: float) -> Objective:
        """Nats of one segment, scaled to a whole image. With segments this is an estimate; scoring never uses it."""
        rows, height = self.config.segment_rows or self.spec.height, self.spec.height
        first_row = number_below(height - rows + 1, generator)
        subpixels_per_row = self.spec.width * self.spec.channels
        first, last = first_row * subpixels_per_row, (first_row + rows) * subpixels_per_row
        values = to_sequence(images)
        nats = categorical.log_prob(self.logits(values, first, last), values[:, first:last]) * (height / rows)
        return Objective(loss=-nats, nats=nats.detach())

    def log_prob(self, images: Images) -> Tensor:
        values = to_sequence(images)
        return categorical.log_prob(self.logits(values, 0, self.spec.num_subpixels), values)

    def log_pmf(self, images: Images) -> Tensor:
        logits = self.logits(to_sequence(images), 0, self.spec.num_subpixels)
        return from_sequence(categorical.log_pmf(logits), self.spec)

    def conditionals(self, num_images: int) -> Conditionals:
        return CharRNNConditionals(self, num_images)


class CharRNNConditionals(Conditionals):
    """The state of each layer; a step costs one position of the network."""

    @torch.no_grad()
    def __init__(self, model: CharRNN, num_images: int) -> None:
        self.model, self.spec = model, model.spec
        self.stepper = LSTMStepper(model.lstm, num_images)
        self.features_of_value, self.head = model.embedding.table(), model.head.linear()
        self.row_length = model.spec.width * model.spec.channels
        start = torch.full((self.row_length, num_images), model.spec.levels, device=model.device)
        self.last_row = start  # the last W * C values, a ring: slot t % (W * C)
        self.position = 0
        self._advance(start[0])

    def log_pmf(self) -> Tensor:
        return self.next_log_pmf

    def push(self, values: Tensor) -> None:
        self.last_row[self.position % self.row_length] = values
        self.position += 1
        if self.position < self.spec.num_subpixels:
            self._advance(values)

    @torch.no_grad()
    def _advance(self, previous: Tensor) -> None:
        x = self.features_of_value[previous] + self.model.embedding.channel.weight[self.position % self.spec.channels]
        if self.model.config.has_position_features:
            above = self.last_row[self.position % self.row_length]
            here = torch.tensor(self.position, device=above.device)
            x = x + self.model.position_features(above, here)
        logits = nn.functional.linear(self.stepper.step(x), *self.head)
        self.next_log_pmf = categorical.log_pmf(logits)
