"""A second process for tests that need one: forked, so that it starts with everything imported."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def start(function: Callable[[], None]) -> int:
    """Process id of a child that runs `function` and exits: 0 if it returned, 1 if it raised."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            function()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def exit_code(process: int) -> int:
    """The child's exit code; -9 if it was killed with SIGKILL."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
