"""A digest of the code that an entry point reaches, the same wherever that code stands.

Every top-level function, class and constant of our modules is a node. The names in it that stand for other nodes are
its edges, and its digest covers its syntax tree with each of these names replaced by the digest of what it stands for
(a Merkle tree). So moving a function, renaming a module or splitting one changes nothing; a changed constant, operator
or call changes every digest above it.

Left out, because no number depends on it: comments, docstrings, annotations, calls of print, what an exception says,
fields and validators of configuration classes (their values are part of every key by themselves), code that runs only
for the type checker, and modules that only pass values on (`passive`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from dgm.errors import StageError
from dgm.runs.syntax import Definition, Template, Writer, bound_names, digest_of_text

CONFIG_BASE = "dgm.config.parse.Config"
CONFIGURATION = "configuration"  # what stands for it in the text
PASSIVE = "passive"


class Module:
    """One source file: what its top-level names stand for, a definition here or a dotted name from elsewhere."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        file = path_of(name)
        self.imported: dict[str, str] = {}
        self.defined: dict[str, list[ast.stmt]] = {}
        try:
            tree = ast.parse(text, filename=file)
        except SyntaxError as error:
            raise StageError(f"{file}:{error.lineno}: not valid Python ({error.msg})") from None
        for statement in tree.body:
            self._read(statement, file)
        for node in ast.walk(tree):  # those inside functions: their names are nowhere else
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._read_import(node)

    def _read(self, statement: ast.stmt, file: str) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                self._read_import(statement)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                self.defined.setdefault(name, []).append(statement)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                for name in sorted(bound_names([statement])):
                    self.defined.setdefault(name, []).append(statement)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=otherwise):
                for inner in otherwise:
                    self._read(inner, file)
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))) | ast.Expr(value=ast.Constant()):
                pass
            case _:
                raise StageError(
                    f"{file}:{statement.lineno}: does something when it is imported, which no key of a result sees; "
                    "move it into a function"
                )

    def _read_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                name, dotted = alias.name, f"{node.module}.{alias.name}"
            else:
                name = dotted = alias.name if alias.asname else alias.name.split(".")[0]
            self.imported.setdefault(alias.asname or name, dotted)


def path_of(module: str) -> str:
    """The file of a module below the root."""
    return module.replace(".", "/") + ".py"


@lru_cache(maxsize=1024)
def parsed(name: str, text: str) -> Module:
    """A module by its source. Graphs of several stages share it: parsing is half of the time that digests take."""
    return Module(name, text)


class CodeGraph:
    """The code under `root` as it is now.

    passive: dotted prefixes of modules that only pass values on. unused: names of methods that the work in question
    never calls: what only they reach does not count.
    """

    def __init__(self, root: Path, packages: Iterable[str], passive: Iterable[str], unused: Iterable[str] = ()) -> None:
        self.unused = frozenset(unused)
        self.root = root
        self.packages = tuple(packages)
        self.passive = tuple(passive)
        self._modules: dict[str, Module | None] = {}
        self._templates: dict[tuple[str, str], Template] = {}
        self._digests: dict[tuple[str, str], str] = {}

    def digest(self, entries: Iterable[str]) -> str:
        """Sixteen hex digits over all that `entries` ("package.module:name") reach.

        Raises: StageError naming an entry that does not exist, or a reached module that acts when it is imported.
        """
        return digest_of_text(" ".join(self._digest_of(self._entry(entry)) for entry in entries))

    def reached(self, entries: Iterable[str]) -> set[str]:
        """The names "package.module:name" of all definitions that `entries` reach, themselves included."""
        waiting = [self._entry(entry) for entry in entries]
        found: dict[tuple[str, str], Definition] = {}
        while waiting:
            definition = waiting.pop()
            if (key := (definition.module, definition.name)) not in found:
                found[key] = definition
                waiting.extend(self._template(definition).references)
        return {f"{module}:{name}" for module, name in found}

    def module(self, name: str) -> Module | None:
        """One of our modules; None if `name` is no module of ours."""
        if name not in self._modules:
            file = self.root / path_of(name)
            is_ours = name.split(".")[0] in self.packages and file.is_file()
            self._modules[name] = parsed(name, file.read_text(encoding="utf-8")) if is_ours else None
        return self._modules[name]

    def find(self, dotted: str) -> tuple[Definition | None, str]:
        """What a dotted name stands for: (our definition, attributes left over), or (None, its canonical name)."""
        parts = dotted.split(".")
        for end in range(len(parts) - 1, 0, -1):
            name, symbol, rest = ".".join(parts[:end]), parts[end], parts[end + 1 :]
            if (module := self.module(name)) is None:
                continue
            if self._is_passive(name):
                return None, CONFIGURATION if dotted == CONFIG_BASE else PASSIVE
            if symbol in module.defined:
                return Definition(name, symbol, tuple(module.defined[symbol])), "".join(f".{part}" for part in rest)
            if symbol in module.imported:
                return self.find(".".join([module.imported[symbol], *rest]))
        return None, dotted

    def is_config(self, definition: Definition) -> bool:
        """Whether it is a configuration class."""
        module = self.module(definition.module)
        assert module is not None
        for node in definition.nodes:
            for base in node.bases if isinstance(node, ast.ClassDef) else ():
                plain = base.value if isinstance(base, ast.Subscript) else base
                if not isinstance(plain, ast.Name) or plain.id not in {**module.imported, **module.defined}:
                    continue
                found, name = self.find(module.imported.get(plain.id, f"{definition.module}.{plain.id}"))
                if name == CONFIGURATION or (found is not None and self.is_config(found)):
                    return True
        return False

    def _entry(self, entry: str) -> Definition:
        definition, _ = self.find(entry.replace(":", "."))
        if definition is None:
            raise StageError(f"{entry}: no such function or class under {self.root.resolve()}")
        return definition

    def _is_passive(self, module: str) -> bool:
        return any(module == prefix or module.startswith(f"{prefix}.") for prefix in self.passive)

    def _template(self, definition: Definition) -> Template:
        key = (definition.module, definition.name)
        if key not in self._templates:
            module = self.module(definition.module)
            assert module is not None
            self._templates[key] = Writer(self.find, module, self.unused).template(
                definition, self.is_config(definition)
            )
        return self._templates[key]

    def _digest_of(self, start: Definition) -> str:
        """By Tarjan's algorithm: definitions that reach each other get their digests together."""
        index: dict[tuple[str, str], int] = {}
        low: dict[tuple[str, str], int] = {}
        path: list[Definition] = []

        def visit(node: Definition) -> None:
            key = (node.module, node.name)
            index[key] = low[key] = len(index)
            path.append(node)
            for reference in self._template(node).references:
                other = (reference.module, reference.name)
                if other in self._digests:
                    continue
                if other not in index:
                    visit(reference)
                low[key] = min(low[key], low[other])
            if low[key] == index[key]:
                cycle = path[path.index(node) :]
                del path[path.index(node) :]
                self._close(cycle)

        if (start.module, start.name) not in self._digests:
            visit(start)
        return self._digests[start.module, start.name]

    def _close(self, cycle: Sequence[Definition]) -> None:
        """Digests of definitions that reach each other: among themselves, they are known by their bare names."""
        inside = {(node.module, node.name) for node in cycle}
        texts: dict[tuple[str, str], str] = {}
        for node in cycle:
            template = self._template(node)
            filled = [
                f"<{reference.name}>"
                if (reference.module, reference.name) in inside
                else f"<{self._digests[reference.module, reference.name]}>"
                for reference in template.references
            ]
            texts[node.module, node.name] = digest_of_text(template.filled(filled))
        whole = " ".join(sorted(texts.values()))
        for key, text in texts.items():
            self._digests[key] = digest_of_text(f"{text} of {whole}")
