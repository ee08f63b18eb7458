"""The files that DVC reads before it runs anything, read as it reads them, and a remedy for one that it cannot read.

DVC itself names neither the key nor the remedy, and with `-q` nothing at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from dgm.config.document import MAX_DEPTH_OF_DVC, read_document, read_text, too_deep
from dgm.config.params import PARAMS_FILE
from dgm.config.parse import ConfigError, shortened, shown, shown_key

PIPELINES = (Path("dvc.yaml"), Path("proof/dvc.yaml"), Path("scaling/dvc.yaml"))
NEEDED_STAGES = {"dvc.yaml": ("check", "download", "evaluate", "report", "train")}
LOCKED = {"deps": list, "params": dict, "outs": list}  # what a stage of a lock file has beside its command
_REMEDIES = {
    ".lock": "`git checkout {}` takes the last committed one back, and nothing that is cached is computed anew",
    ".yaml": "mend that line, or `git checkout {}` for the last committed one",
}


def check_documents(root: Path = Path()) -> None:
    """Raises: ConfigError, one line for each file that DVC cannot read, or that lacks what it needs."""
    problems: list[str] = []
    for path in (PARAMS_FILE, *(path.with_suffix(kind) for path in PIPELINES for kind in (".yaml", ".lock"))):
        if path != PARAMS_FILE and not (root / path).exists():
            continue
        try:
            if path == PARAMS_FILE:
                read_document(root / path)
            _check(root / path, path)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


def _check(file: Path, path: Path) -> None:
    text, remedy = read_text(file), _REMEDIES[path.suffix].format(path)
    if (deep := too_deep(text)) is not None:
        raise ConfigError(f"{path}, line {deep}: more than {MAX_DEPTH_OF_DVC} levels are nested here; {remedy}")
    try:
        values: Any = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {min(mark.line + 1, max(1, len(text.splitlines())))}"
        raise ConfigError(f"{path}{line}: {shortened(str(error.problem or error.context))}; {remedy}") from None
    except Exception as error:  # ruamel raises what a value's constructor raises: a date 2020-13-45 is a ValueError
        raise ConfigError(f"{path}: cannot be read as YAML: {shortened(str(error))}; {remedy}") from None
    if path == PARAMS_FILE:
        return
    stages = values.get("stages") if isinstance(values, dict) else None
    if not isinstance(stages, dict):
        raise ConfigError(f"{path}: has no stages, it holds {shown(values)}; {remedy}")
    missing = [stage for stage in NEEDED_STAGES.get(str(path), ()) if stage not in stages]
    if missing:
        raise ConfigError(f"{path}: lacks the stages {', '.join(missing)}; {remedy}")
    for name, stage in stages.items():
        if not isinstance(stage, dict) or not ("cmd" in stage or "foreach" in stage):
            raise ConfigError(f"{path}: stage {shown_key(name)} has no cmd: the file is cut; {remedy}")
        for key, kind in LOCKED.items():
            if path.suffix == ".lock" and not isinstance(stage.get(key, kind()), kind):
                raise ConfigError(f"{path}: {key} of stage {shown_key(name)} is cut; {remedy}")
