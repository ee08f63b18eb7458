"""How long a row trains: its share of the minutes of a whole table, or seconds of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from dgm.config.parse import Config

MINUTES, SHARE, SECONDS = "table_minutes", "share", "max_seconds"
BUDGET_KEYS = (MINUTES, SHARE)  # of params.yaml, besides the fields of a training's configuration
MAX_MINUTES = 10_000_000


class Budget(Config):
    """training_defaults.<profile>.table_minutes and models.<model>.<profile>.training.share.

    Training seconds are minutes * 60 * share. The shares of a table that is trained one row after the other add up to
    less than 1: starting and scoring take time too.
    """

    table_minutes: float = Field(gt=0, le=MAX_MINUTES)
    share: float = Field(gt=0, le=1)

    @property
    def seconds(self) -> float:
        """To a hundredth."""
        return round(self.table_minutes * 60 * self.share, 2)


def has_budget(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether the seconds of a row come from its share. Seconds of its own (also null: no limit) go before a share."""
    return SECONDS not in own and (MINUTES in defaults or SHARE in {**defaults, **own})
