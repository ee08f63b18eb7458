"""The search for a leak: planted ones are found, down to the pair; causal networks are never accused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dgm.model_api.contracts import AutoregressiveModel
from dgm.prove import Logits, PixelMixture
from dgm.prove.checks import made_up_images
from dgm.prove.leaks import LeakSearch, Search, coverage, spread_cuts
from dgm.prove.precision import CERTAIN_IN_FLOAT32, CERTAIN_IN_FLOAT64, rounding_of
from dgm.registry import MODELS, model_class
from dgm.types import ImageSpec
from tests.prove.networks import CAUSAL, LEAKING, SPEC, Deep, WithPair, built
from tests.tiny import SMALL, tiny_model

OWN = [name for name in MODELS if issubclass(model_class(name), AutoregressiveModel)]
SECONDS = 20.0


def searched(model: AutoregressiveModel[Any], seconds: float = SECONDS, certain: float | None = None) -> Search:
    images = made_up_images(model.spec, 4)
    return LeakSearch(model, images, certain or rounding_of(model, images[:1])[0]).run(seconds)


def flat(channel: int, row: int, column: int, spec: ImageSpec = SPEC) -> int:
    return (channel * spec.height + row) * spec.width + column


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_network_is_not_accused(name: str, scale: float) -> None:
    search = searched(Logits(built(CAUSAL[name], scale), spec=SPEC).double())
    assert search.leak is None, search.leak
    assert search.share == search.own == 1.0 and search.floor == 0.0
    assert searched(Logits(built(CAUSAL[name], scale), spec=SPEC), 0.3).leak is None, "in float32"


@pytest.mark.parametrize("name", OWN)
def test_our_own_models_are_not_accused(name: str) -> None:
    model = tiny_model(name, SMALL)
    assert isinstance(model, AutoregressiveModel)
    assert searched(model, 1.0).leak is None


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.float64) for name in LEAKING]
    + [(name, torch.float32) for name in LEAKING if "layer sees" not in name],  # those move by 1e-10: no float32 does
)
def test_a_leak_is_found(name: str, dtype: torch.dtype) -> None:
    model = Logits(built(LEAKING[name]), spec=SPEC).to(dtype)
    leak = searched(model).leak
    assert leak is not None
    place = {int(index): position for position, index in enumerate(model.order())}
    assert place[leak.output] <= place[leak.first_input]


@pytest.mark.parametrize(
    ("output", "given", "strength"),
    [
        ((0, 2, 3), (2, 5, 1), 1e-2),
        ((1, 2, 3), (1, 2, 3), 1e-2),
        ((1, 4, 4), (2, 4, 4), 1e-6),
        ((2, 7, 7), (2, 7, 7), 1e-6),
        ((0, 0, 0), (2, 7, 7), 1e-6),
    ],
)
def test_one_pair_is_named(output: tuple[int, int, int], given: tuple[int, int, int], strength: float) -> None:
    network = WithPair(built(Deep), output, given, strength)
    leak = searched(Logits(network, spec=SPEC).double()).leak
    assert leak is not None
    assert (leak.output, leak.first_input, leak.last_input) == (flat(*output), flat(*given), flat(*given))


class Fourier(nn.Module):
    """A causal row of weights applied by Fourier transforms: every output is rounded by every input."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.cat([torch.zeros(1), torch.randn(23)]))
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        flat = x.permute(0, 2, 3, 1).flatten(1)
        num = flat.shape[1]
        h = torch.fft.irfft(torch.fft.rfft(flat, 2 * num) * torch.fft.rfft(self.weights, 2 * num), 2 * num)[:, :num]
        h = h + self.strength * flat
        h = h.view(-1, 8, 8, 3).permute(0, 3, 1, 2).unsqueeze(1)
        return h * torch.linspace(-1, 1, SPEC.levels, dtype=h.dtype).view(1, -1, 1, 1, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_that_every_input_takes_part_in_is_no_leak(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    search = searched(Logits(Fourier(0.0), spec=SPEC).to(dtype), 3.0)
    assert search.leak is None and search.floor > 0


def test_a_small_leak_is_told_from_rounding() -> None:
    torch.manual_seed(0)
    assert searched(Logits(Fourier(1e-12), spec=SPEC).double()).leak is not None


def test_what_comes_before_is_no_leak() -> None:
    network = WithPair(built(Deep), (0, 4, 4), (2, 4, 3), 1.0)
    assert searched(Logits(network, spec=SPEC).double()).leak is None


def test_the_order_decides() -> None:
    network = WithPair(built(Deep), (1, 2, 3), (0, 5, 5), 1.0)  # G of one pixel sees R of a later one
    assert searched(Logits(network, spec=SPEC).double()).leak is not None
    alone = WithPair(nn.Conv2d(3, 3 * SPEC.levels, 1).eval().requires_grad_(False), (1, 2, 3), (0, 5, 5), 1.0)
    alone.inner.weight.zero_()  # type: ignore[union-attr]
    assert searched(Logits(alone, order="planes", spec=SPEC).double()).leak is None
    backwards = torch.arange(SPEC.num_subpixels - 1, -1, -1)
    assert searched(Logits(alone, order=backwards, spec=SPEC).double()).leak is not None


def test_a_shift_of_all_logits_is_no_leak() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = built(Deep)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + x.mean()

    assert searched(Logits(Shifted(), spec=SPEC).double(), 3.0).leak is None


def test_the_weights_of_a_mixture_may_be_shifted_too() -> None:
    def network(x: Tensor) -> Tensor:
        parameters = torch.zeros(len(x), 20, 8, 8, dtype=x.dtype)
        parameters[:, :2] += x.mean()  # cancels in the softmax
        return parameters

    assert searched(PixelMixture(network, spec=SPEC).double(), 2.0).leak is None


def test_other_images_of_the_batch_are_named() -> None:
    class OfTheBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = built(Deep)

        def forward(self, x: Tensor) -> Tensor:
            others = x.sum(dim=(1, 2, 3)).roll(1).view(-1, 1, 1, 1)
            return self.inner(x) * (1 + 0.1 * others)

    leak = searched(Logits(OfTheBatch(), spec=SPEC).double()).leak
    assert leak is not None and leak.sees_images


def test_inputs_that_only_together_do_it_are_an_interval() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = built(Deep)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.inner(x).clone()
            logits[:, 0, 0, 0] += (x[:, 0, 3, 3] > 0) & (x[:, 2, 6, 6] > 0)
            return logits

    leak = searched(Logits(Product(), spec=SPEC).double()).leak
    assert leak is not None and leak.output == 0


def test_float32_inside_is_seen_and_told_apart() -> None:
    class Single(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            self.inner.float()
            return self.inner(x.float()).double()

    images = made_up_images(SPEC, 1)
    assert rounding_of(Logits(built(Deep), spec=SPEC).double(), images) == (CERTAIN_IN_FLOAT64, "")
    certain, why = rounding_of(Logits(Single(built(Deep)), spec=SPEC).double(), images)
    assert certain == CERTAIN_IN_FLOAT32 and "float32" in why


def test_cuts_are_spread_and_what_they_see_is_counted() -> None:
    for num_positions in (1, 2, 7, 192):
        cuts = list(spread_cuts(num_positions))
        assert sorted(cuts) == list(range(num_positions))
        for count in range(1, min(num_positions, 6) + 1):
            some = cuts[:count]
            pairs = [(j, i) for i in range(num_positions) for j in range(i + 1)]
            seen = sum(any(j <= cut <= i for cut in some) for j, i in pairs)
            assert coverage(some, num_positions) == pytest.approx((seen / len(pairs), count / num_positions))
    gaps = [after - before for before, after in itertools.pairwise(sorted(itertools.islice(spread_cuts(3072), 100)))]
    assert max(gaps) <= 64
