"""The whole params.yaml, typed, and how its blocks are laid over each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from dgm.config.budget import BUDGET_KEYS, SECONDS, Budget, has_budget
from dgm.config.document import read_document
from dgm.config.parse import Config, ConfigError, parse, shown, suggestion
from dgm.config.sections import CommonConfig, DataConfig

PARAMS_FILE = Path("params.yaml")

Profile = Literal["smoke", "cpu", "gpu", "published"]
PROFILES: tuple[str, ...] = get_args(Profile)
ALL = "all"  # the block of a model that holds what its profiles share
BLOCKS = (ALL, *PROFILES)
SECTIONS = ("model", "training", "evaluation", "compression")
SHARED_SECTIONS = ("model", "training")  # those of `all`; how much is scored and compressed, each profile says itself


class Params(Config):
    """The whole params.yaml; the models' blocks stay untyped here and are typed at each model's door.

    A key of a section of one model in one profile is looked up in models.<model>.<profile>, then in
    models.<model>.all, then, for the section `training`, in training_defaults.<profile>. Where that has
    `table_minutes`, a model's `share` of them becomes its max_seconds.
    """

    profile: Profile
    suite: list[str]
    data: DataConfig
    common: dict[Profile, CommonConfig]
    training_defaults: dict[Profile, dict[str, Any]]
    models: dict[str, dict[str, dict[str, Any]]]

    def common_config(self, profile: str) -> CommonConfig:
        """Raises: ConfigError if the profile has no common block."""
        if profile not in self.common:
            raise ConfigError(f"common.{profile}: missing; the profiles are {', '.join(self.common)}")
        return self.common[profile]  # type: ignore[index]  # any string may be asked for

    def own_section(self, model: str, profile: str, section: str) -> dict[str, Any]:
        """What the model's own blocks say, untyped: `all`, overlaid by the profile.

        Raises: ConfigError if a block is missing.
        """
        shared = self._block(model, ALL, section) if section in SHARED_SECTIONS else {}
        return {**shared, **self._block(model, profile, section)}

    def model_section(self, model: str, profile: str, section: str) -> dict[str, Any]:
        """What acts, untyped: for `training` the defaults of the profile, overlaid by the model's own section.

        A default that acts only with another optimizer is left out, a share of the table's minutes is turned into
        seconds. Raises: ConfigError if a block is missing or the share is wrong.
        """
        own = self.own_section(model, profile, section)
        if section != "training":
            return own
        defaults: Mapping[str, Any] = self.training_defaults.get(profile, {})  # type: ignore[call-overload]  # any string may be asked for
        if own.get("optimizer", defaults.get("optimizer")) != "muon":
            defaults = {key: value for key, value in defaults.items() if key != "muon_learning_rate"}
        values = {**defaults, **own}
        if has_budget(defaults, own):
            numbers = {key: values[key] for key in BUDGET_KEYS if key in values}
            places = {key: self.where(model, profile, section, key) for key in numbers}
            budget = parse(Budget, numbers, f"models.{model}.{profile}.{section}", places)
            values[SECONDS] = budget.seconds
        return {key: value for key, value in values.items() if key not in BUDGET_KEYS}

    def changed(self, model: str, profile: str, changes: Mapping[str, Mapping[str, Any]]) -> Params:
        """The same with other values, by section and key, in the model's own block of a profile."""
        block = self.models[model][profile]
        block = {**block, **{section: {**block[section], **values} for section, values in changes.items()}}
        models = {**self.models, model: {**self.models[model], profile: block}}
        return self.model_copy(update={"models": models})

    def where(self, model: str, profile: str, section: str, key: str) -> str:
        """The key path in params.yaml of the value that acts: where an error is to be mended."""
        for block in (profile, ALL):
            if key in self.models[model][block].get(section, {}):
                return f"models.{model}.{block}.{section}.{key}"
        if section == "training" and key in self.training_defaults.get(profile, {}):  # type: ignore[call-overload]  # any string may be asked for
            return f"training_defaults.{profile}.{key}"
        return f"models.{model}.{profile}.{section}.{key}"

    def _block(self, model: str, block: str, section: str) -> Mapping[str, Any]:
        where, node = "models", self.models
        for key in (model, block, section):
            if key not in node:
                remedy = (
                    "; every block has this section, {} if it is empty" if key == section else suggestion(key, node)
                )
                raise ConfigError(f"{where}.{key}: missing from params.yaml{remedy}")
            where, node = f"{where}.{key}", node[key]
        if not isinstance(node, Mapping):
            raise ConfigError(f"{where}: must be a mapping, got {shown(node)}")
        return node


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Raises: ConfigError if the file is missing, is no YAML, or breaks the schema."""
    return parse(Params, read_document(path), "")
