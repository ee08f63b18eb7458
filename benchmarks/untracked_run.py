"""What a timed training reports to instead of MLflow."""

from __future__ import annotations

from collections.abc import Mapping


class UntrackedRun:
    """Takes what a TrackedRun takes and keeps the metrics in memory."""

    run_id = "untracked"

    def __init__(self) -> None:
        self.metrics: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self.metrics.append((step, dict(values)))

    def flush(self) -> None:
        """Nothing is buffered."""
