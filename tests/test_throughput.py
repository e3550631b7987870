"""Progress of long commands: what a log file gets, and what a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
import rich.console

from scanner_jax.throughput import Throughput


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Makes seconds pass."""
    now = [100.0]
    monkeypatch.setattr("scanner_jax.throughput.time.monotonic", lambda: now[0])
    yield lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_progress_in_lines(clock: Callable[[float], None]) -> None:
    written = io.StringIO()
    console = rich.console.Console(file=written, width=40)
    with Throughput("captions", "images", 1000, console, start=400) as progress:
        clock(10)
        progress.at(500, 100)
        assert written.getvalue() == ""
        clock(30)
        progress.at(600, 200, ", 2 failed")
        clock(5)
        progress.at(610, 210)
    assert written.getvalue() == "60%: 200 images, 5.00 a second, 2 failed, 1:20 left\n"


def test_progress_on_a_terminal(clock: Callable[[float], None]) -> None:
    written = io.StringIO()
    console = rich.console.Console(file=written, width=100, force_terminal=True)
    with Throughput("captions", "images", 40_000, console) as progress:
        clock(1)
        progress.at(20, 20)
        progress._bar.refresh()
    assert "captions" in written.getvalue() and "20 images, 20 a second, 33:19 left" in written.getvalue()
