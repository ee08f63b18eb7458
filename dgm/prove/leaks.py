"""Whether a conditional depends on its own sub-pixel or on a later one, and on which: the search for a leak.

A cut t proves many pairs at once: every sub-pixel from position t on is changed, and no conditional up to position t
may move. A pair (output j, input i) with j <= i is seen by every cut between the two, so that a few hundred cuts,
evenly spread, see nearly all of the D (D + 1) / 2 pairs, and all D cuts see all. Where the network is given real
numbers, the gradient of a random projection of the outputs before a cut to the inputs behind it says which input to
change. What was found is halved until one output and one input are left.

In a deep network a leak may move an output by 1e-13, while networks that add up in another order (Fourier transforms,
GPUs) move by rounding. Two batches of one shape are compared, place by place: mostly nothing moves then, not by one
bit. What moves by less than `certain` counts only if it is no rounding: in images that are a little different
everywhere, the same change of the input must move the output in the same direction. A movement that fails this sets the
floor for all others.
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
NUM_VARIANTS = 10  # images in which a small movement must go the same way
SAME_DIRECTION = 0.5  # share of the squared movements that their mean keeps: 1 if all are equal, 1/10 for rounding
FLOOR_FACTOR = 4.0  # times a movement that was rounding


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
    """num_cuts: tried; share: of all (output, input) pairs that they see; own: of those (j, j); floor: see above."""

    leak: Leak | None
    num_cuts: int
    share: float
    own: float
    floor: float
    seconds: float


class LeakSearch:
    """One search on one model. certain: a relative movement that no rounding makes in the model's precision."""

    def __init__(self, model: AutoregressiveModel[Any], images: Images, certain: float) -> None:
        """images: (N, C, H, W), N at least 1: half of the batches start from them, half from noise."""
        self.model, self.images, self.certain, self.floor = model, images, certain, 0.0
        self.spec, self.order = model.spec, model.order().cpu()
        self.size = max(4, min(32, VALUES_AT_ONCE // (self.spec.num_subpixels * self.spec.levels)))
        self.generator = generator_for(5)

    @torch.no_grad()
    def run(self, seconds: float) -> Search:
        """Until something is found, every cut was tried, or `seconds` of computing are over."""
        began, tried = _cpu_seconds(), list[int]()
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
            moved = _distance(self._outputs(changed), reference) > self.floor
            for place, cut in enumerate(batch):
                if bool(moved[place, : cut + 1].any()) and (leak := self._pair(base, changed, place, cut)):
                    return self._search(leak, [*tried, cut], began)
            tried += batch
            is_late = _cpu_seconds() - began > seconds
        return self._search(None, tried, began)

    def _search(self, leak: Leak | None, tried: list[int], began: float) -> Search:
        share, own = coverage(tried, len(self.order))
        return Search(leak, len(tried), share, own, self.floor, _cpu_seconds() - began)

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
        return self.model.log_pmf(images.to(self.model.device)).flatten(1, 3).cpu()[:, self.order]

    def _pair(self, base: Images, changed: Images, place: int, cut: int) -> Leak | None:
        """The output that moves most and the input that is left after halving; None if it is rounding."""
        reference = self._outputs(base)[place]

        def distances(inputs: Tensor, others: Images = base) -> Tensor:
            """How far the conditionals up to the cut move when only these positions of this image are changed."""
            images, flat = others.clone(), base[place].flatten().clone()
            places = self.order[inputs]
            flat[places] = changed[place].flatten()[places]
            images[place] = flat.view(self.spec.shape)
            return _distance(self._outputs(images)[place], reference)[: cut + 1]

        inputs = (base[place] != changed[place]).flatten()[self.order].nonzero().flatten()
        found = distances(inputs)
        output, size = int(found.argmax()), float(found.max())
        if size <= self.floor:
            by_others = distances(inputs[:0], changed)
            if float(by_others.max()) <= self.certain:
                self.floor = max(self.floor, FLOOR_FACTOR * float(by_others.max()))
                return None
            return Leak(int(self.order[int(by_others.argmax())]), -1, -1, float(by_others.max()), sees_images=True)
        while len(inputs) > 1:
            halves = inputs.tensor_split(2)
            sizes = [float(distances(half)[output]) for half in halves]
            if max(sizes) <= self.floor:
                break
            inputs = halves[sizes.index(max(sizes))]
        size = float(distances(inputs)[output])
        if size <= self.certain and not self._is_the_same_everywhere(base, changed, place, inputs, output):
            self.floor = max(self.floor, FLOOR_FACTOR * size)
            return None
        return Leak(int(self.order[output]), *(int(self.order[inputs[end]]) for end in (0, -1)), size=size)

    def _is_the_same_everywhere(self, base: Images, changed: Images, place: int, inputs: Tensor, output: int) -> bool:
        """Whether the change moves the output in one direction when all sub-pixels are a level higher or lower."""
        movements, levels, places = list[Tensor](), self.spec.levels, self.order[inputs]
        while len(movements) < NUM_VARIANTS:
            steps = torch.randint(-1, 2, base.shape, generator=self.generator)
            without = (base[place].long() + steps).clamp(0, levels - 1).to(torch.uint8).flatten(1)
            without = without.reshape(self.size, -1)
            without[:, places] = base[place].flatten()[places]
            given = without.clone()
            given[:, places] = changed[place].flatten()[places]
            pair = [self._outputs(images.view_as(base))[:, output] for images in (without, given)]
            movements += list((pair[1] - pair[0]).nan_to_num(nan=0.0).unbind())
        together = torch.stack(movements).double()
        squares = float((together**2).sum(dim=-1).mean())
        return squares > 0 and float((together.mean(dim=0) ** 2).sum()) > SAME_DIRECTION * squares

    def _by_gradient(self, seconds: float) -> Leak | None:
        """Changes the one input behind a cut that random projections of the outputs before it depend on most."""
        began = _cpu_seconds()
        for number, cut in zip(range(GRADIENT_ROUNDS), spread_cuts(len(self.order)), strict=False):
            if not isinstance(self.model, NetworkModel) or _cpu_seconds() - began > seconds:
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
            projection = (by_position * weights.to(by_position.device)).sum()
            slopes = torch.autograd.grad(projection, given, allow_unused=True, materialize_grads=True)[0]
        return slopes.abs().flatten(1).cpu()[:, self.order].nan_to_num(nan=0.0)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Largest change of each output, relative to the image's largest number; equal infinities are no change.

    Rounding may be of the size of other outputs than the one that is rounded. Shapes: (..., D, Q) -> (..., D).
    """
    change = torch.where(one == other, 0.0, (one - other).abs()).nan_to_num(nan=torch.inf).amax(dim=-1)
    largest = torch.where(other.isfinite(), other.abs(), 0.0).amax(dim=(-2, -1)).unsqueeze(-1)
    return change / largest.clamp(min=torch.finfo(other.dtype).tiny)


def _cpu_seconds() -> float:
    """Of each core at work: what else the machine does takes nothing from a search."""
    return time.process_time() / torch.get_num_threads()


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
