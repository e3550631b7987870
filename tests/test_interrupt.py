"""Signals: raised at once or when the code there is ready, and only while asked for."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from scanner_jax.interrupt import Interrupted, deferred_signals, leaving_at_signals


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_at_once(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, leaving_at_signals():
        send(number)
        pytest.fail("the signal was lost")
    assert caught.value.exit_code == code and caught.value.signal is number
    assert isinstance(caught.value, KeyboardInterrupt)  # which no `except Exception` stops
    assert signal.getsignal(number) == before


def test_a_deferred_signal_waits():
    with pytest.raises(Interrupted, match="step 3"), leaving_at_signals(), deferred_signals() as signals:
        assert signals.received is None
        send(signal.SIGTERM)
        send(signal.SIGTERM)  # impatience changes nothing
        assert signals.received is signal.SIGTERM
        raise Interrupted(signals.received, "step 3 is saved")


def test_a_deferred_signal_is_never_forgotten():
    with pytest.raises(Interrupted), deferred_signals():
        send(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), deferred_signals():
        send(signal.SIGTERM)
        raise ZeroDivisionError  # what went wrong is worth more


def test_deferring_can_be_interrupted():
    done = []
    with pytest.raises(Interrupted, match="before"), deferred_signals() as signals:
        with signals.at_once("saved before"):
            done.append("a block without a signal")
        with signals.at_once("saved before"):
            send(signal.SIGTERM)
            done.append("lost")
    assert done == ["a block without a signal"]
    with pytest.raises(Interrupted, match="before"), deferred_signals() as signals:
        send(signal.SIGTERM)
        with signals.at_once("saved before"):
            done.append("lost")
    assert done == ["a block without a signal"]


def test_other_threads_set_no_handlers():
    before, errors = signal.getsignal(signal.SIGTERM), []

    def work():
        try:
            with leaving_at_signals(), deferred_signals() as signals:
                assert signal.getsignal(signal.SIGTERM) == before and signals.received is None
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
