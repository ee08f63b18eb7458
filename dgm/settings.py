"""The typed settings of one model in one profile, and the check of everything that a run will read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import torch

from dgm.config.budget import BUDGET_KEYS
from dgm.config.construction import OfBoundedSize, without_weights
from dgm.config.limits import check_limits
from dgm.config.params import ALL, BLOCKS, SECTIONS, SHARED_SECTIONS, Params
from dgm.config.parse import Config, ConfigError, Parsed, parse, shortened, shown_key, suggestion
from dgm.config.sections import (
    LEAST_TRAIN_IMAGES,
    CommonConfig,
    CompressionConfig,
    DrawnEvaluation,
    EvaluationConfig,
    ExactEvaluation,
    FitConfig,
    TrainingConfig,
)
from dgm.model_api.contracts import AutoregressiveModel, Fitted, LatentVariableModel, Model
from dgm.model_api.latent_steps import can_compress
from dgm.registry import MODELS, model_class, scored_class
from dgm.types import CIFAR10, NUM_TEST_IMAGES, ImageSpec

HAS_TABLES = ("deep_diffusion",)  # that its construction computes and reads
ACTS_WITH = {  # (model, key of its section `model`) -> the switch without which nothing reads the key
    ("vae_iaf", "num_start_images"): "has_linear_start",
    ("draw", "correction_scale"): "has_linear_start",
    ("conv_draw", "correction_scale"): "has_linear_start",
    ("deep_diffusion", "has_mirrored_start"): "has_linear_start",
}


def model_config(params: Params, name: str, profile: str) -> Config:
    """The section `model` of one model, typed by the model.

    Raises: ConfigError too if the profile's own block has a key that does nothing beside a switch that is off, or a
    number is over its limit.
    """
    config = _typed(model_class(name).config_type, params, name, profile, "model")
    check_limits(config, lambda key: params.where(name, profile, "model", key))
    own = params.models[name][profile]["model"]
    for key in _idle_keys(name, config):
        if key in own:
            _refuse(params, name, profile, "model", [key], f"reads it only where {ACTS_WITH[name, key]} is true")
    return config


def training_config(params: Params, name: str, profile: str) -> TrainingConfig | FitConfig:
    """The section `training`, typed by how the model learns; training_defaults act only on training by gradient.

    Raises: ConfigError too if there is a key for a closed form.
    """
    if not issubclass(model_class(name), Fitted):
        config = _typed(TrainingConfig, params, name, profile, "training")
        if config.cuda_graph and (reason := _host_work(params, name, profile)):
            raise ConfigError(f"{params.where(name, profile, 'training', 'cuda_graph')}: {reason}; set it to false")
        return config
    own = params.own_section(name, profile, "training")
    if not _is_closed_form(params, name, profile):
        return _typed(FitConfig, params, name, profile, "training", own)
    if own:
        _refuse(params, name, profile, "training", own, "is fitted in closed form: nothing is iterated")
    return FitConfig(num_iterations=0)


def _host_work(params: Params, name: str, profile: str) -> str | None:
    """Why the objective of a model is not the same operations at every step, which a CUDA graph would repeat."""
    config = model_config(params, name, profile)
    if name == "char_rnn":
        return "char_rnn draws the rows of a step on the host"
    if name == "made" and getattr(config, "num_masks", 1) > 1:
        return "made draws the mask of a step on the host where num_masks is over 1"
    if name == "vae" and getattr(config, "kl_warmup_fraction", 0.0) > 0:
        return "the loss of vae follows the progress where kl_warmup_fraction is over 0"
    return None


def evaluation_config(params: Params, name: str, profile: str) -> EvaluationConfig:
    """The section `evaluation`, typed by how the likelihood is known.

    Where there is nothing to draw, it is one draw and no importance samples.
    """
    kind = model_class(name)
    schema = DrawnEvaluation
    if issubclass(kind, AutoregressiveModel):
        schema = ExactEvaluation
    elif issubclass(kind, LatentVariableModel):
        schema = EvaluationConfig
    values = _typed(schema, params, name, profile, "evaluation").model_dump()
    return EvaluationConfig.model_validate({"num_draws": 1, "num_importance_samples": 0} | values)


def compression_config(params: Params, name: str, profile: str) -> CompressionConfig:
    """The section `compression` of a model with exact conditionals or latents; no other model compresses."""
    return _typed(CompressionConfig, params, name, profile, "compression")


def acting_values(params: Params, name: str, profile: str) -> dict[str, dict[str, Any]]:
    """Section -> key -> value: every number of params.yaml that acts on this model in this profile, and no other.

    Raises: ConfigError if a section is wrong.
    """
    kinds = [model_config, training_config, evaluation_config]
    if can_compress(model_class(name)):
        kinds.append(compression_config)
    configs = {section: kind(params, name, profile) for section, kind in zip(SECTIONS, kinds, strict=False)}
    values = {section: config.model_dump() for section, config in configs.items()}
    for key in _idle_keys(name, configs["model"]):
        del values["model"][key]
    if values["training"].get("num_slices") == 1:  # the plain loop, which knows no slices
        del values["training"]["num_slices"]
    if values["training"].get("cuda_graph") is False:
        del values["training"]["cuda_graph"]
    return values


def _idle_keys(name: str, config: Config) -> list[str]:
    """The keys of the section `model` that do nothing, for a switch is off."""
    return [key for (model, key), switch in ACTS_WITH.items() if model == name and not getattr(config, switch)]


def _check_compression(params: Params, name: str, profile: str) -> None:
    """Raises: ConfigError if the section is wrong, or not empty where a model compresses nothing."""
    if can_compress(model_class(name)):
        compression_config(params, name, profile)
    elif own := params.own_section(name, profile, "compression"):
        _refuse(
            params,
            name,
            profile,
            "compression",
            own,
            "compresses nothing (no exact conditionals, no latents)",
        )


def _refuse(params: Params, name: str, profile: str, section: str, keys: Iterable[str], reason: str) -> NoReturn:
    places = [params.where(name, profile, section, key) for key in keys]
    raise ConfigError("\n".join(f"{place}: {name} {reason}; remove the key" for place in places))


def _typed(
    kind: type[Parsed],
    params: Params,
    name: str,
    profile: str,
    section: str,
    values: Mapping[str, Any] | None = None,
) -> Parsed:
    values = params.model_section(name, profile, section) if values is None else values
    places = {key: params.where(name, profile, section, key) for key in values}
    return parse(kind, values, f"models.{name}.{profile}.{section}", places)


def _is_closed_form(params: Params, name: str, profile: str) -> bool:
    """Whether a fitted model has nothing to iterate: it never has, or its `method` says so."""
    kind = model_class(name)
    is_iterated = issubclass(kind, Fitted) and kind.iterate is not Fitted.iterate
    return not is_iterated or params.model_section(name, profile, "model").get("method") == "closed_form"


def check_model(params: Params, name: str, profile: str) -> Config:
    """The section `model`, after the model was built without memory for its weights: what training would refuse.

    Raises: ConfigError.
    """
    with without_weights(name in HAS_TABLES):
        return build_model(params, name, profile, CIFAR10).config


def _check_fit_images(params: Params, name: str, profile: str) -> None:
    """Refuses more components than the images that a mixture is fitted on can fill, as its fit would.

    Raises: ConfigError.
    """
    values = params.model_section(name, profile, "model")
    if "min_images" not in values:
        return
    config = model_config(params, name, profile).model_dump()
    available = params.common_config(profile).run.num_training_images
    available = min(available, config["num_fit_images"] or available)
    if config["num_components"] * max(config["min_images"], 1) > available:
        place = params.where(name, profile, "model", "num_components")
        raise ConfigError(
            f"{place}: {config['num_components']} components of at least {max(config['min_images'], 1):g} images "
            f"(min_images) do not fit in the {available} that there are (num_fit_images)"
        )


def build_model(params: Params, name: str, profile: str, spec: ImageSpec) -> Model:
    """An untrained model. Raises: ConfigError if its block is wrong or the architecture cannot take the image size."""
    return _build(model_class(name), params, name, profile, spec)


def build_scored_model(params: Params, name: str, profile: str, spec: ImageSpec) -> Model:
    """The same model as it scores images, once trained weights are loaded. Raises: as `build_model`."""
    return _build(scored_class(name), params, name, profile, spec)


def _build(kind: type[Model], params: Params, name: str, profile: str, spec: ImageSpec) -> Model:
    config = model_config(params, name, profile)
    try:
        with OfBoundedSize():
            model = kind(spec, config)
        if isinstance(model, AutoregressiveModel):
            with torch.device("cpu"):  # also of a model without values
                model.order()  # without one, samples and files would be refused after the whole training
        return model
    except ValueError as error:
        raise ConfigError(f"models.{name}.{profile}.model: {shortened(str(error))}") from None
    except (RuntimeError, OverflowError, MemoryError) as error:
        text = shortened(str(error))
        raise ConfigError(f"models.{name}.{profile}.model: the model cannot be built: {text}") from None


def training_minutes(params: Params, profile: str) -> float | None:
    """How long the suite's models train by gradient, one after the other; None if one of them is limited by steps only.

    Raises: ConfigError if a section is wrong.
    """
    configs = [training_config(params, name, profile) for name in params.suite]
    seconds = [config.max_seconds for config in configs if isinstance(config, TrainingConfig)]
    limited = [limit for limit in seconds if limit is not None]
    return sum(limited) / 60 if len(limited) == len(seconds) else None


def validate(params: Params, profile: str) -> CommonConfig:
    """Checks everything that a run of this profile will read. Raises: ConfigError listing every problem."""
    if profile not in params.training_defaults:
        remedy = "every profile has this block, {} if its models say all themselves"
        raise ConfigError(f"training_defaults.{profile}: missing from params.yaml; {remedy}")
    problems: list[str] = []
    if duplicates := sorted({name for name in params.suite if params.suite.count(name) > 1}):
        problems.append(f"suite: {', '.join(map(shown_key, duplicates))} listed more than once")
    if not params.suite:
        problems.append("suite: empty; name at least one model")
    problems += _unknown_keys(params) + _short_scores(params)
    for name in params.suite:
        for check in (check_model, _check_fit_images, training_config, evaluation_config, _check_compression):
            try:
                check(params, name, profile)
            except ConfigError as error:
                if str(error) not in problems:
                    problems.append(str(error))
    for name in params.models:
        if name not in MODELS:
            problems.append(f"models.{shown_key(name)}: no such model{suggestion(name, MODELS)}")
    if problems:
        raise ConfigError("\n".join(problems))
    return params.common_config(profile)


def _unknown_keys(params: Params) -> list[str]:
    """Blocks and defaults that no stage reads, in any profile: a typo there would silently do nothing."""
    problems: list[str] = []
    known_defaults = (*TrainingConfig.model_fields, *BUDGET_KEYS)
    for name, blocks in params.models.items():
        problems += [
            f"models.{shown_key(name)}.{shown_key(key)}: no such profile{suggestion(key, BLOCKS)}"
            for key in blocks
            if key not in BLOCKS
        ]
        for block, sections in blocks.items():
            known = SHARED_SECTIONS if block == ALL else SECTIONS
            problems += [
                f"models.{shown_key(name)}.{shown_key(block)}.{shown_key(key)}: unknown key{suggestion(key, known)}"
                for key in sections
                if key not in known
            ]
    problems += [
        f"training_defaults.{profile}.{shown_key(key)}: unknown key{suggestion(key, known_defaults)}"
        for profile, defaults in params.training_defaults.items()
        for key in defaults
        if key not in known_defaults
    ]
    return problems


def _short_scores(params: Params) -> list[str]:
    """A figure of any profile but smoke is one of the whole test set, and its train figure is of enough images."""
    problems: list[str] = []
    for profile, common in params.common.items():
        place, counts = f"common.{profile}.evaluation", common.evaluation
        if profile == "smoke":
            continue
        if counts.num_test_images != NUM_TEST_IMAGES:
            wanted = f"must be {NUM_TEST_IMAGES} outside the smoke profile"
            problems.append(f"{place}.num_test_images: {wanted}, got {counts.num_test_images}")
        if counts.num_train_images < LEAST_TRAIN_IMAGES:
            wanted = f"must be at least {LEAST_TRAIN_IMAGES} outside the smoke profile"
            problems.append(f"{place}.num_train_images: {wanted}, got {counts.num_train_images}")
    return problems
