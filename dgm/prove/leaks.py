"""Whether a conditional depends on its own sub-pixel or on a later one, and on which: the search for a leak.

A cut t proves many pairs at once: every sub-pixel from position t on is changed, and no conditional up to position t
may move. A pair (output j, input i) with j <= i is seen by every cut between the two, so that a few hundred cuts,
evenly spread, see nearly all of the D (D + 1) / 2 pairs, and all D cuts see all. Where the network is given real
numbers, the gradient of a random projection of the outputs before a cut to the inputs behind it says which input to
change. What was found is halved until one output and one input are left, and only such a pair, seen again in the
probabilities themselves, counts.

Two batches of one shape are compared, place by place: other shapes may take other algorithms, which round differently.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dgm.model_api.contracts import AutoregressiveModel
from dgm.prove.adapters import NetworkModel
from dgm.seeds import generator_for
from dgm.types import Images

VALUES_AT_ONCE = 1 << 22  # of all conditionals of a batch
ROUNDS_PER_BASE = 8  # changes of the same images before others are taken
GRADIENT_ROUNDS = 6


@dataclass(frozen=True)
class Leak:
    """The conditional of one sub-pixel moves with another, or is moved by another image (sees_images).

    output, first_input, last_input: flat indices into (C, H, W); the inputs are one where one alone does it.
    """

    output: int
    first_input: int
    last_input: int
    size: float
    sees_images: bool = False


@dataclass(frozen=True)
class Search:
    """cuts: those that were tried. share: of all (output, input) pairs that they see; own: of the pairs (j, j)."""

    leak: Leak | None
    num_cuts: int
    share: float
    own: float
    seconds: float


class LeakSearch:
    """One search on one model, which computes in the precision that `noise` belongs to."""

    def __init__(self, model: AutoregressiveModel[Any], images: Images, noise: float) -> None:
        """images: (N, C, H, W), N at least 1: half of the batches start from them, half from noise."""
        self.model, self.images, self.noise = model, images, noise
        self.spec, self.order = model.spec, model.order().cpu()
        self.size = max(4, min(32, VALUES_AT_ONCE // (self.spec.num_subpixels * self.spec.levels)))
        self.generator = generator_for(5)

    @torch.no_grad()
    def run(self, seconds: float) -> Search:
        """Until something is found, every cut was tried, or the time is over."""
        began, tried = time.monotonic(), list[int]()
        num_positions = len(self.order)
        cuts, is_late = spread_cuts(num_positions), False
        if leak := self._by_gradient(seconds / 4):
            return self._search(leak, [], began)
        base = self._base(0)
        reference = self._outputs(base)
        for number in range(num_positions):
            if number and number % ROUNDS_PER_BASE == 0:
                base = self._base(number // ROUNDS_PER_BASE)
                reference = self._outputs(base)
            batch = [cut for _, cut in zip(range(self.size), cuts, strict=False)]
            if not batch or is_late:
                break
            changed = self._changed(base, batch, number)
            moved = self._moved(self._outputs(changed), reference)
            for place, cut in enumerate(batch):
                if bool(moved[place, : cut + 1].any()) and (leak := self._pair(base, changed, place, cut)):
                    return self._search(leak, [*tried, cut], began)
            tried += batch
            is_late = time.monotonic() - began > seconds
        return self._search(None, tried, began)

    def _search(self, leak: Leak | None, tried: list[int], began: float) -> Search:
        share, own = coverage(tried, len(self.order))
        return Search(leak, len(tried), share, own, time.monotonic() - began)

    def _base(self, number: int) -> Images:
        if number % 2 == 0:
            return self.images[torch.randint(len(self.images), (self.size,), generator=self.generator)]
        shape = (self.size, *self.spec.shape)
        return torch.randint(0, self.spec.levels, shape, generator=self.generator).to(torch.uint8)

    def _changed(self, base: Images, cuts: list[int], number: int) -> Images:
        """Every sub-pixel from its cut on: at random, to the far end of the levels, or by one level."""
        levels, flat = self.spec.levels, base.flatten(1).long()[:, self.order]
        step = torch.randint(1, levels, flat.shape, generator=self.generator)
        far = torch.where(flat < levels / 2, levels - 1, 0)
        other = (((flat + step) % levels), far, (flat + 1) % levels)[number % 3]
        is_behind = (
            torch.arange(len(self.order)) >= torch.tensor(cuts + [len(self.order)] * (len(flat) - len(cuts)))[:, None]
        )
        return self._images(torch.where(is_behind, other, flat))

    def _images(self, in_order: Tensor) -> Images:
        flat = torch.empty_like(in_order, dtype=torch.uint8)
        flat[:, self.order] = in_order.to(torch.uint8)
        return flat.view(-1, *self.spec.shape)

    def _outputs(self, images: Images) -> Tensor:
        """What the conditionals are made of, by position. Shapes: -> (N, D, Q)."""
        if isinstance(self.model, NetworkModel):
            used = self.model.used(self.model.parameters_of(images.to(self.model.device)))
            return used.permute(0, 3, 1, 2, 4).flatten(1, 3).cpu()[:, self.order]
        return self._log_pmf(images)

    def _log_pmf(self, images: Images) -> Tensor:
        return self.model.log_pmf(images.to(self.model.device)).flatten(1, 3).cpu()[:, self.order]

    def _moved(self, one: Tensor, other: Tensor) -> Tensor:
        return self._distance(one, other) > self.noise

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        """Largest change relative to the largest number there, equal infinities being no change. Shapes: -> (N, D)."""
        change = torch.where(one == other, 0.0, (one - other).abs()).nan_to_num(nan=torch.inf).amax(dim=-1)
        largest = torch.where(other.isfinite(), other.abs(), 0.0).amax(dim=-1)
        return change / largest.clamp(min=1.0)

    def _pair(self, base: Images, changed: Images, place: int, cut: int) -> Leak | None:
        """The output and the input that are left after halving; None if the probabilities do not move."""
        reference = self._log_pmf(base)[place]

        def distances(inputs: Tensor, others: Images = base) -> Tensor:
            """How far the conditionals up to the cut move when only these positions of this image are changed."""
            images, flat = others.clone(), base[place].flatten().clone()
            places = self.order[inputs]
            flat[places] = changed[place].flatten()[places]
            images[place] = flat.view(self.spec.shape)
            return self._distance(self._log_pmf(images)[place, : cut + 1], reference[: cut + 1])

        is_changed = (base[place] != changed[place]).flatten()[self.order]
        inputs = is_changed.nonzero().flatten()
        found = distances(inputs)
        if not bool((found > self.noise).any()):
            found = distances(inputs[:0], changed)
            if not bool((found > self.noise).any()):
                return None
            output = int(found.argmax())
            return Leak(int(self.order[output]), -1, -1, float(found[output]), sees_images=True)
        output = int((found > self.noise).nonzero()[0])
        while len(inputs) > 1:
            halves = [half for half in inputs.tensor_split(2) if float(distances(half)[output]) > self.noise]
            if not halves:
                break
            inputs = halves[0]
        ends = [int(self.order[inputs[end]]) for end in (0, -1)]
        return Leak(int(self.order[output]), *ends, size=float(distances(inputs)[output]))

    def _by_gradient(self, seconds: float) -> Leak | None:
        """Changes the one input behind a cut that random projections of the outputs before it depend on most."""
        began = time.monotonic()
        for number, cut in zip(range(GRADIENT_ROUNDS), spread_cuts(len(self.order)), strict=False):
            if not isinstance(self.model, NetworkModel) or time.monotonic() - began > seconds:
                return None
            base = self._base(number)
            slopes = self._slopes(self.model, base, cut)
            if slopes is None:
                return None
            image, position = divmod(int(slopes[:, cut:].argmax()), len(self.order) - cut)
            if float(slopes[image, cut + position]) == 0.0:
                continue
            for trial in range(3):
                changed = self._changed(base, [cut] * self.size, trial)
                flat, other = base.flatten(1).clone(), changed.flatten(1)
                index = int(self.order[cut + position])
                flat[image, index] = other[image, index]
                if leak := self._pair(base, flat.view_as(base), image, cut):
                    return leak
        return None

    def _slopes(self, model: NetworkModel, images: Images, cut: int) -> Tensor | None:
        """Absolute gradients by position, (N, D); None where the network reads no real numbers of this shape."""
        given = model.given(images.to(model.device))
        if not given.is_floating_point() or given.shape != images.shape:
            return None
        with torch.enable_grad():
            given = given.detach().requires_grad_()
            used = model.used(model.read(model.network(given)))
            by_position = used.permute(0, 3, 1, 2, 4).flatten(1, 3)[:, self.order[: cut + 1].to(used.device)]
            weights = torch.randn(by_position.shape, generator=self.generator, dtype=by_position.dtype)
            if not by_position.requires_grad:
                return None
            (slopes,) = torch.autograd.grad(
                (by_position * weights.to(by_position.device)).sum(), given, allow_unused=True
            )
        if slopes is None:
            return None
        return slopes.abs().flatten(1).cpu()[:, self.order].nan_to_num(nan=0.0)


def spread_cuts(num_positions: int) -> Iterator[int]:
    """Every position once, evenly spread at all times: the bits of a counter in reverse."""
    num_bits = max(1, (num_positions - 1).bit_length())
    for number in range(1 << num_bits):
        cut = int(format(number, f"0{num_bits}b")[::-1], 2)
        if cut < num_positions:
            yield num_positions - 1 - cut


def coverage(cuts: list[int], num_positions: int) -> tuple[float, float]:
    """Share of the pairs (j, i), j <= i, with a cut between them, and of those with i = j."""
    if not cuts:
        return 0.0, 0.0
    edges = [-1, *sorted(set(cuts)), num_positions]
    gaps = [after - before - 1 for before, after in pairwise(edges)]
    unseen = sum(gap * (gap + 1) // 2 for gap in gaps)
    return 1 - unseen / (num_positions * (num_positions + 1) // 2), len(set(cuts)) / num_positions
