"""The base class of expected failures."""

from __future__ import annotations


class StageError(RuntimeError):
    """An expected failure: its text names what is wrong, where, and the remedy. Stages print it without a traceback."""
