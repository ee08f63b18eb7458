"""Fits a closed-form or EM model, with a checkpoint between iterations."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch

from dgm.config.parse import Config
from dgm.config.sections import FitConfig
from dgm.engine.finite import NonFiniteError, first_non_finite
from dgm.engine.restore import check_progress, check_tensors
from dgm.engine.result import TrainingResult
from dgm.engine.session import Session
from dgm.model_api.contracts import Fitted
from dgm.runs.progress import Progress
from dgm.runs.records import CurvePoint
from dgm.seeds import Stream, generator_for
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel


def fit(model: Fitted, images: Images, config: FitConfig, seed: int, session: Session) -> TrainingResult:
    """Runs start, the iterations and finish; continues from the session's checkpoint if it has one.

    An iteration counts the images that it looks at, a closed form those that `start` looks at.
    Shapes: images uint8 (N, C, H, W), the whole training set.
    Raises: NonFiniteError naming the iteration and the tensor that is not finite.
    """
    iteration = images_seen = 0
    if (saved := session.begin()) is not None:
        iteration, images_seen = _restore(model, images, config, saved, session)
    else:
        with _usable(model, "the closed form" if not config.num_iterations else "the start of EM", session):
            model.start(images, generator_for(seed, Stream.PREPARATION, device=images.device))
    first_iteration = iteration
    with Progress(config.num_iterations, f"fit {type(model).__name__}", None) as bar, session.stop:
        while iteration < config.num_iterations:
            is_paused = session.must_pause(has_advanced=iteration > first_iteration)
            if is_paused or session.is_checkpoint_due:
                session.save({"model": model.state_dict(), "iteration": iteration, "images_seen": images_seen})
            if is_paused:
                return TrainingResult({}, session.curve, session.seconds, images_seen, iteration, is_finished=False)
            with _usable(model, f"EM iteration {iteration}", session):
                bits = _iterate(model, images, iteration, seed, session)
            images_seen += len(model.images_used(images, iteration))
            iteration += 1
            session.record(CurvePoint(iteration, images_seen, None, bits, None))
            session.show(bar, iteration, images_seen, bits, learning_rate=0.0)
    with _usable(model, "the end of the fit", session):
        model.finish(images)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if not config.num_iterations:
        images_seen = len(model.images_used(images))
    return TrainingResult(state, session.curve, session.seconds, images_seen, iteration, is_finished=True)


def _restore(
    model: Fitted, images: Images, config: FitConfig, saved: dict[str, Any], session: Session
) -> tuple[int, int]:
    """Iterations and images seen. Raises: ValueError, or another error of Python's, if this fit did not save it."""
    iteration, images_seen = saved["iteration"], saved["images_seen"]
    counts = accumulate(
        len(model.images_used(images, number)) for number in range(min(iteration, config.num_iterations))
    )
    points = [(number, count) for number, count in enumerate(counts, start=1)]
    check_progress(saved, ("iteration", "images_seen"), config.num_iterations, points, session.curve)
    if images_seen != (points[-1][1] if points else 0):
        raise ValueError(f"{images_seen} images seen at iteration {iteration}")
    check_tensors(saved["model"], model.state_dict(), "model")
    model.load_state_dict(saved["model"])
    return iteration, images_seen


def _iterate(model: Fitted, images: Images, iteration: int, seed: int, session: Session) -> float:
    """One EM iteration; bits per sub-pixel of the training images before it."""
    nats = model.iterate(images, iteration, generator_for(seed, Stream.STEP, iteration, device=images.device))
    if not math.isfinite(nats):
        name = first_non_finite(model.state_dict())
        what = f"log-likelihood at EM iteration {iteration} is {nats}" + (f", {name} is not finite" if name else "")
        raise NonFiniteError(what, session.checkpoint, _remedy(model.config))
    return -nats_to_bits_per_subpixel(nats, model.spec)


@contextmanager
def _usable(model: Fitted, what: str, session: Session) -> Generator[None]:
    """Raises: NonFiniteError if the step fails on a matrix, or leaves the model with a tensor that is not finite."""
    try:
        yield
    except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
        problem = f"{what} failed ({' '.join(str(error).split())[:200]})"
        raise NonFiniteError(problem, session.checkpoint, _remedy(model.config)) from None
    if name := first_non_finite(model.state_dict()):
        raise NonFiniteError(f"{name} is not finite after {what}", session.checkpoint, _remedy(model.config))


def _remedy(config: Config) -> str:
    """What to change in the model's block of params.yaml, by the names that this block has."""
    names = list(type(config).model_fields)
    raised = [name for name in names if name.endswith("pseudo_counts") or name in ("pseudo_count", "ridge")]
    parts = [f"Raise {', '.join(raised)}"] if raised else []
    parts += [f"{'lower' if parts else 'Lower'} num_components"] if "num_components" in names else []
    if not parts:
        parts = ["Fit on more images (num_fit_images)" if "num_fit_images" in names else "Check the training images"]
    return f"{' or '.join(parts)} in params.yaml"
