"""Fits a closed-form or EM model, with a checkpoint between iterations."""

from __future__ import annotations

import time

import torch

from dgm.config.sections import FitConfig
from dgm.engine.loop import TrainingResult, check_finite
from dgm.model_api.contracts import Fitted, Model
from dgm.runs.checkpoint import Scratch
from dgm.runs.progress import Progress
from dgm.seeds import Stream, generator_for
from dgm.tracking.tracked_run import TrackedRun
from dgm.types import Images
from dgm.units import nats_to_bits_per_subpixel


def fit(
    model: Model,
    images: Images,
    config: FitConfig,
    seed: int,
    scratch: Scratch,
    run: TrackedRun,
    checkpoint_seconds: float,
    stop_after_seconds: float | None = None,
) -> TrainingResult:
    """Runs start, the iterations and finish; goes on from the scratch checkpoint if there is one.

    Shapes: images uint8 (N, C, H, W), the whole training set.
    """
    assert isinstance(model, Fitted)
    began = time.monotonic()
    rows: list[list[float | None]] = []
    iteration, seconds_before = 0, 0.0
    if (saved := scratch.load()) is not None:
        model.load_state_dict(saved["model"])
        rows, iteration, seconds_before = saved["rows"], saved["iteration"], saved["seconds"]
    else:
        model.start(images, generator_for(seed, Stream.PREPARATION, device=images.device))

    def seconds() -> float:
        return seconds_before + time.monotonic() - began

    def save() -> None:
        run.flush()
        scratch.save(
            {"model": model.state_dict(), "rows": rows, "iteration": iteration, "seconds": seconds(), "run": run.run_id}
        )

    saved_at = time.monotonic()
    with Progress(config.num_iterations, f"fit {type(model).__name__}", None) as progress:
        while iteration < config.num_iterations:
            generator = generator_for(seed, Stream.STEP, iteration, device=images.device)
            nats = model.iterate(images, iteration, generator)
            check_finite(nats, f"log-likelihood at iteration {iteration}", scratch)
            bits = -nats_to_bits_per_subpixel(nats, model.spec)
            iteration += 1
            rows.append([iteration, iteration * len(images), None, bits, None])
            run.log_metrics({"train_bits_per_subpixel": bits}, iteration)
            progress.update(iteration, iteration * len(images) / max(seconds(), 1e-9), bits, None, 0.0, seconds())
            is_paused = stop_after_seconds is not None and time.monotonic() - began > stop_after_seconds
            if is_paused or time.monotonic() - saved_at > checkpoint_seconds:
                save()
                saved_at = time.monotonic()
            if is_paused and iteration < config.num_iterations:
                return TrainingResult({}, rows, seconds(), iteration * len(images), iteration, is_finished=False)
    model.finish(images)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    check_finite(float(sum(t.double().sum() for t in state.values() if torch.is_floating_point(t))), "fit", scratch)
    num_passes = max(config.num_iterations, 1)
    return TrainingResult(state, rows, seconds(), num_passes * len(images), config.num_iterations, is_finished=True)
