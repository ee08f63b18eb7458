"""What a process may open that has to do with one folder and its own code: the proof that it was told nothing else.

Python reports every file that it opens to an audit hook, which refuses all but the folder, this package's code and
what Python and the system consist of; connections and further processes are refused too. It stops what reads data by
Python's means (numpy.load, torch.load, pathlib, a download). It is no sandbox against C code written to deceive.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dgm.errors import StageError

PACKAGE = Path(__file__).resolve().parent.parent
SYSTEM = tuple(Path(name) for name in ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/opt"))
REFUSED_EVENTS = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")


class RefusedError(StageError, PermissionError):
    """Also an OSError, as code expects it that looks for a file or a server and can do without."""


class Isolation:
    """Refuses, from `begin` to the end of the process, what does not belong to `folder`. `refused`: what was tried.

    code: folders of other people's code, which may be opened too; hidden: files and folders in them that may not.
    """

    def __init__(self, folder: Path, code: Sequence[Path] = (), hidden: Sequence[Path] = ()) -> None:
        self.refused: list[str] = []
        self._project = PACKAGE.parent  # has the data beside the code, and may lie in a folder of the system
        self._own = (folder.resolve(), PACKAGE, *(path.resolve() for path in code))
        self._hidden = tuple(path.resolve() for path in hidden)
        self._python = tuple(path.resolve() for path in _python_folders())

    def begin(self) -> None:
        sys.addaudithook(self._hook)

    def allows(self, path: str | bytes | os.PathLike[str]) -> bool:
        """Whether the file may be opened; links are followed."""
        target = Path(os.path.realpath(os.fsdecode(path)))
        if self._is_hidden(path):
            return False
        if _is_in(target, self._own):
            return True
        if _is_in(target, [self._project]):  # a virtual environment in it is Python's, its data is not
            return _is_in(target, [folder for folder in self._python if _is_in(folder, [self._project])])
        return _is_in(target, (*self._python, *SYSTEM))

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if isinstance(arguments[0], int) or arguments[0] is None or self.allows(arguments[0]):
                return
            what = f"opened {os.fsdecode(arguments[0])}"
        elif event in REFUSED_EVENTS:
            what = f"tried {event}"
        else:
            return
        self.refused.append(what)
        if event == "open" and self._is_hidden(arguments[0]):
            raise RefusedError(f"the decoder {what}: the decoder may not read the images")
        raise RefusedError(f"the decoder {what}, and was given the compressed file and the weights only")

    def _is_hidden(self, path: str | bytes | os.PathLike[str]) -> bool:
        return _is_in(Path(os.path.realpath(os.fsdecode(path))), self._hidden)


def _python_folders() -> Iterable[Path]:
    return (Path(name) for name in (sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages()))


def _is_in(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
