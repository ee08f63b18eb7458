"""The typed settings of one model in one profile, and the check of everything that a run will read."""

from __future__ import annotations

from dgm.config.params import PROFILES, Params
from dgm.config.parse import Config, ConfigError, parse, suggestion
from dgm.config.sections import CommonConfig, CompressionConfig, EvaluationConfig, FitConfig, TrainingConfig
from dgm.model_api.contracts import Fitted, Model
from dgm.registry import MODELS, model_class
from dgm.types import ImageSpec

SECTIONS = ("model", "training", "evaluation", "compression")


NUM_SCORED_IMAGES = 10000


def model_config(params: Params, name: str, profile: str) -> Config:
    """models.<name>.<profile>.model, typed by the model."""
    kind = model_class(name).config_type
    return parse(kind, params.model_section(name, profile, "model"), f"models.{name}.{profile}.model")


def training_config(params: Params, name: str, profile: str) -> TrainingConfig | FitConfig:
    """models.<name>.<profile>.training, typed by how the model learns.

    Raises: ConfigError too if it asks for iterations of a closed form.
    """
    kind = FitConfig if issubclass(model_class(name), Fitted) else TrainingConfig
    where = f"models.{name}.{profile}.training"
    config = parse(kind, params.model_section(name, profile, "training"), where)
    if isinstance(config, FitConfig) and config.num_iterations > 0 and _is_closed_form(params, name, profile):
        raise ConfigError(
            f"{where}.num_iterations: {config.num_iterations}, but {name} is fitted in closed form; set it to 0"
        )
    return config


def _is_closed_form(params: Params, name: str, profile: str) -> bool:
    """Whether a fitted model has nothing to iterate: it never has, or its `method` says so."""
    kind = model_class(name)
    is_iterated = issubclass(kind, Fitted) and kind.iterate is not Fitted.iterate
    return not is_iterated or params.model_section(name, profile, "model").get("method") == "closed_form"


def evaluation_config(params: Params, name: str, profile: str) -> EvaluationConfig:
    """models.<name>.<profile>.evaluation."""
    values = params.model_section(name, profile, "evaluation")
    return parse(EvaluationConfig, values, f"models.{name}.{profile}.evaluation")


def compression_config(params: Params, name: str, profile: str) -> CompressionConfig:
    """models.<name>.<profile>.compression."""
    values = params.model_section(name, profile, "compression")
    return parse(CompressionConfig, values, f"models.{name}.{profile}.compression")


def build_model(params: Params, name: str, profile: str, spec: ImageSpec) -> Model:
    """An untrained model. Raises: ConfigError if its block is wrong or the architecture cannot take the image size."""
    config = model_config(params, name, profile)
    try:
        return model_class(name)(spec, config)
    except ValueError as error:
        raise ConfigError(f"models.{name}.{profile}.model: {error}") from None


def validate(params: Params, profile: str) -> CommonConfig:
    """Checks everything that a run of this profile will read. Raises: ConfigError listing every problem."""
    problems: list[str] = []
    if duplicates := sorted({name for name in params.suite if params.suite.count(name) > 1}):
        problems.append(f"suite: {', '.join(duplicates)} listed more than once")
    if not params.suite:
        problems.append("suite: empty; name at least one model")
    problems += _unknown_keys(params) + _short_scores(params)
    for name in params.suite:
        for check in (model_config, training_config, evaluation_config, compression_config):
            try:
                check(params, name, profile)
            except ConfigError as error:
                if str(error) not in problems:
                    problems.append(str(error))
    for name in params.models:
        if name not in MODELS:
            problems.append(f"models.{name}: no such model{suggestion(name, MODELS)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return params.common_config(profile)


def _unknown_keys(params: Params) -> list[str]:
    """Blocks that no stage reads, in any profile: a typo there would silently do nothing."""
    problems: list[str] = []
    for name, profiles in params.models.items():
        problems += [
            f"models.{name}.{key}: no such profile{suggestion(key, PROFILES)}"
            for key in profiles
            if key not in PROFILES
        ]
        for profile, sections in profiles.items():
            problems += [
                f"models.{name}.{profile}.{key}: unknown key{suggestion(key, SECTIONS)}"
                for key in sections
                if key not in SECTIONS
            ]
    return problems


def _short_scores(params: Params) -> list[str]:
    """Only the smoke profile may score fewer than all images: a figure of the others is one of the whole test set."""
    return [
        f"common.{profile}.evaluation.{key}: must be {NUM_SCORED_IMAGES} outside the smoke profile, got {count}"
        for profile, common in params.common.items()
        if profile != "smoke"
        for key, count in common.evaluation.model_dump().items()
        if count != NUM_SCORED_IMAGES
    ]
