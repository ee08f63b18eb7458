"""Trains (or fits) one model in one profile and writes its weights, its curve and its provenance.

A run that is paused by --stop-after-seconds, SIGTERM or Ctrl-C, or killed, continues from its last checkpoint when the
same command is given again. With --budget it trains a quarter or four times as long as the row (scaling/dvc.yaml).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from dgm.config.params import Params, load_params
from dgm.config.sections import FitConfig, RunConfig, TrainingConfig
from dgm.data.arrays import load_arrays
from dgm.data.splits import make_splits
from dgm.engine.fit import fit
from dgm.engine.flops import count_flops
from dgm.engine.graphed import GraphedTrainer
from dgm.engine.loop import Trainer
from dgm.engine.result import TrainingResult
from dgm.engine.session import Session
from dgm.engine.sliced import JointSession, SlicedTrainer
from dgm.errors import StageError
from dgm.fingerprints import training_key
from dgm.model_api.contracts import Fitted, GradientTrained, Model
from dgm.ranks import ALONE, Ranks, take_place, this_rank
from dgm.runs.atomic import file_digest
from dgm.runs.checkpoint import Scratch
from dgm.runs.files import ROW_BUDGET, BudgetFiles
from dgm.runs.provenance import device_name, make_provenance, package_versions
from dgm.runs.records import Provenance, write_curve, write_record
from dgm.runs.system_errors import shortage
from dgm.runs.weights import save_weights
from dgm.seeds import Stream, seed_global
from dgm.settings import acting_values, build_model, training_config
from dgm.tracking.experiment import NOTE
from dgm.tracking.mlflow_store import open_run
from dgm.tracking.results import machine_tags
from dgm.tracking.untracked_run import UntrackedRun
from dgm.types import CIFAR10, Images
from stages.about import about
from stages.budget import with_budget, with_budget_option
from stages.cli import DATA, PAUSED, make_parser, run_stage
from stages.compiler import compiling
from stages.device import prepare_device
from stages.launch import start_processes
from stages.outputs import check_outputs

MAX_COUNTED_IMAGES = 32  # floating-point operations are counted on a batch, or on this many of its images
UNFIT = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)  # a checkpoint that is none of ours
ModelT = TypeVar("ModelT", bound=Model)


@dataclass(frozen=True)
class Job:
    """Which model is trained, by which numbers, and where it computes."""

    model: str
    profile: str
    params: Params
    run: RunConfig
    device: torch.device
    ranks: Ranks = ALONE

    @property
    def where(self) -> str:
        """Of its settings in params.yaml."""
        return f"models.{self.model}.{self.profile}.training"


@dataclass(frozen=True)
class Limits:
    """checkpoint_seconds: how much a kill may cost; stop_after_seconds: when to pause, None to run to the end."""

    checkpoint_seconds: float
    stop_after_seconds: float | None = None


def main() -> None:
    ranks = this_rank()  # first of all, so that one rank alone reports what is wrong
    given = with_budget_option(make_parser(__doc__, can_pause=True)).parse_args()
    limits = Limits(given.checkpoint_every_seconds, given.stop_after_seconds)
    params = with_budget(load_params(), given.model, given.profile, given.budget)
    config, run = training_config(params, given.model, given.profile), params.common_config(given.profile).run
    start_processes(num_slices(config), given.device or run.device)
    is_finished = train(given.model, given.profile, params, given.device, limits, given.budget)
    ranks.leave()
    if not is_finished:
        raise SystemExit(PAUSED)


def train(
    name: str, profile: str, params: Params, device: str | None, limits: Limits, budget: str = ROW_BUDGET
) -> bool:
    """Trains, or goes on from a checkpoint, and writes what the stage leaves; False if it was paused before the end.

    params: of that budget.
    """
    run_config, config = params.common_config(profile).run, training_config(params, name, profile)
    ranks = this_rank()
    job = Job(name, profile, params, run_config, prepare_device(run_config, device), ranks)
    take_place(ranks, job.device)
    files, key = BudgetFiles(profile, name, budget=budget), training_key(params, name, profile)
    if ranks.count > num_slices(config):
        raise StageError(too_many_ranks(job, config))
    scratch, compiled = Scratch(profile, name, key), compiling(config, job.device.type, job.where)
    if not ranks.is_first:
        with compiled:
            return follow(job, config, scratch)
    check_outputs(files, scratch.folder, build_model(params, name, profile, CIFAR10))
    with compiled, scratch:
        saved = scratch.load()
        with open_run(profile, name, key, saved.get("run") if saved else None, "train") as run:
            said = about(params, profile, name)
            run.log_params(recorded_params(params, name, profile))
            run.set_tags({"family": said.family, NOTE: said.note_of(run.run_id)})
            run.set_tags(machine_tags(device_name(str(job.device)), package_versions()))
            run.set_tags({"budget": budget})
            kind = JointSession if num_slices(config) > 1 else Session
            session = kind(scratch, run, saved, limits.checkpoint_seconds, limits.stop_after_seconds)
            del saved  # it is large, and the session lets go of it too
            ranks.wait()  # the others read the checkpoint now
            try:
                if isinstance(config, FitConfig):
                    result = learn_by_fit(job, config, session)
                elif isinstance(session, JointSession):
                    result = learn_in_slices(job, config, session)
                elif is_graphed(config):
                    result = learn_by_graph(job, config, session)
                else:
                    result = learn_by_gradient(job, config, session)
            except UNFIT as error:
                raise_misfit(error, scratch, session)
            if not result.is_finished:
                run.finish("KILLED" if session.is_interrupted else "RUNNING")
                print(f"paused at step {result.num_steps}; the same command continues from there")
                return False
            save_weights(files.weights, result.state)
            write_curve(files.curve, result.curve)
            provenance = make_provenance(name, profile, str(job.device), result, None, run.run_id or None)
            origin = {"training_key": key, "weights_sha256": file_digest(files.weights)}
            write_record(files.provenance, replace(with_flops(provenance, job, config), **origin))
            run.log_metrics({"train_seconds": result.seconds, "images_seen": result.images_seen}, result.num_steps)
            run.log_artifact(files.curve, None)
        scratch.clear()
    return True


def follow(job: Job, config: TrainingConfig | FitConfig, scratch: Scratch) -> bool:
    """Any rank but the first: learns with it, and writes nothing. True: it is the first that says how it ended."""
    assert isinstance(config, TrainingConfig)  # a fit has one slice, and so one rank
    job.ranks.wait()
    session = JointSession(scratch, UntrackedRun(), scratch.load(), math.inf)
    try:
        learn_in_slices(job, config, session)
    except UNFIT as error:
        raise_misfit(error, scratch, session)
    return True


def raise_misfit(error: Exception, scratch: Scratch, session: Session) -> NoReturn:
    """Raises: StageError if the checkpoint was not taken over; the error itself if it has another cause."""
    if isinstance(error, StageError) or scratch.path is None or session.is_restored or shortage(error):
        raise error
    raise StageError(scratch.unfit(error)) from None


def num_slices(config: TrainingConfig | FitConfig) -> int:
    """How many processes can learn together at most."""
    return config.num_slices if isinstance(config, TrainingConfig) else 1


def is_graphed(config: TrainingConfig) -> bool:
    """Whether a GPU replays its steps."""
    return config.cuda_graph


def too_many_ranks(job: Job, config: TrainingConfig | FitConfig) -> str:
    """What is wrong, and how to mend it."""
    line = f"{job.ranks.count} processes cannot train {job.model} ({job.profile}) together: "
    if isinstance(config, FitConfig):
        return f"{line}it is fitted, not trained by gradient; start one"
    place = f"models.{job.model}.{job.profile}.training.num_slices"
    return f"{line}its batches have {config.num_slices} slice(s); set {place} to a multiple of {job.ranks.count}"


def recorded_params(params: Params, name: str, profile: str) -> dict[str, Any]:
    """What a run in MLflow says of its settings: model.<key>, training.<key> and so on, and run.<key>."""
    return {**acting_values(params, name, profile), "run": params.common_config(profile).run.model_dump()}


def learn_by_gradient(job: Job, config: TrainingConfig, session: Session) -> TrainingResult:
    """Everything that decides the numbers of a model that is trained by gradient."""
    model = new_model(job, GradientTrained)
    splits = make_splits(load_arrays(DATA), job.run.num_training_images)
    images, held_out = on_device(splits.train, job.device), on_device(splits.validation, job.device)
    return Trainer(model, images, held_out, config, job.run.seed, session).run()


def learn_by_graph(job: Job, config: TrainingConfig, session: Session) -> TrainingResult:
    """Everything that decides the numbers of a model whose steps a GPU replays."""
    model = new_model(job, GradientTrained)
    splits = make_splits(load_arrays(DATA), job.run.num_training_images)
    images, held_out = on_device(splits.train, job.device), on_device(splits.validation, job.device)
    return GraphedTrainer(model, images, held_out, config, job.run.seed, session).run()


def learn_in_slices(job: Job, config: TrainingConfig, session: JointSession) -> TrainingResult:
    """Everything that decides the numbers of a model that is trained by gradient in slices, on any number of ranks."""
    model = new_model(job, GradientTrained)
    splits = make_splits(load_arrays(DATA), job.run.num_training_images)
    images, held_out = on_device(splits.train, job.device), on_device(splits.validation, job.device)
    return SlicedTrainer(model, images, held_out, config, job.run.seed, session, job.ranks).run()


def learn_by_fit(job: Job, config: FitConfig, session: Session) -> TrainingResult:
    """Everything that decides the numbers of a model that is fitted in closed form or by EM."""
    model = new_model(job, Fitted)
    splits = make_splits(load_arrays(DATA), job.run.num_training_images)
    return fit(model, on_device(splits.train, job.device), config, job.run.seed, session)


def new_model(job: Job, kind: type[ModelT]) -> ModelT:
    """The untrained model, its random weights a function of the seed. Raises: TypeError if it learns another way."""
    seed_global(job.run.seed, Stream.CONSTRUCTION)
    model = build_model(job.params, job.model, job.profile, CIFAR10).to(job.device)
    if not isinstance(model, kind):
        raise TypeError(f"{job.model} is no {kind.__name__} model")
    return model


def on_device(images: np.ndarray, device: torch.device) -> Images:
    return torch.from_numpy(images.copy()).to(device)


def with_flops(provenance: Provenance, job: Job, config: TrainingConfig | FitConfig) -> Provenance:
    """Adds the floating-point operations of a trained model; afterwards, so that peak memory is that of training."""
    if isinstance(config, FitConfig):
        return provenance
    images = torch.zeros(min(config.batch_size, MAX_COUNTED_IMAGES), *CIFAR10.shape, dtype=torch.uint8)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):  # one pass is worth no search
        forward, training = count_flops(new_model(job, GradientTrained), images, job.run.seed)
    return replace(provenance, forward_flops_per_image=forward, training_flops_per_image=training)


if __name__ == "__main__":
    run_stage(main)
