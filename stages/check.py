"""Checks params.yaml against every model before anything is trained, and writes what each stage depends on."""

from __future__ import annotations

import importlib.util

from dgm.config.params import load_params
from dgm.fingerprints import write_fingerprints
from dgm.registry import MODELS
from dgm.settings import training_minutes, validate
from stages.cli import run_stage


def main() -> None:
    if importlib.util.find_spec("dvc") is not None:  # elsewhere nobody reads its files, nor is there what reads them
        from dgm.config.documents import check_documents

        check_documents()
    params = load_params()
    validate(params, params.profile)
    write_fingerprints(params, list(MODELS))
    minutes = training_minutes(params, params.profile)
    length = "" if minutes is None else f", {minutes:.0f} minutes of training one after the other"
    print(f"params.yaml is sound: {len(params.suite)} models in profile {params.profile}{length}")


if __name__ == "__main__":
    run_stage(main)
