"""What `dgm prove` is given: FILE.py:NAME or an entry point, and a file of weights. Loading runs that code."""

from __future__ import annotations

import copy
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file

import dgm
from dgm.errors import StageError
from dgm.model_api.contracts import Model
from dgm.runs.atomic import file_digest

ENTRY_POINTS = "dgm.prove"
MODULE = "dgm_prove_target"  # what FILE.py is called in sys.modules
THEIRS = (Exception, SystemExit)  # what the user's code may raise; sys.exit() too would end the proof without a word
LOADABLE = "a function that takes the weights' path and returns an adapter, or an adapter"


@dataclass(frozen=True)
class Target:
    """A model that can be loaded as often as it is asked for. text: as the user wrote it."""

    text: str
    weights: Path
    made_by: Any
    main: Path

    @property
    def folder(self) -> Path:
        """Where the user's code is."""
        return self.main.parent

    def load(self) -> Model[Any]:
        """The model with its weights, on the CPU, in eval mode. Raises: StageError that names what failed."""
        if isinstance(self.made_by, Model):
            model = copy.deepcopy(self.made_by)
            self._fill(model)
            return model.eval()
        try:
            with torch.random.fork_rng([]):
                torch.manual_seed(0)
                model = self.made_by(self.weights)
        except THEIRS as error:
            raise StageError(f"{self.text}: loading {self.weights} failed: {described(error, self.folder)}") from None
        if not isinstance(model, Model):
            raise StageError(f"{self.text}: returned {type(model).__name__}; it must be {LOADABLE}")
        return model.eval()

    def _fill(self, model: Model[Any]) -> None:
        """Gives an adapter that is there already the weights of its network, which are a state_dict."""
        try:
            is_safe = self.weights.suffix == ".safetensors"
            state = load_file(self.weights) if is_safe else torch.load(self.weights, "cpu", weights_only=True)
            keys = model.state_dict().keys()
            named = state if set(state) == set(keys) else {f"network.{key}": value for key, value in state.items()}
            if set(named) == set(keys):
                model.load_state_dict(named, strict=True)
                return
            lacking = sorted(set(keys) - set(named)) + sorted(set(named) - set(keys))
            reason = f"they do not fit: {lacking[0]} is only in one of the two"
        except Exception as error:  # of torch.load alone a dozen kinds, by what of the file is damaged
            reason = f"not read ({described(error, self.folder)})"
        raise StageError(f"{self.weights}: weights of {self.text}: {reason}; give a function that loads them")

    def code(self) -> dict[str, str]:
        """SHA-256 of FILE.py and of every imported file beside or below it, by path relative to its folder."""
        found = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        own = {Path(file).resolve() for file in found if file and file.endswith(".py") and Path(file).is_file()}
        inside = sorted(path for path in own | {self.main} if path == self.main or _is_theirs(path, self.folder))
        return {str(path.relative_to(self.folder)): file_digest(path) for path in inside}

    def code_folders(self) -> list[Path]:
        """The user's folder, every imported package and module, and what is noted of installed packages."""
        found = {self.folder}
        for module in [module for name, module in sys.modules.items() if "." not in name]:
            own = [getattr(module, "__file__", None)]
            found |= {Path(path) for path in getattr(module, "__path__", own) if path}
        for folder in map(Path, sys.path):
            found |= {*folder.glob("*.dist-info"), *folder.glob("*.egg-info")}
        return sorted(found)

    def main_digest(self) -> str:
        """SHA-256 of FILE.py, or of the package's first file."""
        return file_digest(self.main)


def _is_theirs(path: Path, folder: Path) -> bool:
    """Whether a file below the folder belongs to the user's code, not to this package or to installed ones."""
    ours = Path(dgm.__file__).resolve().parent
    if not path.is_relative_to(folder) or path.is_relative_to(ours):
        return False
    return "site-packages" not in path.relative_to(folder).parts


def find_target(text: str, weights: Path) -> Target:
    """Imports FILE.py, or the package of an entry point. Raises: StageError that says what is missing."""
    if not weights.is_file():
        raise StageError(f"{weights}: no such file of weights")
    name_of_file, colon, name = text.rpartition(":")
    if not colon or not name_of_file.endswith(".py"):
        return _entry_point(text, weights)
    path = Path(name_of_file)
    if not path.is_file():
        raise StageError(f"{path}: no such file; give FILE.py:NAME")
    module = _import(path.resolve(), text)
    made_by = getattr(module, name, None)
    if made_by is None:
        ours = (key for key, value in vars(module).items() if getattr(value, "__module__", "") == MODULE)
        there = ", ".join(sorted(ours)) or "nothing of its own"
        raise StageError(f"{path}: has no {name!r}; it has {there}")
    if not isinstance(made_by, Model) and not callable(made_by):
        raise StageError(f"{text}: is {type(made_by).__name__}; it must be {LOADABLE}")
    return Target(text, weights, made_by, path.resolve())


def _entry_point(text: str, weights: Path) -> Target:
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if text not in found:
        there = f"installed are {', '.join(sorted(found))}" if found else "none is installed"
        raise StageError(f"{text}: neither FILE.py:NAME nor an entry point of the group {ENTRY_POINTS} ({there})")
    try:
        made_by: Callable[[Path], Any] = found[text].load()
    except Exception as error:
        raise StageError(f"{text}: the entry point does not load: {described(error, Path.cwd())}") from None
    origin = importlib.util.find_spec(found[text].module.partition(".")[0])
    if origin is None or origin.origin is None:
        raise StageError(f"{text}: the package {found[text].module} has no file")
    return Target(text, weights, made_by, Path(origin.origin).resolve())


def _import(path: Path, text: str) -> ModuleType:
    """The file as a module; what stands beside it can be imported, as if it were run as a script."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except THEIRS as error:
        raise StageError(f"{text}: cannot be imported: {described(error, path.parent)}") from None
    return module


def described(error: BaseException, folder: Path) -> str:
    """One line: the kind of error, what it says, and the last line of the user's code that led to it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent == folder]
    where = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"
