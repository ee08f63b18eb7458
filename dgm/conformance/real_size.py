"""What must hold of a trained model at the size that its figure is printed for. Each check is a Finding.

Causality is looked at from both ends: single sub-pixels are changed, by one level and to the far end of the levels;
and everything from a place in the order on is replaced by another image. No conditional at or before the change may
move. That an image costs what it costs whatever else is in the batch is asked with the same noise at the same place,
so that it can be asked of densities and bounds too. All in float64, where a dependence stands out from rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from dgm.conformance.checks import Finding, alone_and_among, conditionals_add_up, repeats_itself
from dgm.model_api.contracts import AutoregressiveModel, DensityModel, LatentVariableModel, Model
from dgm.seeds import generator_for
from dgm.types import Images

STILL = 1e-9  # nats: what a conditional may move in float64 without depending on anything
SAME = 1e-8  # relative: what a figure may move in float64 by sums in another order
AT_ONCE = 4  # images in a pass: their conditionals over 256 levels take 6 MB each, inside a mixture ten times that
CHANGES_AT_ONCE = AT_ONCE // 2  # each in two ways
CHANGED_IMAGES = 4  # that the changes are made in
IMPORTANCE_SAMPLES = 2
Track = Callable[[Iterable[int]], Iterable[int]]


@torch.no_grad()
def examine(
    model: Model, images: Images, num_changes: int, num_endings: int, seed: int, track: Track
) -> Iterator[Finding]:
    """Everything that can be asked of this kind of model, one finding after the other.

    Shapes: images uint8 (N, C, H, W), two or more. track: wraps the passes of the check that takes longest.
    Turns the model into float64 and evaluation mode.
    """
    model.double().eval()
    yield repeats_itself(model, images)
    yield ignores_neighbours(model, images, seed)
    if isinstance(model, AutoregressiveModel | DensityModel):
        yield costs_the_same_alone(model, images)
    if isinstance(model, AutoregressiveModel):
        yield conditionals_add_up(model, images[:AT_ONCE])
        yield sees_no_later_subpixel(model, images, num_changes, seed, track)
        yield sees_no_later_ending(model, images, num_endings, seed)


@torch.no_grad()
def ignores_neighbours(model: Model, images: Images, seed: int) -> Finding:
    """Each image keeps its place and its noise, the others of the batch become other images; its figure stays."""
    others = images.flip(0)
    is_odd = (torch.arange(len(images)) % 2 == 1).to(images.device)
    figures = [_figures(model, images, seed)]
    for is_other in (is_odd, ~is_odd):
        figures.append(_figures(model, torch.where(is_other.view(-1, 1, 1, 1), others, images), seed))
    among = torch.where(is_odd, figures[2], figures[1])
    return _same_figures("ignores its neighbours", figures[0], among, "beside other images")


@torch.no_grad()
def costs_the_same_alone(model: AutoregressiveModel | DensityModel, images: Images) -> Finding:
    """An image alone and in the batch; a density is asked at v + 1/2."""
    alone, among = alone_and_among(model, images)
    return _same_figures("costs the same alone", alone.unsqueeze(0), among.unsqueeze(0), "in a batch")


@torch.no_grad()
def sees_no_later_subpixel(
    model: AutoregressiveModel, images: Images, num_changes: int, seed: int, track: Track = iter
) -> Finding:
    """Random sub-pixels, each changed by one level and to the far end: nothing at or before one of them moves."""
    order, levels, generator = model.order(), model.spec.levels, generator_for(seed, 0)
    passes = -(-num_changes // model.spec.num_subpixels)  # no sub-pixel twice while there are others
    places = torch.cat([torch.randperm(model.spec.num_subpixels, generator=generator) for _ in range(passes)])
    down = torch.rand(num_changes, generator=generator) < 0.5
    name = "sees no later sub-pixel"
    used, before = -1, torch.empty(0)
    for start in track(range(0, num_changes, CHANGES_AT_ONCE)):
        chosen = start * min(CHANGED_IMAGES, len(images)) // num_changes
        image = images[chosen]
        changed = image.repeat(AT_ONCE, 1, 1, 1)
        if chosen != used:
            used, before = chosen, _conditionals(model, changed)
        rows: list[tuple[int, int]] = []  # row of the batch, place of its change
        for number in range(start, min(start + CHANGES_AT_ONCE, num_changes)):
            place = int(places[number])
            value = int(image.flatten()[order[place]])
            step = -1 if (down[number] and value > 0) or value == levels - 1 else 1
            for new in (value + step, 0 if value >= levels / 2 else levels - 1):
                changed.view(AT_ONCE, -1)[len(rows), order[place]] = new
                rows.append((len(rows), place))
        after = _conditionals(model, changed)
        for row, place in rows:
            if (seeing := _first_moved(before[row], after[row], order[: place + 1])) is not None:
                return _leak(name, seeing, int(order[place]))
    return Finding(name, True, f"{num_changes} sub-pixels changed, nothing at or before them moved")


@torch.no_grad()
def sees_no_later_ending(model: AutoregressiveModel, images: Images, num_endings: int, seed: int) -> Finding:
    """All sub-pixels from random places on become another image's: nothing at or before these places moves.

    So every pair of an earlier and a later sub-pixel is looked at, not only those of the sub-pixels that were drawn.
    """
    order, generator = model.order(), generator_for(seed, 1)
    places = torch.randint(model.spec.num_subpixels, (num_endings,), generator=generator).tolist()
    name = "sees no later ending"
    for number, place in enumerate(places):
        image, other = (images[(number + shift) % len(images)].flatten() for shift in (0, 1))

        def moved(first: int, end: int, image: Tensor = image, other: Tensor = other, place: int = place) -> int | None:
            """The first sub-pixel whose conditional moves if the places [first, end) are those of the other image."""
            both = image.repeat(2, 1)
            both[1, order[first:end]] = other[order[first:end]]
            before, after = _conditionals(model, both.view(2, *model.spec.shape))
            return _first_moved(before, after, order[: place + 1])

        if (seeing := moved(place, len(order))) is None:
            continue
        first, end = place, len(order)
        while end - first > 1:  # which of them it is
            middle = (first + end) // 2
            first, end = (first, middle) if moved(first, middle) is not None else (middle, end)
        return _leak(name, seeing, int(order[first]))
    return Finding(name, True, f"{num_endings} endings replaced, nothing at or before them moved")


def _figures(model: Model, images: Images, seed: int) -> Tensor:
    """What a row may print of each image, with noise that depends on the place alone. Shapes: -> (1 or 2, N)."""
    figures = [model.log_likelihood(images, generator_for(seed, 2, device=images.device)).nats]
    if isinstance(model, LatentVariableModel):
        generator = generator_for(seed, 3, device=images.device)
        figures.append(model.importance_weighted(images, generator, IMPORTANCE_SAMPLES).nats)
    return torch.stack(figures)


def _same_figures(check: str, one: Tensor, other: Tensor, where: str) -> Finding:
    """Shapes: (figures, N) each."""
    difference = ((one - other).abs() / one.abs().clamp(min=1.0)).nan_to_num(nan=torch.inf).amax(dim=0)
    worst = int(difference.argmax())
    if float(difference[worst]) <= SAME:
        return Finding(check, True, f"relative difference at most {float(difference[worst]):.2g}")
    figure = int((one - other).abs()[:, worst].argmax())
    detail = f"image {worst} costs {float(-one[figure, worst]):.6f} nats, {where} {float(-other[figure, worst]):.6f}"
    return Finding(check, False, detail)


def _conditionals(model: AutoregressiveModel, images: Images) -> Tensor:
    """Shapes: (N, C, H, W) -> (N, C * H * W, levels)."""
    return model.log_pmf(images).flatten(1, 3)


def _first_moved(before: Tensor, after: Tensor, places: Tensor) -> int | None:
    """The first sub-pixel of `places` whose conditional is another one; None if all are still.

    Shapes: (C * H * W, levels) twice, (places,) -> flat index.
    """
    one, other = before[places], after[places]
    is_still = ((one == other) | ((one - other).abs() <= STILL)).all(dim=-1)  # -inf equals -inf; NaN equals nothing
    return None if bool(is_still.all()) else int(places[int((~is_still).nonzero()[0])])


def _leak(check: str, seeing: int, seen: int) -> Finding:
    pair = f"(output {seeing}, input {seen})"
    return Finding(check, False, f"{pair}: the conditional of sub-pixel {seeing} moves with a later sub-pixel, {seen}")
