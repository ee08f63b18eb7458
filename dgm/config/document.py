"""The text of params.yaml -> plain values, by the rules of YAML 1.2, which DVC reads and writes too.

PyYAML follows YAML 1.1: there `1e-05` is text, `yes` is a truth value, `010` is 8 and `1:30` is 90.
Source: YAML 1.2.2, section 10.3.2 (the core schema).
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from dgm.config.parse import ConfigError, shortened, shown, shown_key
from dgm.small_files import read_small

MAX_DEPTH = 16  # of nested mappings and lists; params.yaml has 5
MAX_DEPTH_OF_DVC = 32  # dvc.yaml and dvc.lock have 8
MAX_DIGITS = 18  # of a whole number
FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_TIMESTAMP = re.compile(r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:$|[Tt\s])")  # DVC's reader makes a date of it, or fails
_MARKER = re.compile(r"^(?:<{7} |>{7} |\|{7} |={7}$)")
_BY_NAME = "every value stands where it acts, so that an override of one key reaches exactly that key"


class DocumentError(yaml.MarkedYAMLError):
    """What is wrong, and at which line."""

    def __init__(self, problem: str, mark: yaml.Mark | None) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2, without anchors, tags and keys given twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own name)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise DocumentError(
                f"{sign}{shown_key(event.anchor)}: anchors and aliases are not allowed; {_BY_NAME}", event.start_mark
            )
        if event.tag is not None:
            raise DocumentError(
                f"tag {shown(event.tag)}: tags are not allowed; write the plain value", event.start_mark
            )
        if self.depth == MAX_DEPTH:
            raise DocumentError(f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _TIMESTAMP.match(event.value):
            raise DocumentError(f"{shown(event.value)}: dates are not allowed; put it in quotes", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                found = shown(key.value) if isinstance(key, yaml.ScalarNode) else f"a {key.id}"
                raise DocumentError(f"a key must be text, got {found}", key.start_mark)
            if key.value == "<<":
                raise DocumentError(f"<<: merge keys are not allowed; {_BY_NAME}", key.start_mark)
            if key.value in lines:
                raise DocumentError(
                    f"{shown(key.value)}: given twice, first in line {lines[key.value]}; remove one", key.start_mark
                )
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return node.value.lower() == "true"


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    base = {"0o": 8, "0x": 16}.get(node.value[:2], 10)
    digits = node.value if base == 10 else node.value[2:]
    if len(digits) > MAX_DIGITS:
        raise DocumentError(f"{shown(node.value)}: a whole number of more than {MAX_DIGITS} digits", node.start_mark)
    return int(digits, base)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    value = math.nan if node.value[-1] in "fFnN" else float(node.value)
    if not math.isfinite(value):
        raise DocumentError(f"{shown(node.value)}: not a finite number", node.start_mark)
    return value


for _name, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", _pattern, _first)
_Loader.add_constructor(f"{_TAG}bool", _construct_bool)
_Loader.add_constructor(f"{_TAG}int", _construct_int)
_Loader.add_constructor(f"{_TAG}float", _construct_float)


def _one_line(text: str) -> str:
    return shortened(" ".join(text.split()), 300)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8. Raises: ConfigError, one line.

    The markers of a merge that was left half done are refused here: YAML would only find the line after them strange.
    """
    try:
        text = read_small(path).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}); {_remedy(path, error)}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start + 1} is not UTF-8; save the file as UTF-8 text") from None
    if text.startswith("\ufeff"):
        raise ConfigError(f"{path}, line 1: begins with a byte order mark; save the file as UTF-8 without it")
    for number, line in enumerate(text.splitlines(), 1):
        if _MARKER.match(line):
            raise ConfigError(
                f"{path}, line {number}: {shown(line)}: a merge left its conflict here; keep one of both sides and "
                f"remove the lines of markers, or `git checkout {path}` for the last committed file"
            )
    return text


def too_deep(text: str) -> int | None:
    """The line of a file of DVC where more is nested than MAX_DEPTH_OF_DVC, None if there is none.

    To be asked before a reader in C gets the text: that one would end the process by a signal.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=FAST_LOADER):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH_OF_DVC:
                return event.start_mark.line + 1
    except yaml.YAMLError:
        pass  # the reader will say so
    return None


def _remedy(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "run from the project's root"
    if isinstance(error, IsADirectoryError):
        return f"a file is expected: move the folder away, then `git checkout {path}`"
    if isinstance(error, PermissionError):
        return f"let yourself read it: chmod u+r {path}"
    return f"`git checkout {path}` takes the last committed one back"


def _begun(error: yaml.MarkedYAMLError) -> str:
    """Where to mend it: what is not closed begins before the line where that is seen."""
    mark = error.context_mark or error.problem_mark
    return "" if mark is None else f"; mend what begins in line {mark.line + 1}"


def read_document(path: Path) -> dict[str, Any]:
    """The mapping that the file holds, of plain Python values.

    Raises: ConfigError, one line, with the line of the file: it is missing, no text in UTF-8, no YAML, or has what
    params.yaml may not have: anchors, merge keys, tags, a key twice, a number that is not finite.
    """
    text = read_text(path)
    try:
        values: Any = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        kind = "" if isinstance(error, DocumentError) else f"not valid YAML: {error.context or ''} "
        begun = "" if isinstance(error, DocumentError) else _begun(error)
        raise ConfigError(f"{path}{line}: {_one_line(f'{kind}{error.problem}')}{begun}") from None
    except yaml.reader.ReaderError as error:  # a control character
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path}, line {line}: character {error.character:#x} is no text; remove it") from None
    if not isinstance(values, dict):
        found = "is empty" if values is None else f"must be a mapping of keys, got {shown(values)}"
        raise ConfigError(f"{path}: {found}; `git checkout {path}` takes the last committed one back")
    return values  # pyright: ignore[reportUnknownVariableType]
