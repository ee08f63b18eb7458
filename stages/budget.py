"""A model with a quarter or four times the budget of its row: params.yaml with other limits, all else as it is."""

from __future__ import annotations

import argparse

from dgm.config.params import Params
from dgm.config.sections import TrainingConfig
from dgm.errors import StageError
from dgm.runs.files import BUDGETS, ROW_BUDGET
from dgm.settings import training_config

NUM_IMAGES = 2000  # validation images that are scored, the first ones; never more than the profile scores test images


def with_budget_option(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds --budget."""
    parser.add_argument("--budget", choices=tuple(BUDGETS), default=ROW_BUDGET, help="of the row's steps and seconds")
    return parser


def with_budget(params: Params, name: str, profile: str, budget: str) -> Params:
    """The settings of that budget: steps (one at least) and, where they are limited, seconds, times its factor.

    All schedules are fractions of the progress, so they stretch with it; batch, rates and averaging stay.
    Raises: ConfigError if a section is wrong; StageError if the model is fitted.
    """
    if budget == ROW_BUDGET:
        return params
    config, factor = training_config(params, name, profile), BUDGETS[budget]
    if not isinstance(config, TrainingConfig):
        raise StageError(f"{name} is fitted, not trained by gradient: it has no budget to be changed")
    limits: dict[str, float] = {"max_steps": max(1, round(factor * config.max_steps))}
    if config.max_seconds is not None:
        limits["max_seconds"] = factor * config.max_seconds
    return params.changed(name, profile, {"training": limits})


def num_scored(params: Params, profile: str) -> int:
    """How many validation images are scored."""
    return min(NUM_IMAGES, params.common_config(profile).evaluation.num_test_images)
