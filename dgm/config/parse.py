"""Values -> frozen typed configuration; unknown, missing and mistyped keys are refused by name.

Source of the checks: pydantic. Only the wording of its errors is ours.
"""

from __future__ import annotations

import difflib
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dgm.errors import StageError


class ConfigError(StageError, ValueError):
    """One line (or one a problem) that names the key, what is wrong and the remedy."""


class Config(BaseModel):
    """Base of every typed configuration: frozen, strict, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Parsed = TypeVar("Parsed", bound=Config)


def parse(kind: type[Parsed], values: Any, where: str) -> Parsed:
    """The typed configuration at the key path `where`. Raises: ConfigError with one line a problem."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_describe(kind, problem, where) for problem in error.errors())) from None


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
