"""Counted operations equal those counted by hand; counting leaves no trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dgm.config.parse import Config
from dgm.engine.flops import FORMULAS, count_flops
from dgm.model_api.contracts import GradientTrained, LogLikelihood, Model, Objective
from dgm.nets.lstm_scan import diagonal_pattern, row_pattern, scan
from dgm.types import ImageSpec
from tests.tiny import SMALL, TRAINED, random_images, untrained_model

SPEC = ImageSpec(channels=3, height=4, width=5, levels=8)
NUM_IMAGES, SEED = 3, 1


class Network(GradientTrained, Model):
    """Sums whatever a network makes of the images."""

    def __init__(self, net: nn.Module, prepared: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__(SPEC, Config())
        self.net, self.prepared = net, prepared

    def objective(self, images: Tensor, generator: torch.Generator, progress: float) -> Objective:
        x = self.prepared(images.to(next(self.net.parameters()).dtype))
        out = self.net(x)
        loss = (out[0] if isinstance(out, tuple) else out).reshape(len(images), -1).sum(dim=1)
        return Objective(loss, loss.detach())

    def log_likelihood(self, images: Tensor, generator: torch.Generator) -> LogLikelihood:
        raise NotImplementedError

    def sample(self, num_images: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        raise NotImplementedError


class Scan(nn.Module):
    """Two independent scans from gates that are learned."""

    def __init__(self, name: str, num_hidden: int) -> None:
        super().__init__()
        make = {"row": row_pattern, "diagonal": diagonal_pattern}[name]
        self.pattern = make(SPEC.height, SPEC.width)
        self.gates = nn.Parameter(torch.randn(2, SPEC.num_pixels, 1, 4 * num_hidden))
        self.weight = nn.Parameter(torch.randn(2, len(self.pattern.context) * num_hidden, 4 * num_hidden))
        self.start = nn.Parameter(torch.zeros(2, num_hidden))

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gates.expand(-1, -1, len(x), -1)
        return scan(gates, self.weight, self.pattern, self.start, self.start).transpose(0, 2)


def counted(net: nn.Module, prepared: Callable[[Tensor], Tensor] = lambda x: x) -> tuple[int, int]:
    return count_flops(Network(net, prepared), random_images(SPEC, NUM_IMAGES), SEED)


def test_a_linear_layer_multiplies_and_adds_once_a_weight() -> None:
    dense = nn.Sequential(nn.Flatten(), nn.Linear(SPEC.num_subpixels, 7))
    forward = 2 * SPEC.num_subpixels * 7
    assert counted(dense) == (forward, 2 * forward)  # backward: of the weight only, images have no gradient


def test_training_a_dense_network_is_nearly_three_times_its_forward_pass() -> None:
    first, second = 2 * SPEC.num_subpixels * 7, 2 * 7 * 1000
    net = nn.Sequential(nn.Flatten(), nn.Linear(SPEC.num_subpixels, 7), nn.ReLU(), nn.Linear(7, 1000))
    assert counted(net) == (first + second, 2 * first + 3 * second)


def test_a_convolution_is_a_product_at_every_place_of_its_output() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, (1, 2), stride=(1, 2), padding=(1, 2)))
    first, second = 2 * 27 * 6 * SPEC.num_pixels, 2 * 12 * 4 * (6 * 4)  # the second one's output has 6 rows of 4
    assert counted(net) == (first + second, 2 * first + 3 * second)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_lstm_has_four_gates_that_read_input_and_state(num_layers: int, dtype: torch.dtype) -> None:
    inputs, hidden, length = SPEC.channels, 6, SPEC.num_pixels
    forward = 2 * length * 4 * hidden * (inputs + hidden + (num_layers - 1) * 2 * hidden)
    lstm = nn.LSTM(inputs, hidden, num_layers, batch_first=True).to(dtype)
    count, training = counted(lstm, lambda x: x.flatten(2).transpose(1, 2).requires_grad_())
    assert count == forward  # float64 has no kernel of its own and runs as matrix products: the same count
    if dtype == torch.float32:
        assert training == 3 * forward


def test_the_kernel_of_a_gpu_counts_like_that_of_a_cpu() -> None:
    lstm = nn.LSTM(3, 6, 2, bidirectional=True)
    weights = [parameter.shape for parameter in lstm.parameters()]
    expected = 2 * 5 * 4 * 2 * 4 * 6 * (3 + 6 + 12 + 6)  # 5 positions of 4 images, two directions
    aten = torch.ops.aten
    assert FORMULAS[aten._cudnn_rnn]((5, 4, 3), weights, 4, None, out_shape=None) == expected
    assert FORMULAS[aten._cudnn_rnn_backward]((5, 4, 3), weights, 4, None, out_shape=None) == 2 * expected


@pytest.mark.parametrize(("name", "num_context"), [("row", 3), ("diagonal", 2)])
def test_a_scan_is_one_product_a_position_and_its_own_backward_pass_two(name: str, num_context: int) -> None:
    forward = 2 * 2 * SPEC.num_pixels * num_context * 5 * 4 * 5
    assert counted(Scan(name, 5)) == (forward, 3 * forward)


def test_a_matrix_times_a_vector_counts() -> None:
    class Projection(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vector = nn.Parameter(torch.randn(SPEC.num_subpixels))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.vector

    forward = 2 * SPEC.num_subpixels
    assert counted(Projection()) == (forward, 2 * forward)


@pytest.mark.parametrize("name", TRAINED)
def test_counting_leaves_an_unprepared_model_and_the_random_state_alone(name: str) -> None:
    model = untrained_model(name, SMALL).eval()
    assert isinstance(model, GradientTrained)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    forward, training = count_flops(model, random_images(SMALL, 4), SEED)
    assert 0 < forward < training < 4 * forward
    blank = torch.zeros_like(random_images(SMALL, 4))  # what the train stage counts on
    assert count_flops(model, blank, SEED) == (forward, training)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_a_compiled_model_is_counted_by_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained_model("pixelcnn", SMALL)
    assert isinstance(model, GradientTrained)
    expected = count_flops(model, random_images(SMALL, 2), SEED)

    def compiled(images: Tensor) -> Tensor:
        raise AssertionError("the compiled form must not run")

    monkeypatch.setattr(model, "log_prob", compiled)
    assert count_flops(model, random_images(SMALL, 2), SEED) == expected
    assert model.log_prob is compiled
