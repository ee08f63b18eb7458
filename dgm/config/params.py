"""The whole params.yaml, typed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from dgm.config.parse import Config, ConfigError, parse, suggestion
from dgm.config.sections import CommonConfig, DataConfig

PARAMS_FILE = Path("params.yaml")


PROFILES = ("smoke", "cpu", "gpu")


class Params(Config):
    """The whole params.yaml; the models' blocks stay untyped here and are typed at each model's door.

    training_defaults holds what YAML merges into the models' training blocks; nothing reads it by itself.
    """

    profile: Literal["smoke", "cpu", "gpu"]
    suite: list[str]
    data: DataConfig
    common: dict[Literal["smoke", "cpu", "gpu"], CommonConfig]
    training_defaults: dict[Literal["smoke", "cpu", "gpu"], dict[str, Any]]
    models: dict[str, dict[str, dict[str, Any]]]

    def common_config(self, profile: str) -> CommonConfig:
        """Raises: ConfigError if the profile has no common block."""
        if profile not in self.common:
            raise ConfigError(f"common.{profile}: missing; the profiles are {', '.join(self.common)}")
        return self.common[profile]  # type: ignore[index]

    def model_section(self, model: str, profile: str, section: str) -> Mapping[str, Any]:
        """models.<model>.<profile>.<section>, still untyped. Raises: ConfigError if it is not there."""
        where, node = "models", self.models
        for key in (model, profile, section):
            if key not in node:
                raise ConfigError(f"{where}.{key}: missing from params.yaml{suggestion(key, node)}")
            where, node = f"{where}.{key}", node[key]
        if not isinstance(node, Mapping):
            raise ConfigError(f"{where}: must be a mapping, got {node!r}")
        return node


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Raises: ConfigError if the file is missing, is no YAML, or breaks the schema."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); run from the project's root") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must be a mapping of keys, got {type(values).__name__}")
    return parse(Params, values, "")
