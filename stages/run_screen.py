"""What `make run` shows: a line for each finished model and, in a terminal, what runs now beneath them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dgm.runs.progress import Position

BAR_WIDTH = 20
REFRESHES_PER_SECOND = 2


@dataclass(frozen=True)
class Job:
    """A chain that runs: how far its stage is, None before the stage has said so, and since when the chain runs."""

    name: str
    position: Position | None
    seconds: float


class Screen(Protocol):
    """Where lines are printed for good, and the state of now is shown until the next one."""

    def line(self, text: str) -> None: ...
    def show(self, jobs: Sequence[Job], footer: str) -> None: ...


class PlainScreen(AbstractContextManager["PlainScreen"]):
    """For logs: lines only."""

    def line(self, text: str) -> None:
        print(text, flush=True)

    def show(self, jobs: Sequence[Job], footer: str) -> None:
        """Nothing: it would be out of date in the next line."""

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class LiveScreen(AbstractContextManager["LiveScreen"]):
    """For terminals: the lines scroll above a few that are drawn anew."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True)

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        self._live.console.print(Text(text), soft_wrap=True)

    def show(self, jobs: Sequence[Job], footer: str) -> None:
        self._live.update(picture(jobs, footer))


def make_screen() -> PlainScreen | LiveScreen:
    """What standard output can show."""
    console = Console(highlight=False)
    return LiveScreen(console) if console.is_terminal and not console.is_dumb_terminal else PlainScreen()


def picture(jobs: Sequence[Job], footer: str) -> Group:
    """One line a job: its name, its stage, a bar, what the stage says, for how long it runs."""
    table = Table.grid(padding=(0, 1))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.expand = True
    for job in jobs:
        position = job.position or Position("", "starts", None, None)
        fraction = 0.0 if position.fraction is None else position.fraction
        bar = ProgressBar(total=1.0, completed=fraction, width=BAR_WIDTH)
        stage = position.stage.partition("@")[0]
        table.add_row(Text(job.name), Text(stage), bar, Text(position.text), Text(duration(job.seconds)))
    return Group(table, Text(footer, no_wrap=True, overflow="ellipsis"))


def duration(seconds: float) -> str:
    """As people say it: 45 s, 2 min 57 s, 1 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def time_left(seconds: float) -> str:
    """An estimate, no more exact than it is."""
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 120 else f"about {minutes / 60:.1f} h left"
