"""Which row of a time-boxed suite begins next, and until when it may train and be scored."""

from __future__ import annotations

from collections.abc import Mapping

# Rows whose steps are thousands of small kernels, so that a GPU waits for its host: 3,000 to 27,000 launches a step at
# the sizes of the gpu profile. One of them beside one that fills the GPU costs the latter little.
LAUNCH_BOUND = frozenset({"char_rnn", "conv_draw", "diagonal_bilstm", "draw", "ride", "row_lstm"})


class Schedule:
    """The rows that have not begun, and the times when the running ones will have freed their places.

    weights: row -> its part of the table's time, in any unit. jobs: places, each for one row at a time. Times are
    seconds of one clock. is_in_order: rows begin in the order of `weights`, not the heaviest first.
    """

    def __init__(self, weights: Mapping[str, float], jobs: int, end: float, is_in_order: bool = False) -> None:
        self.waiting = dict(weights)
        if not is_in_order:
            self.waiting = dict(sorted(weights.items(), key=lambda item: (-item[1], item[0])))
        self._is_in_order = is_in_order
        self.running: dict[str, float] = {}
        self._jobs, self._end = jobs, end

    def has_place(self) -> bool:
        """Whether a row waits and a place is free."""
        return bool(self.waiting) and len(self.running) < self._jobs

    def begin(self, now: float) -> tuple[str, float]:
        """The row to begin now, and until when it may use its place. To be called while `has_place`.

        The time that is left of all places is divided by weight among the rows that wait.
        """
        row = self._next()
        left = (self._jobs - len(self.running)) * (self._end - now)
        left += sum(max(0.0, self._end - until) for until in self.running.values())
        until = now + left * self.waiting[row] / sum(self.waiting.values())
        del self.waiting[row]
        self.running[row] = min(until, self._end)
        return row, self.running[row]

    def free(self, row: str) -> None:
        """The row has been scored, or has ended."""
        self.running.pop(row, None)

    def _next(self) -> str:
        """The heaviest row, of the kind (launch-bound or not) of which fewer are running."""
        num_bound = sum(row in LAUNCH_BOUND for row in self.running)
        is_wanted = num_bound < len(self.running) - num_bound
        if self._is_in_order or not self.running:
            return next(iter(self.waiting))
        return next((row for row in self.waiting if (row in LAUNCH_BOUND) == is_wanted), next(iter(self.waiting)))


def evaluation_that_fits(
    num_draws: int, num_importance_samples: int, seconds_per_draw: float, seconds: float
) -> tuple[int, int]:
    """Draws and importance samples, at most as many as given, that scoring has `seconds` for; at least one of each.

    seconds_per_draw: of all images of both splits.
    """
    affordable = int(seconds / seconds_per_draw) if seconds_per_draw > 0 else num_draws + num_importance_samples
    draws = max(1, min(num_draws, affordable - (1 if num_importance_samples else 0)))
    if not num_importance_samples:
        return draws, 0
    return draws, max(1, min(num_importance_samples, affordable - draws))
