"""What a person sees while a run goes on: a progress bar with ETA, and the same numbers as JSON lines."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import rich.console
import rich.progress


class Progress:
    """Reports of one phase: lines and a bar on the console, records in `metrics.jsonl`."""

    def __init__(self, name: str, file: IO[str], console: rich.console.Console) -> None:
        self._name = name
        self._file = file
        self._console = console

    def record(self, step: int, values: dict[str, Any], *, say: str = "") -> None:
        """Append one record to the phase's metrics.jsonl and, if there is something to say, print a line.

        A run that goes on repeats the steps since its last checkpoint: of two records of a step the later counts.
        """
        line = {"step": step, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if say:
            self._console.print(f"[bold]{self._name}[/bold] step {step}: {say}", highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, total: int, *, start: int) -> Iterator[Callable[[int, float], None]]:
        """A bar of `total` steps, `start` of them done; yields `advance(step, loss)`."""
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[loss]}"),
        )
        with rich.progress.Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(self._name, total=total, completed=start, loss="")

            def advance(step: int, loss: float) -> None:
                progress.update(task, completed=step, loss=f"loss {loss:.4f}")

            yield advance


@contextlib.contextmanager
def open_progress(name: str, folder: Path) -> Iterator[Progress]:
    """Report on the phase `name`, whose folder receives `metrics.jsonl`; a run that goes on appends to it."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        yield Progress(name, file, rich.console.Console(stderr=True))
