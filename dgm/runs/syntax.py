"""A definition as text: its syntax tree without what changes no number, and with holes for the definitions it names."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import filterfalse
from typing import Protocol

DIGEST_DIGITS = 16
VALIDATORS = ("field_validator", "model_validator")
IGNORED_BASES = ("typing.Generic", "typing.Protocol", "abc.ABC")


@dataclass(frozen=True)
class Definition:
    """A top-level name of one of our modules and the statements that give it its value."""

    module: str
    name: str
    nodes: tuple[ast.stmt, ...]


@dataclass(frozen=True)
class Template:
    """A definition as text. References are numbered holes in it, in the order of `references`."""

    parts: tuple[str, ...]
    references: tuple[Definition, ...]

    def filled(self, texts: Sequence[str]) -> str:
        return "".join(part + text for part, text in zip(self.parts, (*texts, ""), strict=True))


class Names(Protocol):
    """Where the top-level names of a module lead."""

    @property
    def name(self) -> str: ...
    @property
    def imported(self) -> Mapping[str, str]: ...
    @property
    def defined(self) -> Mapping[str, Sequence[ast.stmt]]: ...


class Finder(Protocol):
    """What a dotted name stands for: (our definition, attributes left over), or (None, its canonical name)."""

    def __call__(self, dotted: str) -> tuple[Definition | None, str]: ...


class Writer:
    """Writes a definition as a template: its syntax tree without what changes no number."""

    def __init__(self, find: Finder, module: Names, unused: frozenset[str] = frozenset()) -> None:
        """unused: names of methods that are left out of every class."""
        self.find, self.module, self.unused = find, module, unused
        self.parts: list[str] = [""]
        self.references: list[Definition] = []

    def template(self, definition: Definition, is_config: bool) -> Template:
        """is_config: a configuration class, whose fields and validators are left out."""
        for node in definition.nodes:
            if isinstance(node, ast.ClassDef) and is_config:
                node = _without_fields(node)
            self._write(node, frozenset(), is_top=True)
        return Template(tuple(self.parts), tuple(self.references))

    def _text(self, text: str) -> None:
        self.parts[-1] += text

    def _write(self, node: object, local: frozenset[str], is_top: bool = False) -> None:
        match node:
            case ast.Name(id=name):
                self._name(name, (), local)
            case ast.Attribute() if (chain := _dotted(node)) is not None:
                self._name(chain[0], chain[1:], local)
            case ast.Assign(targets=[ast.Name()], value=value) | ast.AnnAssign(value=value) if is_top:
                self._node("Assign", [("value", value)], local)  # its name is what the definition is called
            case ast.Raise(exc=ast.Call(func=kind)):
                self._node("Raise", [("exc", kind)], local)
            case ast.Assert(test=test):
                self._node("Assert", [("test", test)], local)
            case ast.AnnAssign(target=target, value=value):
                self._node("Assign", [("targets", [target]), ("value", value)], local)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._function(node, local, is_top)
            case ast.ClassDef():
                self._class(node, local, is_top)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                targets = [generator.target for generator in node.generators]
                self._fields(node, local | bound_names(targets))
            case ast.AST():
                self._fields(node, local)
            case list():
                self._text("[")
                for item in node:  # pyright: ignore[reportUnknownVariableType]
                    if not _is_silent(item):
                        self._write(item, local)
                        self._text(",")
                self._text("]")
            case _:
                self._text(repr(node))

    def _fields(self, node: ast.AST, local: frozenset[str]) -> None:
        fields = [(name, value) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind", "type_comment")]
        self._node(type(node).__name__, fields, local)

    def _node(self, kind: str, fields: Iterable[tuple[str, object]], local: frozenset[str]) -> None:
        self._text(f"{kind}(")
        for name, value in fields:
            if value is not None and value != []:  # absent in one version of Python, empty in another
                self._text(f"{name}=")
                self._write(value, local)
                self._text(",")
        self._text(")")

    def _name(self, name: str, attributes: Sequence[str], local: frozenset[str]) -> None:
        if name in local:
            return self._text(".".join([f"local {name}", *attributes]))
        if name in self.module.defined:
            dotted = ".".join([self.module.name, name, *attributes])
        else:
            dotted = ".".join([self.module.imported.get(name, name), *attributes])
        definition, rest = self.find(dotted)
        if definition is not None:
            self.references.append(definition)
            self.parts.append("")
        return self._text(rest)

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, local: frozenset[str], is_top: bool
    ) -> None:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
        names = [[argument.arg for argument in group] for group in (every, starred)]
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        inner = local | frozenset(names[0] + names[1]) | bound_names(body)
        header = [] if is_top or isinstance(node, ast.Lambda) else [("name", node.name)]
        decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
        defaults = [*arguments.defaults, *(default for default in arguments.kw_defaults if default is not None)]
        self._node(
            type(node).__name__, [*header, ("args", names), ("decorators", decorators), ("defaults", defaults)], local
        )
        self._write(body, inner)

    def _class(self, node: ast.ClassDef, local: frozenset[str], is_top: bool) -> None:
        bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
        kept = [base for base in bases if self._dotted_name(base) not in IGNORED_BASES]
        header = [] if is_top else [("name", node.name)]
        fields = [*header, ("bases", kept), ("keywords", node.keywords), ("decorators", node.decorator_list)]
        self._node("ClassDef", fields, local)
        names = bound_names(node.body)
        for statement in filterfalse(
            _is_silent, node.body
        ):  # names of a class are seen in its body, not in its methods
            is_method = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_method and statement.name in self.unused:
                continue
            self._write(statement, local if is_method else local | names)
            self._text(";")

    def _dotted_name(self, node: ast.expr) -> str:
        chain = _dotted(node) or ("",)
        return ".".join([self.module.imported.get(chain[0], chain[0]), *chain[1:]])


def _is_silent(node: object) -> bool:
    """Whether a statement changes no number: a docstring, a call of print, an import (its names are resolved)."""
    match node:
        case ast.Expr(value=ast.Constant(value=str()) | ast.Call(func=ast.Name(id="print"))):
            return True
        case _:
            return isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)


def _dotted(node: ast.AST) -> tuple[str, ...] | None:
    """("a", "b", "c") of the expression a.b.c; None if it does not begin with a name."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and (head := _dotted(node.value)) is not None:
        return (*head, node.attr)
    return None


def bound_names(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Names that the statements or targets bind in their own scope, without the scopes inside them."""
    return frozenset(_names(nodes))


def _names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                yield from _names(inner for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
            case _:
                name = getattr(node, "name", None)
                if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and isinstance(name, str):
                    yield name
                yield from _names(ast.iter_child_nodes(node))


def _without_fields(node: ast.ClassDef) -> ast.ClassDef:
    """A configuration class without its fields and validators."""
    methods = [
        statement
        for statement in node.body
        if not isinstance(statement, ast.AnnAssign)
        and not any(_is_validator(decorator) for decorator in getattr(statement, "decorator_list", []))
    ]
    return ast.ClassDef(
        name=node.name, bases=node.bases, keywords=node.keywords, body=methods, decorator_list=node.decorator_list
    )


def _is_validator(decorator: ast.expr) -> bool:
    chain = _dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return chain is not None and chain[-1] in VALIDATORS


def digest_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]
