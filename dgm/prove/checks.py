"""What is asked of a stranger's model, line by line: each check ends in one CheckLine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dgm.conformance import checks, quadrature
from dgm.conformance.checks import Finding
from dgm.errors import StageError
from dgm.model_api.contracts import AutoregressiveModel, BoundModel, DensityModel, Model
from dgm.prove.adapters import NetworkModel
from dgm.prove.inputs import place
from dgm.prove.leaks import Leak, LeakSearch
from dgm.prove.opaque import Flow
from dgm.prove.precision import rounding_of
from dgm.prove.target import THEIRS, Target, described
from dgm.runs.certificates import FAILS, HOLDS, IMPOSSIBLE, SUMS_TO_ONE, CheckLine
from dgm.seeds import generator_for
from dgm.types import Images, ImageSpec

SAME = 1e-5  # relative: the same computation on the same image, in a batch of the same shape
CLOSE = 1e-4  # relative: in a batch of another shape, in float32
LONGEST_LINE = 480


def line(check: str, holds: bool | None, detail: str) -> CheckLine:
    """holds: None where it cannot be said."""
    mark = IMPOSSIBLE if holds is None else HOLDS if holds else FAILS
    return CheckLine(mark, check, detail[:LONGEST_LINE])


def guarded(check: str, answer: Callable[[], CheckLine], target: Target) -> CheckLine:
    """The answer, or ✗ with what the user's code raised."""
    try:
        return answer()
    except StageError as error:
        return line(check, False, str(error))
    except THEIRS as error:
        return line(check, False, described(error, target.folder))


def made_up_images(spec: ImageSpec, count: int) -> Images:
    """Half noise, half slopes with a little noise. Shapes: -> uint8 (N, C, H, W)."""
    generator = generator_for(9)
    noise = torch.randint(0, spec.levels, (count, *spec.shape), generator=generator)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, spec.height), torch.linspace(0, 1, spec.width), indexing="ij")
    angles = 6.3 * torch.rand(count, spec.channels, 1, 1, generator=generator)
    slopes = (0.5 + 0.3 * (rows * angles.cos() + columns * angles.sin())) * (spec.levels - 1)
    smooth = (slopes + noise / 16).clamp(0, spec.levels - 1)
    return torch.where(torch.arange(count).view(-1, 1, 1, 1) % 2 == 0, smooth, noise).to(torch.uint8)


@torch.no_grad()
def nats_of(model: Model[Any], images: Images) -> Tensor:
    """One scoring with the noise of seed 0. Shapes: -> float64 (N,)."""
    return model.log_likelihood(images.to(model.device), generator_for(0, device=model.device)).nats.double().cpu()


def deterministic(model: Model[Any], images: Images) -> CheckLine:
    first, _, again = nats_of(model, images), nats_of(model, images.flip(0)), nats_of(model, images)
    if not first.isfinite().all():
        image = int((~first.isfinite()).nonzero()[0])
        return line("determinism", False, f"image {image} costs {-float(first[image])} nats: nothing can be compared")
    worst = float((first - again).abs().max())
    what = "the same noise" if isinstance(model, DensityModel | BoundModel) else "the same figures"
    if worst == 0.0:
        return line("determinism", True, f"{len(images)} images scored, others scored, scored again: {what}, equal")
    image = int((first - again).abs().argmax())
    return line(
        "determinism", False, f"image {image} scored twice differs by {worst:.3g} nats: dropout, noise or memory"
    )


def in_eval_mode(model: Model[Any], images: Images) -> CheckLine:
    before = copy.deepcopy(model.state_dict())
    nats_of(model, images)
    training = [name for name, module in model.named_modules() if module.training]
    after = model.state_dict()
    moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
    if training:
        return line("eval mode", False, f"{training[0] or 'the model'} is in train mode after model.eval() and scoring")
    if moved:
        return line("eval mode", False, f"scoring changes {moved[0]}: the model learns from the images that it scores")
    return line("eval mode", True, "no module is in train mode, scoring changes no weight and no buffer")


def independent_of_the_batch(model: Model[Any], images: Images) -> CheckLine:
    name, spec = "batch independence", model.spec
    others = images.clone()
    others[1:] = spec.levels - 1 - others[1:]
    with_these, with_others = float(nats_of(model, images)[0]), float(nats_of(model, others)[0])
    if not abs(with_these - with_others) <= SAME * max(1.0, abs(with_these)):  # nor a NaN
        change = f"{with_these:.6g} nats become {with_others:.6g}"
        return line(name, False, f"image 0 depends on the other images of its batch: {change}")
    if isinstance(model, AutoregressiveModel | DensityModel):
        finding = checks.ignores_other_images(model, images.to(model.device), CLOSE)
        return line(name, finding.holds, f"among other images, in other batches and alone: {finding.detail}")
    return line(name, True, "an image among other images costs the same")


def targets_round_trip(model: Model[Any], images: Images) -> CheckLine:
    name, levels = "targets round-trip", model.spec.levels
    kept = images.clone()
    nats_of(model, images)
    if not torch.equal(kept, images):
        return line(name, False, "scoring writes into the images")
    flat = torch.arange(levels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *model.spec.shape)
    if isinstance(model, NetworkModel):
        given = torch.cat([model.given(part.to(model.device)) for part in flat.split(16)]).flatten(1)
        num = len(torch.unique(given, dim=0))
        return line(name, num == levels, f"{num} of {levels} levels are told apart by what the network reads")
    if isinstance(model, Flow):
        x = torch.cat([flat.double() + shift for shift in (0.0, 0.5, 0.99)])
        back = ((model.to_own_units(x) - model.low) / model.width + 1e-6).floor()
        return line(name, torch.equal(back, flat.double().repeat(3, 1, 1, 1)), f"{levels} levels to the range and back")
    return line(name, None, "the function is given the levels themselves; scoring leaves the images as they are")


def sums_to_one(model: Model[Any], images: Images) -> CheckLine:
    if isinstance(model, AutoregressiveModel):
        with torch.no_grad():
            excess = model.log_pmf(images.to(model.device)).double().logsumexp(dim=-1).abs()
        detail = f"{excess.numel():,} conditionals, log of the sum up to {float(excess.max()):.2g} off"
        if not float(excess.max()) < CLOSE:
            image, index = divmod(int(excess.nan_to_num(nan=torch.inf).argmax()), model.spec.num_subpixels)
            detail += f", at image {image}, sub-pixel {place(index, model.spec)}"
        return line(SUMS_TO_ONE, float(excess.max()) < CLOSE, detail)
    tiny: Callable[[], Model[Any]] | None = getattr(model, "tiny", None)
    if tiny is None:
        return line(
            SUMS_TO_ONE, None, "cannot be seen at full size; give the adapter `tiny`, the same code for few pixels"
        )
    finding = _sum_of_tiny(tiny().double().eval())
    return line(SUMS_TO_ONE, finding.holds, f"at tiny size: {finding.check}: {finding.detail}")


def _sum_of_tiny(model: Model[Any]) -> Finding:
    """Raises: StageError if the tiny model is too large to be summed."""
    spec = model.spec
    if isinstance(model, DensityModel):
        if spec.num_subpixels != 2:
            raise StageError(
                f"tiny must have 2 sub-pixels, ImageSpec(1, 1, 2, levels), to be integrated; it has {spec}"
            )
        finding = quadrature.integrates_to_one_on_a_grid(model)
        return finding if not finding.holds else quadrature.dequantization_is_a_bound(model)
    if spec.levels**spec.num_subpixels > 4096:
        raise StageError(f"tiny has more than 4,096 images: {spec}; try ImageSpec(1, 2, 2, levels=4)")
    if isinstance(model, BoundModel):
        return checks.bound_sums_to_at_most_one(model)
    total = float(nats_of(model, checks.all_images(spec)).exp().sum())
    return Finding("all images", abs(total - 1) < CLOSE, f"their probabilities sum to {total:.6f}")


def conditionals_add_up(model: Model[Any], images: Images) -> CheckLine:
    name = "log_prob is the sum of log_pmf"
    if not isinstance(model, AutoregressiveModel):
        return line(name, None, "there are no conditionals")
    finding = checks.conditionals_add_up(model, images.to(model.device), CLOSE)
    by_whom = "" if not isinstance(model, NetworkModel) or model.own_log_prob else " (both are the adapter's)"
    return line(name, finding.holds, finding.detail + by_whom)


def causal(target: Target, device: str, images: Images, seconds: float) -> CheckLine:
    """The search for a leak, on the model in float64 if it can compute in it."""
    name = "causality"
    model = target.load().to(device)
    if not isinstance(model, AutoregressiveModel):
        return line(name, None, "there are no conditionals whose causes could be looked for")
    try:
        model.double()
        certain, why = rounding_of(model, images[:1].to(device))
    except Exception as error:
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.float() if tensor.dtype == torch.float64 else tensor.data
        certain, _ = rounding_of(model, images[:1].to(device))
        why = f"float32, since float64 fails with {described(error, target.folder)[:150]}"
    search = LeakSearch(model, images, certain).run(seconds)
    how = why or "in float64"
    if search.floor:
        how += f", changes below {search.floor:.0e} are rounding here"
    if search.leak is not None:
        return line(name, False, f"{_leak_in_words(search.leak, model.spec)} ({how}; found in {search.seconds:.0f} s)")
    pairs = model.spec.num_subpixels * (model.spec.num_subpixels + 1) // 2
    seen = f"{search.num_cuts:,} cuts see {search.share:.2%} of {pairs:,} pairs (output, input not before it)"
    return line(name, True, f"no conditional moves; {seen}, {search.own:.0%} of those of a sub-pixel itself ({how})")


def _leak_in_words(leak: Leak, spec: ImageSpec) -> str:
    output = f"the conditional of {place(leak.output, spec)}"
    if leak.sees_images:
        return f"{output} depends on other images of the batch"
    inputs = place(leak.first_input, spec)
    if leak.first_input != leak.last_input:
        inputs = f"several sub-pixels between {inputs} and {place(leak.last_input, spec)} together"
    what = "its own sub-pixel" if leak.output == leak.first_input == leak.last_input else inputs
    return f"{output} depends on {what}: it moves by {leak.size:.2g} of the largest output"
