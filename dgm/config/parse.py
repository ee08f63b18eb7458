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
MAX_TEXT = 200  # characters of what another library says
MAX_PROBLEMS = 20  # lines of one section


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
        problems = [_describe(kind, problem, where, places or {}) for problem in error.errors()]
        further = len(problems) - MAX_PROBLEMS
        if further > 0:
            problems[MAX_PROBLEMS:] = [f"{where or 'params.yaml'}: and {further} further problems"]
        raise ConfigError("\n".join(problems)) from None


def suggestion(key: str, known: Any) -> str:
    """'; did you mean X?' if some known key is close, else the list of them."""
    names = [shown_key(name) for name in known]
    close = difflib.get_close_matches(key[:MAX_SHOWN], names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; the keys here are {', '.join(names[: MAX_PROBLEMS * 2])}" if names else ""


def shown(value: Any) -> str:
    """A value of the file as an error line shows it: at most MAX_SHOWN characters, on one line."""
    return shortened(repr(value[: MAX_SHOWN + 1] if isinstance(value, str) else value), MAX_SHOWN)


def shown_key(key: Any) -> str:
    """A key of the file as a key path shows it: bare if it is a plain word, else as a value is shown."""
    text = str(key)
    return text if len(text) <= MAX_SHOWN and text.isprintable() else shown(text)


def shortened(text: str, length: int = MAX_TEXT) -> str:
    """The first line of a text, at most `length` characters of it; what is left out is marked."""
    line = text[: length + 1].partition("\n")[0][:length]
    return line if line == text else f"{line}..."


def _describe(kind: type[Config], problem: ErrorDetails, where: str, places: Mapping[str, str]) -> str:
    location = [str(part) for part in problem["loc"]]
    if location and location[0] in places:
        where, location = places[location[0]], location[1:]
    path = ".".join(part for part in (where, *map(shown_key, location)) if part)
    if problem["type"] == "extra_forbidden":
        hint = suggestion(str(problem["loc"][-1]), _fields_at(kind, problem["loc"][:-1]))
        return f"{path}: unknown key{hint or '; no key belongs here: remove it'}"
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
