"""Run files of one profile -> tables, plots and the page under reports/<profile>/, and MLflow. Runs no model.

Fails after it has written the report if a run file is damaged: the report leaves out what that file should say.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from dgm.config.params import PROFILES, Params, load_params
from dgm.data.arrays import load_arrays
from dgm.errors import StageError
from dgm.fingerprints import current_key, fingerprint, scaling_key
from dgm.model_api.contracts import Fitted
from dgm.registry import MODELS, model_class
from dgm.reporting.files import make_report
from dgm.reporting.rows import ProofCodes
from dgm.reporting.settings_notes import ModelSettings, ProfileSettings
from dgm.runs.atomic import atomic_file
from dgm.runs.files import BUDGETS, BudgetFiles, RunFiles
from dgm.settings import build_model
from dgm.tracking.results import record_results
from dgm.tracking.untracked_run import is_tracking_off
from dgm.types import CIFAR10
from stages.about import about
from stages.budget import num_scored, with_budget
from stages.cli import DATA, run_stage
from stages.expected import expected_record, expected_tables


def profile_settings(params: Params, profile: str, models: Iterable[str]) -> ProfileSettings:
    """What the report says of the settings. The models are built to count their parameters; none is run."""
    described: dict[str, ModelSettings] = {}
    for name in models:
        model = build_model(params, name, profile, CIFAR10)
        values = model.config.model_dump()
        described[name] = ModelSettings(model.num_parameters(), model.num_acting_parameters(), values)
    return ProfileSettings(params.common_config(profile).run.num_training_images, described)


def scaling_keys(params: Params, profile: str, models: Iterable[str]) -> Mapping[tuple[str, str], str]:
    """(model, budget) -> the key that its measurement would carry now, for the measurements that there are."""
    keys: dict[tuple[str, str], str] = {}
    for name in models:
        for budget in BUDGETS:
            if BudgetFiles(profile, name, budget=budget).scaling.exists() and not issubclass(model_class(name), Fitted):
                changed = with_budget(params, name, profile, budget)
                keys[name, budget] = scaling_key(changed, name, profile, num_scored(params, profile))
    return keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", required=True, choices=PROFILES)
    write_report(parser.parse_args().profile)


def write_report(profile: str) -> None:
    """Writes every file of the report. Raises: StageError naming what is damaged, after that."""
    params = load_params()
    current = {model: current_key(params, model, profile) for model in params.models if profile in params.models[model]}
    folder = RunFiles(profile, "").report
    scored = [model for model in current if RunFiles(profile, model).metrics.exists()]
    codes = {model: ProofCodes(fingerprint("compress", model), fingerprint("prove", model)) for model in MODELS}
    settings = profile_settings(params, profile, scored)
    expected = {name: expected_record(params, profile, name, settings.models[name].parameters) for name in scored}
    tables = expected_tables(params, profile)
    test = load_arrays(DATA).test if (DATA / "test.npy").exists() else None
    measured = scaling_keys(params, profile, current)
    report = make_report(profile, current, Path("."), settings, codes, expected, tables, test, measured)
    for name, content in report.files.items():
        with atomic_file(folder / name) as file:
            file.write(content)
    if not is_tracking_off():
        recorded = [model for model in params.suite if model not in report.damaged_models]
        said = {model: about(params, profile, model, report.tiers.get(model)) for model in recorded}
        record_results(profile, recorded, current, said)
    for alarm in report.alarms:
        print(f"alarm ({profile}): {alarm}")
    if report.faults:  # at the end: a damaged file of one model must not take the other models' rows down
        raise StageError("\n       ".join(report.faults))
    print(f"report ({profile}): {folder / 'index.html'}")


if __name__ == "__main__":
    run_stage(main)
