"""Progress of long commands: a bar with ETA on a terminal, otherwise a line now and then."""

from __future__ import annotations

import time

import rich.console
import rich.progress

LINE_EVERY = 30.0
"""Seconds between two lines of progress where standard error is no terminal."""


class Throughput:
    """How far a command is, how many things a second it does, and how long it still takes.

    Args:
        name: what the bar says is going on.
        unit: the things counted, in the plural.
        total: where it ends; any measure, such as bytes of a file.
        console: where to write.
        start: where it begins, of `total`; neither rate nor time left count what lies before.
    """

    def __init__(self, name: str, unit: str, total: int, console: rich.console.Console, *, start: int = 0) -> None:
        self._unit = unit
        self._total = total
        self._start = start
        self._console = console
        self._started = self._said = time.monotonic()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.fields[said]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, completed=start, said="")

    def __enter__(self) -> Throughput:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def at(self, place: int, count: int, note: str = "") -> None:
        """Progress came to `place` of the total, with `count` things done since the beginning."""
        now, seconds = time.monotonic(), max(self.seconds, 1e-9)
        left = seconds * (self._total - place) / max(place - self._start, 1e-9) if place > self._start else 0.0
        said = f"{count:,} {self._unit}, {_rate(count / seconds)} a second{note}, {_duration(left)} left"
        self._bar.update(self._task, completed=place, said=said)
        if not self._console.is_terminal and now - self._said >= LINE_EVERY:
            self._said = now
            self._console.print(f"{place / max(self._total, 1):.0%}: {said}", highlight=False, soft_wrap=True)


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
