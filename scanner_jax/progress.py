"""What a person sees while a run goes on: a bar with ETA, the numbers as JSON lines, and TensorBoard's scalars."""

from __future__ import annotations

import contextlib
import importlib
import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rich.console
import rich.progress

from scanner_jax.files import naming, write_json, write_json_lines
from scanner_jax.processes import is_first

METRICS = "metrics.jsonl"
SECONDS = "seconds.json"
EVENTS = "events.out.tfevents.*"
"""TensorBoard's event file; its name ends in a time and a host."""


class Progress:
    """Reports of one phase: lines and a bar on the console, records in `metrics.jsonl` and for TensorBoard.

    `seconds.json` says what the time went into, since the phase was last begun or gone on with.
    """

    def __init__(self, name: str, path: Path | None, scalars: Scalars | None, console: rich.console.Console) -> None:
        self._name = name
        self._path = path
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._scalars = scalars
        self._console = console

    def record(self, step: int, values: dict[str, Any], *, say: str = "") -> None:
        """Append one record to the phase's metrics.jsonl and, if there is something to say, print a line."""
        line = {"step": step, "time": round(time.time(), 3), **values}
        if self._path:
            with naming(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self._scalars:
            self._scalars.write(line)
        if say:
            self.say(f"step {step}: {say}")

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(f"[bold]{self._name}[/bold] {text}", highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count this block's time among that of `what`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[what] += time.perf_counter() - started

    def finish(self) -> None:
        """Write what the time went into, and print it."""
        seconds = {what: round(value, 3) for what, value in self._seconds.items()}
        if self._path:
            write_json(self._path.with_name(SECONDS), seconds)
        self.say("finished; seconds: " + ", ".join(f"{what} {value:.1f}" for what, value in seconds.items()))

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


class Scalars:
    """TensorBoard's event file, a copy of metrics.jsonl: every number of a record, at the record's step and time.

    Raises:
        ImportError: TensorBoard is not installed; TensorFlow is not needed.
    """

    def __init__(self, folder: Path) -> None:
        # The parts of its EventFileWriter without the thread, which would keep a full disk to itself.
        self._record_writer = importlib.import_module("tensorboard.summary.writer.record_writer").RecordWriter
        self._event = importlib.import_module("tensorboard.compat.proto.event_pb2").Event
        self._path = folder / EVENTS.replace("*", f"{int(time.time())}.{platform.node()}")
        self._append(self._event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, record: dict[str, Any]) -> None:
        event = self._event(step=record["step"], wall_time=record["time"])
        for key, value in record.items():
            if key not in ("step", "time"):
                event.summary.value.add(tag=key, simple_value=value)
        self._append(event)

    def _append(self, event: Any) -> None:
        with naming(self._path), self._path.open("ab") as file:
            self._record_writer(file).write(event.SerializeToString())


def open_progress(name: str, folder: Path, *, start: int) -> Progress:
    """Report on the phase `name` from step `start` on.

    Args:
        name: what the console calls it.
        folder: receives `metrics.jsonl` and, where TensorBoard is installed, `events.out.tfevents.*`. Records of a run
            that was interrupted are kept as far as they are not written again: losses up to `start`, and scores of
            the steps before it. Of several processes, the first one alone writes there and speaks.
        start: steps that are done.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    if not is_first():
        return Progress(name, None, None, rich.console.Console(quiet=True))
    path = folder / METRICS
    kept = [record for record in _whole_records(path) if (record["step"], "loss" not in record) < (start, True)]
    write_json_lines(path, kept)
    for events in folder.glob(EVENTS):
        events.unlink()
    scalars = _open_scalars(folder)
    if scalars:
        for record in kept:
            scalars.write(record)
    return Progress(name, path, scalars, rich.console.Console(stderr=True))


def _open_scalars(folder: Path) -> Scalars | None:
    try:
        return Scalars(folder)
    except ImportError:
        return None


def _whole_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a metrics.jsonl; a killed process may have left half a line at its end."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line)
