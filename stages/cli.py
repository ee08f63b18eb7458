"""How every stage begins and ends: its arguments, and one clear line instead of a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from dgm.config.params import PROFILES
from dgm.runs.progress import ProgressFile, is_shown
from dgm.runs.system_errors import line_of
from dgm.runs.termination import INTERRUPTED, Terminated, exit_code, hidden_interrupt, unwinding
from dgm.runs.unfinished import remove_unfinished, scratch_folder
from dgm.tracking.causes import StoreAwayError
from dgm.tracking.secrets import conceal, conceal_tracebacks

__all__ = ["AWAY", "DATA", "PAUSED", "Terminated", "make_parser", "parse_arguments", "run_stage"]
DATA = Path("data")
PAUSED = 75  # exit code of a training that stopped at its session's limit: the same command continues
AWAY = 69  # exit code where MLflow's server does not answer: the same command may succeed later


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


def run_stage(main: Callable[[], None]) -> NoReturn:
    """Runs the stage and leaves the process.

    Exit codes: 0 done, 1 failure, 69 MLflow's server is away, 75 training paused, 130 interrupted by Ctrl-C, 143 by
    SIGTERM or SIGHUP, which unwind the stage as Ctrl-C does: temporary files are removed, a run in MLflow is ended.
    Expected failures, and memory or files that are used up, are one line; other errors pass through. Nothing that is
    printed holds a password.
    """
    conceal_tracebacks()
    ProgressFile().update("starts", None, None)
    with unwinding():
        try:
            remove_unfinished(scratch_folder())
            main()
        except KeyboardInterrupt as interrupt:
            end_interrupted(interrupt)
        except Exception as error:
            if (interrupt := hidden_interrupt()) is not None:
                end_interrupted(interrupt)
            if (line := line_of(error)) is None:
                raise
            fail(conceal(line), isinstance(error, StoreAwayError))
    sys.exit(0)


def end_interrupted(interrupt: KeyboardInterrupt) -> NoReturn:
    """Ends the process with the exit code of the signal; where it is shown, with one line."""
    if is_shown() and reported_by_this_rank("interrupted"):
        print(INTERRUPTED, file=sys.stderr)
    sys.exit(exit_code(interrupt))


def fail(text: str, is_away: bool) -> NoReturn:
    """Ends the process with one line; of several that work together, only the first that fails has one."""
    line = reported_by_this_rank(text)
    if not is_away:
        sys.exit(f"error: {line}" if line else 1)
    if line:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(AWAY)


def reported_by_this_rank(text: str) -> str | None:
    """The line, with its rank where several work together; None if another one has said why they end."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return text
    from dgm.ranks import reported  # imports torch, which some stages do without

    return reported(text)
