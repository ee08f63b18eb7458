"""Takes over what `python -m stages.suite` packed on another machine: FOLDER holds the parts, any number of them.

Every row's hashes and keys are checked, and its run in MLflow is opened, before anything is written. Then its files are
put in place, params.yaml gets the seconds that it trained, the run is recorded, DVC takes the results as those of its
stages, and the report is written. Given again, the command finishes what was cut.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from dvc.utils.hydra import apply_overrides

from dgm.config.documents import check_documents
from dgm.config.params import PARAMS_FILE, load_params
from dgm.errors import StageError
from dgm.runs.atomic import write_text
from dgm.runs.files import RunFiles, ladder_file, reference_codecs_file
from dgm.runs.records import read_curve, write_record
from dgm.suite.acceptance import Accepted, known_run, overrides, provenance_of, read_arrival, write_arrival
from dgm.suite.row import STAGES
from dgm.tracking.experiment import NOTE
from dgm.tracking.mlflow_store import open_run
from dgm.tracking.results import training_tags
from dgm.tracking.tracked_run import TrackedRun
from dgm.tracking.untracked_run import UntrackedRun
from stages.about import about
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
    """Everything after the checks. Cut at any time, it is finished by the same command.

    Nothing is written before DVC has looked at data and parameters and a run of each row is open in MLflow.
    Raises: StageError if one of them does not take the results.
    """
    profile = load_params().profile
    others = {accepted.row.profile for accepted in rows} - {profile}
    if others:
        wanted = ", ".join(sorted(others))
        raise StageError(f"params.yaml: profile is {profile}, the results are of {wanted}; write `profile: {wanted}`")
    check_documents()  # DVC writes dvc.lock in place: a kill may have cut it
    dvc("repro", "download", "check")
    with ExitStack() as stack:
        runs = [stack.enter_context(begun_run(accepted)) for accepted in rows]
        if changes := overrides(rows):
            write_text(PARAMS_FILE, changed_params(changes))
        write_arrival(rows)
        for accepted, run in zip(rows, runs, strict=True):
            replay(accepted, run)
    whole = [accepted for accepted in rows if "train" in accepted.stages]  # every stage depends on the weights
    targets = [f"{stage}@{profile}-{accepted.row.model}" for accepted in whole for stage in accepted.stages]
    dvc("repro", "check")
    if targets:
        dvc("commit", "-f", *targets)
    report(profile)


def changed_params(changes: list[str]) -> str:
    """The text of params.yaml after the changes, laid out as DVC does; DVC itself would write it in place."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PARAMS_FILE.name
        path.write_bytes(PARAMS_FILE.read_bytes())
        apply_overrides(path, changes)
        return path.read_text(encoding="utf-8")


def report(profile: str) -> None:
    """Writes the report, as a stage of DVC where what it waits for is there."""
    if reference_codecs_file(profile).exists() and ladder_file(profile).exists():
        dvc("repro", "-s", f"report@{profile}")
    else:  # the stage waits for these two, which no row makes
        write_report(profile)


def begun_run(accepted: Accepted) -> TrackedRun | UntrackedRun:
    """The row's run in MLflow: the one of an earlier acceptance of the same results, or a new one.

    Raises: StageError if the store cannot be reached or used.
    """
    row = accepted.row
    if provenance_of(accepted) is None:
        return UntrackedRun()
    return open_run(row.profile, row.model, row.training_key, known_run(accepted), "accept")


def replay(accepted: Accepted, run: TrackedRun | UntrackedRun) -> None:
    """Records the training in its run, and writes its provenance, which names that run."""
    row, files = accepted.row, RunFiles(accepted.row.profile, accepted.row.model)
    provenance = provenance_of(accepted)
    if provenance is None:
        return
    params = load_params()
    said = about(params, row.profile, row.model)
    run.log_params(recorded_params(params, row.model, row.profile))
    run.set_tags({"family": said.family, NOTE: said.note_of(run.run_id), **training_tags(provenance)})
    for point in read_curve(files.curve):
        values = asdict(point)
        step = values.pop("step")
        del values["images_seen"]
        run.log_metrics({name: value for name, value in values.items() if value is not None}, step)
    totals = {"train_seconds": provenance.train_seconds, "images_seen": provenance.images_seen}
    run.log_metrics(totals, provenance.num_steps)
    run.log_artifact(files.curve, None)
    write_record(files.provenance, replace(provenance, mlflow_run_id=run.run_id or None))


def line_of(accepted: Accepted) -> str:
    """What was taken over of a row, and what that leaves to do."""
    row = accepted.row
    if "train" not in accepted.stages:
        return f"{row.model} ({row.profile}): records accepted; its weights are in no part, `dvc repro` would train it"
    missing = ", ".join(stage for stage in STAGES if stage not in accepted.stages)
    return f"{row.model} ({row.profile}): accepted" + (f"; `dvc repro` would run {missing}" if missing else "")


if __name__ == "__main__":
    run_stage(main)
