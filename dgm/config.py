"""params.yaml -> frozen typed configuration; unknown, missing and mistyped keys are refused by name.

Source of the checks: pydantic. Only the wording of its errors is ours.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from dgm.runs import StageError
from dgm.types import CIFAR10

PARAMS_FILE = Path("params.yaml")
PROFILES = ("smoke", "cpu", "gpu")


class ConfigError(StageError, ValueError):
    """One line (or one a problem) that names the key, what is wrong and the remedy."""


class Config(BaseModel):
    """Base of every typed configuration: frozen, strict, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RunConfig(Config):
    """common.<profile>.run: what training and evaluation of every model share."""

    seed: int = Field(ge=0)
    threads: int = Field(gt=0)
    device: Literal["cpu", "cuda"]
    num_training_images: Literal[45000, 50000]


class CommonEvaluationConfig(Config):
    """common.<profile>.evaluation: how many images are scored; fewer than all only in the smoke profile."""

    num_test_images: int = Field(gt=0, le=10000)
    num_train_images: int = Field(gt=0, le=10000)


class SamplingConfig(Config):
    """common.<profile>.sampling: the grid of samples and of completions."""

    num_images: int = Field(gt=0)
    temperature: float = Field(gt=0)
    num_completions: int = Field(ge=0)


class CompressionConfig(Config):
    """models.<model>.<profile>.compression: how many test images are compressed to a file and read back."""

    num_images: int = Field(gt=0, le=10000)


class CodecsConfig(Config):
    """common.<profile>.codecs: how many test images the general codecs compress, a square number of them."""

    num_images: int = Field(gt=0, le=10000)

    @field_validator("num_images")
    @classmethod
    def _tiles_a_square(cls, count: int) -> int:
        if math.isqrt(count) ** 2 != count:
            raise ValueError(f"must be a square number (such as {math.isqrt(count) ** 2}): they are joined to a square")
        return count


class PPCALadderConfig(Config):
    """common.<profile>.ppca_ladder: the numbers of components that PPCA is scored with.

    num_fit_images: how many training images, the first ones, it is fitted on; null for all.
    em_components: those of num_components that EM fits too, in num_em_iterations. The stage fails where EM's test
    figure and that of the closed form are further apart than em_tolerance_bits (per sub-pixel).
    """

    num_components: list[Annotated[int, Field(ge=1, lt=CIFAR10.num_subpixels)]] = Field(min_length=1)
    num_fit_images: int | None = Field(ge=1)
    num_test_images: int = Field(gt=1, le=10000)
    em_components: list[int]
    num_em_iterations: int = Field(gt=0)
    em_tolerance_bits: float = Field(gt=0)

    @field_validator("em_components")
    @classmethod
    def _is_on_the_ladder(cls, em_components: list[int], info: ValidationInfo) -> list[int]:
        num_components = info.data.get("num_components")  # absent if it was refused itself
        missing = [q for q in em_components if num_components is not None and q not in num_components]
        if missing:
            raise ValueError(f"must be among num_components, which has no {', '.join(map(str, missing))}")
        return em_components


class CommonConfig(Config):
    """common.<profile>."""

    run: RunConfig
    evaluation: CommonEvaluationConfig
    sampling: SamplingConfig
    ppca_ladder: PPCALadderConfig
    codecs: CodecsConfig


class EvaluationConfig(Config):
    """models.<model>.<profile>.evaluation.

    num_draws: dequantization noises or latent draws an image, averaged in nats; 1 for exact models.
    num_importance_samples: K of the importance-weighted bound; 0 where the model has none.
    """

    batch_size: int = Field(gt=0)
    num_draws: int = Field(gt=0)
    num_importance_samples: int = Field(ge=0)


class DataConfig(Config):
    """data: an optional local copy of CIFAR-10 that is tried before any download."""

    local_path: str | None


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


Parsed = TypeVar("Parsed", bound=Config)


def parse(kind: type[Parsed], values: Any, where: str) -> Parsed:
    """The typed configuration at the key path `where`. Raises: ConfigError with one line a problem."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(kind, problem, where) for problem in error.errors())) from None


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


def suggestion(key: str, known: Any) -> str:
    """'; did you mean X?' if some known key is close, else the list of them."""
    close = difflib.get_close_matches(key, [str(k) for k in known], n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; the keys here are {', '.join(str(k) for k in known)}" if known else ""


def _describe(kind: type[Config], problem: ErrorDetails, where: str) -> str:
    path = ".".join(part for part in (where, *(str(p) for p in problem["loc"])) if part)
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key{suggestion(str(problem['loc'][-1]), _fields_at(kind, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"{path}: missing from params.yaml"
    value = problem["input"]
    if isinstance(value, str) and _is_number(value):
        number = float(value)
        remedy = f"{int(number)}" if problem["type"].startswith("int") else f"{number:.1e} (with a decimal point)"
        return f"{path}: {value!r} is text to YAML; write {remedy}"
    return f"{path}: {problem['msg']}, got {value!r}"


def _fields_at(kind: Any, location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        field = kind.model_fields.get(str(part)) if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        if field is None:
            return []
        kind = field.annotation
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
