"""Takes over what `python -m stages.suite` packed on another machine: FOLDER holds the parts, any number of them.

Every row's hashes and keys are checked before anything is written. Then its files are put in place, params.yaml gets
the seconds that it trained, the run is recorded in MLflow, DVC takes the results as those of its stages, and the report
is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dvc.utils.hydra import apply_overrides

from dgm.config.params import PARAMS_FILE, load_params
from dgm.errors import StageError
from dgm.runs.files import RunFiles, ladder_file, reference_codecs_file
from dgm.runs.records import Provenance, read_curve, read_record, write_record
from dgm.suite.acceptance import Accepted, overrides, read_arrival, write_arrival
from dgm.suite.row import STAGES
from dgm.tracking.mlflow_store import open_run
from stages.cli import run_stage
from stages.dvc_command import dvc
from stages.report import write_report
from stages.train import recorded_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where results_01.zip ... are")
    folder = parser.parse_args().folder
    arrival = read_arrival(folder, Path(".scratch"))
    if arrival.rows:
        take_over(arrival.rows)
    for accepted in arrival.rows:
        print(line_of(accepted))
    if arrival.refused:
        raise StageError("\n       ".join(arrival.refused))


def take_over(rows: Sequence[Accepted]) -> None:
    """Everything after the checks. Raises: StageError if DVC does not take the results."""
    profile = load_params().profile
    others = {accepted.row.profile for accepted in rows} - {profile}
    if others:
        wanted = ", ".join(sorted(others))
        raise StageError(f"params.yaml: profile is {profile}, the results are of {wanted}; write `profile: {wanted}`")
    if changes := overrides(rows):
        apply_overrides(PARAMS_FILE, changes)
    write_arrival(rows)
    for accepted in rows:
        replay(accepted)
    whole = [accepted for accepted in rows if "train" in accepted.stages]  # every stage depends on the weights
    targets = [f"{stage}@{profile}-{accepted.row.model}" for accepted in whole for stage in accepted.stages]
    dvc("repro", "check")
    if targets:
        dvc("commit", "-f", *targets)
    report(profile)


def report(profile: str) -> None:
    """Writes the report, as a stage of DVC where what it waits for is there."""
    if reference_codecs_file(profile).exists() and ladder_file(profile).exists():
        dvc("repro", "-s", f"report@{profile}")
    else:  # the stage waits for these two, which no row makes
        write_report(profile)


def replay(accepted: Accepted) -> None:
    """Records the training in MLflow here; its provenance then names that run."""
    row, files = accepted.row, RunFiles(accepted.row.profile, accepted.row.model)
    provenance = read_record(files.provenance, Provenance)
    if provenance is None:
        return
    with open_run(row.profile, row.model, row.training_key, None, "train") as run:
        run.log_params(recorded_params(load_params(), row.model, row.profile))
        for point in read_curve(files.curve):
            values = asdict(point)
            step = values.pop("step")
            del values["images_seen"]
            run.log_metrics({name: value for name, value in values.items() if value is not None}, step)
        totals = {"train_seconds": provenance.train_seconds, "images_seen": provenance.images_seen}
        run.log_metrics(totals, provenance.num_steps)
        run.log_artifact(files.curve, None)
        origin = {"training_key": row.training_key, "weights_sha256": row.files.get("train", {}).get(row.weights)}
        write_record(files.provenance, replace(provenance, mlflow_run_id=run.run_id or None, **origin))


def line_of(accepted: Accepted) -> str:
    """What was taken over of a row, and what that leaves to do."""
    row = accepted.row
    if "train" not in accepted.stages:
        return f"{row.model} ({row.profile}): records accepted; its weights are in no part, `dvc repro` would train it"
    missing = ", ".join(stage for stage in STAGES if stage not in accepted.stages)
    return f"{row.model} ({row.profile}): accepted" + (f"; `dvc repro` would run {missing}" if missing else "")


if __name__ == "__main__":
    run_stage(main)
