"""Run files of one profile -> tables, plots and the page under reports/<profile>/, and MLflow. Runs no model."""

from __future__ import annotations

import argparse

from dgm.config.params import PROFILES, load_params
from dgm.fingerprints import current_key
from dgm.reporting.files import report_files
from dgm.runs.atomic import atomic_file
from dgm.runs.files import RunFiles
from dgm.tracking.results import record_results
from stages.cli import run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", required=True, choices=PROFILES)
    profile = parser.parse_args().profile
    params = load_params()
    current = {model: current_key(params, model, profile) for model in params.models if profile in params.models[model]}
    folder = RunFiles(profile, "").report
    for name, content in report_files(profile, current).items():
        with atomic_file(folder / name) as file:
            file.write(content)
    record_results(profile, params.suite, current)
    print(f"report ({profile}): {folder / 'index.html'}")


if __name__ == "__main__":
    run_stage(main)
