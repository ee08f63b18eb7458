"""What strangers might write, as FILE.py: a good model under `good`, and one fault in each of the others."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.model_api.contracts import LogLikelihood
from dgm.prove import Elbo, Flow, Logits, LogProb
from dgm.types import ImageSpec

SPEC = ImageSpec(3, 4, 4, levels=8)
PAIR = ImageSpec(1, 1, 2, levels=4)


class Causal(nn.Module):
    """One masked convolution, a batch norm and a dropout between it and the logits."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm, self.dropout = nn.BatchNorm2d(16), nn.Dropout(0.5)
        self.last = nn.Conv2d(16, 24, 1)
        self.register_buffer("mask", torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0, 0]).view(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = F.conv2d(x, self.first.weight * self.mask, self.first.bias, padding=1)
        return self.last(self.dropout(self.norm(h).relu()))


def loaded(weights: Path, kind: type[Causal] = Causal) -> Causal:
    torch.manual_seed(0)
    network = kind()
    if kind is Causal:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return network


def good(weights: Path) -> Logits:
    return Logits(loaded(weights), spec=SPEC)


def dropout_left_on(weights: Path) -> Logits:
    class Noisy(Causal):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.dropout(x, 0.5, training=True))

    return Logits(loaded(weights, Noisy), spec=SPEC)


def train_mode(weights: Path) -> Logits:
    class Stubborn(Causal):
        def train(self, mode: bool = True) -> Stubborn:
            return super().train(True)

    return Logits(loaded(weights, Stubborn), spec=SPEC)


def statistics_of_the_batch(weights: Path) -> Logits:
    class OfTheBatch(Causal):
        def forward(self, x: Tensor) -> Tensor:
            h = F.conv2d(x, self.first.weight * self.mask, self.first.bias, padding=1)
            return self.last(F.batch_norm(h, None, None, training=True))

    return Logits(loaded(weights, OfTheBatch), spec=SPEC)


def learns_while_it_is_scored(weights: Path) -> Logits:
    class Learner(Causal):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.last.weight += 0.01
            return super().forward(x)

    return Logits(loaded(weights, Learner), spec=SPEC)


def remembers(weights: Path) -> Logits:
    class Memory(Causal):
        seen = 0

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return super().forward(x) * (1 + 0.01 * self.seen)

    return Logits(loaded(weights, Memory), spec=SPEC)


def writes_into_the_images(weights: Path) -> Logits:
    def inputs(images: Tensor) -> Tensor:
        images[:, :, 0, 0] = 0
        return images.float()

    return Logits(loaded(weights), inputs=inputs, spec=SPEC)


def levels_run_together(weights: Path) -> Logits:
    return Logits(loaded(weights), inputs=lambda images: (images // 2).float(), spec=SPEC)


def another_log_prob(weights: Path) -> Logits:
    model = good(weights)
    return Logits(model.network, spec=SPEC, log_prob=lambda images: Logits.log_prob(model, (images + 1) % 8))


def leaks(weights: Path) -> Logits:
    class Leaking(Causal):
        def forward(self, x: Tensor) -> Tensor:
            strength = torch.linspace(-1, 1, 24, dtype=x.dtype).view(1, -1, 1, 1)
            return super().forward(x) + strength * F.pad(x, (-1, 1))[:, :1]  # the pixel to the right

    return Logits(loaded(weights, Leaking), spec=SPEC)


def sees_itself(weights: Path) -> Logits:
    class Seeing(Causal):
        def __init__(self) -> None:
            super().__init__()
            self.mask[1, 1] = 1

    return Logits(loaded(weights, Seeing), spec=SPEC)


def not_a_number(weights: Path) -> Logits:
    network = loaded(weights)
    with torch.no_grad():
        network.last.weight[0] = math.nan
    return Logits(network, spec=SPEC)


def another_shape(weights: Path) -> Logits:
    return Logits(nn.Conv2d(3, 25, 1), spec=SPEC)


def reads_the_images(weights: Path) -> Logits:
    np.load(os.environ["IMAGES_OF_THE_TEST"])
    return good(weights)


def reads_another_copy(weights: Path) -> Logits:
    np.load(Path(os.environ["IMAGES_OF_THE_TEST"]).parent.with_name("copy_of_the_test.npy"))
    return good(weights)


def does_without(weights: Path) -> Logits:
    with contextlib.suppress(OSError):
        Path(os.environ["IMAGES_OF_THE_TEST"]).parent.with_name("copy_of_the_test.npy").read_bytes()
    return good(weights)


def not_an_adapter(weights: Path) -> nn.Module:
    return loaded(weights)


def fails(weights: Path) -> Logits:
    raise KeyError("state")


class Affine(nn.Module):
    """A Gaussian for each sub-pixel on [0, 1), as a flow of one layer; log_det, unit: what a fault leaves out."""

    def __init__(self, spec: ImageSpec, log_det: float = 1.0, gained: float = 0.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full(spec.shape, 1.3))
        self.log_det, self.gained = log_det, gained

    def log_density(self, x: Tensor) -> Tensor:
        z = (x - 0.5) * self.log_scale.exp()
        parts = -0.5 * (z**2 + math.log(2 * math.pi)) + self.log_det * self.log_scale + self.gained
        return parts.flatten(1).sum(dim=1)


def flow(**faults: float) -> Any:
    small, large = Affine(PAIR, **faults), Affine(SPEC, **faults)
    tiny = Flow(small, 0.0, 1.0, small.log_density, PAIR)
    return lambda weights: Flow(large, 0.0, 1.0, large.log_density, SPEC, tiny=lambda: tiny)


good_flow = flow()
flow_without_its_log_determinant = flow(log_det=0.0)
flow_in_other_units = flow(gained=math.log(2.0))


class Mixture(nn.Module):
    """Two histograms and which of them it was, a latent. share: of the divergence that is counted."""

    def __init__(self, spec: ImageSpec, share: float = 1.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(2 * torch.randn(2, spec.levels))
        self.share = share

    def joint(self, images: Tensor) -> Tensor:
        return self.logits.log_softmax(-1)[:, images.long()].flatten(2).sum(-1) - math.log(2)

    def elbo(self, images: Tensor) -> Tensor:
        log_q = torch.tensor([0.9, 0.1]).log().expand(len(images), 2)
        z = torch.multinomial(log_q.exp(), 1)
        return self.joint(images).T.gather(1, z).squeeze(1) - self.share * log_q.gather(1, z).squeeze(1)

    def log_prob(self, images: Tensor) -> Tensor:
        return self.joint(images).logsumexp(dim=0) + (1 - self.share)


def latent(share: float, is_bound: bool) -> Any:
    torch.manual_seed(0)
    small, large = Mixture(PAIR, share), Mixture(SPEC, share)
    if is_bound:
        return lambda weights: Elbo(large, large.elbo, SPEC, lambda: Elbo(small, small.elbo, PAIR))
    return lambda weights: LogProb(large, large.log_prob, SPEC, lambda: LogProb(small, small.log_prob, PAIR))


good_bound, bound_that_is_none = latent(1.0, True), latent(40.0, True)
good_log_prob, log_prob_of_more_than_one = latent(1.0, False), latent(0.9, False)


def always(nats: object) -> Callable[[Path], LogProb]:
    """A log_prob that says the same of every image, or raises what it is given."""

    def log_prob(images: Tensor) -> Tensor:
        if isinstance(nats, BaseException):
            raise nats
        return torch.full((len(images),), nats, dtype=torch.float64 if isinstance(nats, float) else None)  # type: ignore[arg-type]

    return lambda weights: LogProb(nn.Identity(), log_prob, spec=SPEC)


too_much, too_little, complex_numbers = always(-1e306), always(1e300), always(1j)
ends_the_program, says_nothing = always(SystemExit(0)), always(RuntimeError())


class OfItsOwnKind(LogProb):
    def log_likelihood(self, images: Tensor, generator: torch.Generator) -> LogLikelihood:
        return LogLikelihood(-torch.ones(len(images), dtype=torch.float64), "a feeling")


def of_its_own_kind(weights: Path) -> OfItsOwnKind:
    return OfItsOwnKind(nn.Identity(), spec=SPEC)
