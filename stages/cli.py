"""How every stage begins and ends: its arguments, and one clear line instead of a traceback."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dgm.config.params import PROFILES
from dgm.config.parse import ConfigError
from dgm.errors import StageError
from dgm.runs.progress import is_shown

DATA = Path("data")
PAUSED = 75  # exit code of a training that stopped at its session's limit: the same command continues


def make_parser(description: str | None, can_pause: bool) -> argparse.ArgumentParser:
    """--model, --profile, --device and, for training, how to pause and how often to save."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True, help="a name from the registry, e.g. pixelcnn_pp")
    parser.add_argument("--profile", required=True, choices=PROFILES)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="instead of the profile's; provenance says which")
    if can_pause:
        parser.add_argument("--stop-after-seconds", type=float, help="pause, with a checkpoint, after this long")
        parser.add_argument("--checkpoint-every-seconds", type=float, default=30.0, help="how much a kill may cost")
    return parser


def parse_arguments(description: str | None, can_pause: bool = False) -> argparse.Namespace:
    """The command line of a stage that works on one model in one profile."""
    return make_parser(description, can_pause).parse_args()


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived, the normal way for a cluster or a container to stop a process: treated as Ctrl-C."""


def run_stage(main: Callable[[], None]) -> NoReturn:
    """Runs the stage and leaves the process.

    Exit codes: 0 done, 1 expected failure, 75 training paused, 130 interrupted by Ctrl-C, 143 by SIGTERM. Other errors
    pass through. SIGTERM unwinds the stage as Ctrl-C does: temporary files are removed, a run in MLflow is ended.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
    except (ConfigError, StageError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt as interrupt:
        if is_shown() and reported_by_this_rank("interrupted"):
            print("interrupted; `dvc repro` continues from here", file=sys.stderr)
        sys.exit(143 if isinstance(interrupt, Terminated) else 130)
    finally:
        signal.signal(signal.SIGTERM, previous)
    sys.exit(0)


def fail(text: str) -> NoReturn:
    """Ends the process with one line; of several that work together, only the first that fails has one."""
    line = reported_by_this_rank(text)
    sys.exit(f"error: {line}" if line else 1)


def reported_by_this_rank(text: str) -> str | None:
    """The line, with its rank where several work together; None if another one has said why they end."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return text
    from dgm.ranks import reported  # imports torch, which some stages do without

    return reported(text)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut the cleaning up short
    raise Terminated
