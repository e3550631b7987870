"""Leaving when asked to: SIGTERM (a cluster's scheduler) and SIGINT (Ctrl-C) become one exception.

By default it is raised at once, which is right wherever nothing is lost by it. Where something would be, as between
two checkpoints, `deferred_signals` lets the signal wait until the code there has saved it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to leave; as with Ctrl-C, no `except Exception` stops it.

    Attributes:
        signal: which one.
        saved: what was saved because of it, as a sentence; may be empty.
    """

    def __init__(self, received: signal.Signals, saved: str = "") -> None:
        super().__init__(saved)
        self.signal = received
        self.saved = saved

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells have it: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signal


class DeferredSignals:
    """What was received while signals wait."""

    received: signal.Signals | None = None
    _waiting = True

    def __init__(self, *, together: bool) -> None:
        self._together = together

    @contextlib.contextmanager
    def at_once(self, saved: str) -> Iterator[None]:
        """Let signals wait no longer in this block; `saved` is what an `Interrupted` from it says.

        Not where processes leave together: who left alone would leave the others waiting.
        """
        if self._together:
            yield
            return
        self._saved, self._waiting = saved, False
        try:
            if self.received is not None:
                raise Interrupted(self.received, saved)
            yield
        finally:
            self._waiting = True

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self._waiting:
            raise Interrupted(self.received, self._saved)


@contextlib.contextmanager
def leaving_at_signals() -> Iterator[None]:
    """Raise `Interrupted` at once when a signal comes in this block."""
    with _handling(_leave):
        yield


@contextlib.contextmanager
def deferred_signals(*, together: bool = False) -> Iterator[DeferredSignals]:
    """Let signals wait in this block; who opens it looks at `received` and raises `Interrupted`, or its end does.

    Args:
        together: whether this is one of several processes that leave at the same step.
    """
    deferred = DeferredSignals(together=together)
    with _handling(deferred._handle):
        yield deferred
    if deferred.received is not None:
        raise Interrupted(deferred.received)


def _leave(number: int, _: FrameType | None) -> None:
    raise Interrupted(signal.Signals(number))


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have signals handled so, in the main thread; another thread can neither set handlers nor receive signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
