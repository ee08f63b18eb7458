"""Values -> frozen typed configuration; unknown, missing and mistyped keys are refused by name.

Source of the checks: pydantic. Only the wording of its errors is ours.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dgm.errors import StageError

MAX_SHOWN = 60  # characters of a refused value


class ConfigError(StageError, ValueError):
    """One line (or one per problem) that names the key, what is wrong and the remedy."""


class Config(BaseModel):
    """Base of every typed configuration: frozen, strict, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Parsed = TypeVar("Parsed", bound=Config)


def parse(kind: type[Parsed], values: Any, where: str, places: Mapping[str, str] | None = None) -> Parsed:
    """The typed configuration at the key path `where`.

    places: key -> its own key path, for values that were laid over each other.
    Raises: ConfigError with one line per problem.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_describe(kind, problem, where, places or {}) for problem in error.errors())
        ) from None


def suggestion(key: str, known: Any) -> str:
    """'; did you mean X?' if some known key is close, else the list of them."""
    close = difflib.get_close_matches(key, [str(k) for k in known], n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; the keys here are {', '.join(str(k) for k in known)}" if known else ""


def shown(value: Any) -> str:
    """A value of the file as an error line shows it: at most MAX_SHOWN characters, on one line."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _describe(kind: type[Config], problem: ErrorDetails, where: str, places: Mapping[str, str]) -> str:
    location = [str(part) for part in problem["loc"]]
    if location and location[0] in places:
        where, location = places[location[0]], location[1:]
    path = ".".join(part for part in (where, *location) if part)
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key{suggestion(str(problem['loc'][-1]), _fields_at(kind, problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"{path}: missing from params.yaml"
    value, message = problem["input"], problem["msg"].removeprefix("Value error, ")
    if value is None and problem["type"] == "value_error":
        return f"{path}: {message}"
    if isinstance(value, str) and problem["type"] in ("int_type", "float_type") and _is_number(value):
        remedy = "write it without _" if "_" in value else "remove the quotes"
        return f"{path}: {shown(value)} is text, a number is expected; {remedy}"
    return f"{path}: {message}, got {shown(value)}"


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
        return math.isfinite(float(text))
    except ValueError:
        return False
