"""How every stage ends: an expected failure is one clear line and exit code 1, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from dgm.config import ConfigError
from dgm.runs import StageError


def run_stage(main: Callable[[], None]) -> NoReturn:
    """Runs the stage and leaves the process: 0 done, 1 expected failure, 130 interrupted. Other errors pass through."""
    try:
        main()
    except (ConfigError, StageError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; `dvc repro` goes on from here", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)
