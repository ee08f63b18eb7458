"""Trains (or fits) one model in one profile and writes its weights, its curve and its provenance.

A run that is stopped, by --stop-after-seconds or by force, goes on where it was when the same command is given again.
"""

from __future__ import annotations

import torch

from dgm.config.params import load_params
from dgm.config.sections import FitConfig
from dgm.data.arrays import load_arrays
from dgm.data.splits import make_splits
from dgm.engine.fit import fit
from dgm.engine.flops import count_flops
from dgm.engine.loop import Trainer
from dgm.fingerprints import training_key
from dgm.runs.atomic import write_table
from dgm.runs.checkpoint import Scratch
from dgm.runs.files import RunFiles
from dgm.runs.provenance import make_provenance
from dgm.runs.records import CURVE_COLUMNS, write_record
from dgm.runs.weights import save_weights
from dgm.seeds import Stream, seed_global
from dgm.settings import acting_values, build_model, training_config
from dgm.tracking.mlflow_store import open_run
from dgm.types import CIFAR10
from stages.cli import DATA, PAUSED, parse_arguments, run_stage
from stages.device import prepare_device

MAX_COUNTED_IMAGES = 32  # floating-point operations are counted on a batch, or on so many of its images


def main() -> None:
    arguments = parse_arguments(__doc__, can_pause=True)
    name, profile = arguments.model, arguments.profile
    params = load_params()
    common = params.common_config(profile).run
    training = training_config(params, name, profile)
    device = prepare_device(common, arguments.device)
    files, key = RunFiles(profile, name), training_key(params, name, profile)
    seed_global(common.seed, Stream.CONSTRUCTION)
    model = build_model(params, name, profile, CIFAR10).to(device)
    splits = make_splits(load_arrays(DATA), common.num_training_images)
    images = torch.from_numpy(splits.train.copy()).to(device)
    with Scratch(profile, name, key) as scratch:
        saved = scratch.load()
        with open_run(profile, name, key, saved["run"] if saved else None, "train") as run:
            run.log_params({"model": acting_values(params, name, profile), "common": common.model_dump()})
            pause, save, flops = arguments.stop_after_seconds, arguments.checkpoint_every_seconds, None
            if isinstance(training, FitConfig):
                result = fit(model, images, training, common.seed, scratch, run, save, pause)
            else:
                counted = images[: min(training.batch_size, MAX_COUNTED_IMAGES)]
                flops = count_flops(model, counted, common.seed)
                held_out = torch.from_numpy(splits.validation.copy()).to(device)
                result = Trainer(model, images, held_out, training, common.seed, scratch, run, save).run(pause)
            if not result.is_finished:
                run.finish("RUNNING")
                print(f"paused at step {result.num_steps}; the same command goes on from there")
                raise SystemExit(PAUSED)
            save_weights(files.weights, result.state)
            write_table(files.curve, CURVE_COLUMNS, result.rows)
            write_record(files.provenance, make_provenance(name, profile, str(device), result, flops, run.run_id))
            run.log_metrics({"train_seconds": result.seconds, "images_seen": result.images_seen}, result.num_steps)
            run.log_artifact(files.curve, None)
        scratch.clear()


if __name__ == "__main__":
    run_stage(main)
