"""Which code produced a number: one fingerprint a stage and model, over every module that can change the result.

DVC would rerun all models for a new file in a shared folder. Here each (stage, model) depends on exactly the modules
that its imports reach, compared as syntax trees: comments, docstrings and layout do not retrain anything.
Modules that only pass values on (PASSIVE) are left out.
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from dgm.config.params import Params
from dgm.runs.atomic import key_of, write_text
from dgm.runs.files import RunFiles

STAGES = ("train", "evaluate", "sample", "compress")
STAGES_OF_ONE = {"ppca": ("ppca_ladder",)}  # stages that only this model has
PASSIVE = (
    "dgm.config",
    "dgm.runs.fingerprints",
    "dgm.registry",
    "dgm.reporting",
    "dgm.runs",
    "dgm.tracking",
    "stages.cli",
)


def fingerprint(stage: str, model: str, root: Path = Path(".")) -> dict[str, str]:
    """Module file -> hash of its syntax tree, for everything that stages/<stage>.py and the model's file import."""
    found: dict[str, str] = {}
    is_room = (root / "dgm" / "models" / model).is_dir()
    waiting = [f"stages.{stage}", f"dgm.models.{model}.model" if is_room else f"dgm.models.{model}"]
    while waiting:
        module = waiting.pop()
        file = root / (module.replace(".", "/") + ".py")
        if is_passive(module) or str(file.relative_to(root)) in found or not file.exists():
            continue
        digest, imports = _read(file, file.stat().st_mtime_ns)
        found[str(file.relative_to(root))] = digest
        waiting.extend(imports)
    return dict(sorted(found.items()))


def is_passive(module: str) -> bool:
    """Whether a module only passes values on."""
    return any(module == passive or module.startswith(f"{passive}.") for passive in PASSIVE)


@lru_cache(maxsize=1024)
def _read(file: Path, modified: int) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports.append(node.module)
            imports.extend(f"{node.module}.{alias.name}" for alias in node.names)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:]  # type: ignore[attr-defined]
    own = tuple(name for name in imports if name.split(".")[0] in ("dgm", "stages"))
    return hashlib.sha256(_canonical(tree).encode()).hexdigest()[:16], own


def _canonical(node: object) -> str:
    """A syntax tree as text, the same in every version of Python: ast.dump is not (3.12 added empty fields)."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return f"{type(node).__name__}({','.join(f'{name}={_canonical(value)}' for name, value in sorted(fields))})"
    if isinstance(node, list):
        return f"[{','.join(_canonical(item) for item in node)}]"
    return repr(node)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def write_fingerprints(models: list[str], root: Path = Path(".")) -> None:
    """fingerprints/<model>/<stage>.json for each: what the stages of dvc.yaml depend on."""
    for model in models:
        for stage in (*STAGES, *STAGES_OF_ONE.get(model, ())):
            text = json.dumps(fingerprint(stage, model, root), indent=1) + "\n"
            path = RunFiles("", model, root).fingerprints / f"{stage}.json"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)


def training_key(params: Params, model: str, profile: str) -> str:
    """Changes with anything that changes the trained weights: code, the model's numbers, the shared run's numbers."""
    sections: list[Any] = [params.model_section(model, profile, section) for section in ("model", "training")]
    return key_of(*sections, params.common_config(profile).run.model_dump(), fingerprint("train", model))


def current_key(params: Params, model: str, profile: str) -> str:
    """Changes with anything that changes the metrics: the report marks results of another key as stale."""
    return key_of(
        training_key(params, model, profile),
        params.model_section(model, profile, "evaluation"),
        params.common_config(profile).evaluation.model_dump(),
        fingerprint("evaluate", model),
    )
