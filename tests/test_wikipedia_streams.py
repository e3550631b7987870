"""Unpacking bzip2 in threads, against Python's own reader."""

from __future__ import annotations

import bz2
import io
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_jax.wikipedia import streams
from scanner_jax.wikipedia.streams import Unpacked

RNG = random.Random(4)
PARTS = st.lists(st.sampled_from([b"", b"a", b"words " * 50, RNG.randbytes(5_000), RNG.randbytes(90_000)]), max_size=8)


def everything(packed: bytes, threads: int = 2, size: int = 1000) -> tuple[bytes, str | None]:
    """All that can be read, and the kind of error that it ended with."""
    unpacked, read = Unpacked(io.BytesIO(packed), threads), []
    try:
        while part := unpacked.read(size):
            assert len(part) <= size
            read.append(part)
    except (EOFError, OSError) as error:
        return b"".join(read), type(error).__name__
    return b"".join(read), None


@pytest.fixture(params=["short", "long"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With small blocks, and streams that are longer than what threads take or shorter."""
    monkeypatch.setattr(streams, "BLOCK", 700)
    monkeypatch.setattr(streams, "SLICE", 300)
    monkeypatch.setattr(streams, "LONGEST", 200_000 if request.param == "short" else 2_000)
    return str(request.param)


@pytest.fixture
def unpacks(limit: str) -> Callable[[bytes], tuple[bytes, str | None]]:
    return everything


@settings(max_examples=30, deadline=None)
@given(PARTS, st.integers(1, 3))
def test_any_streams_are_unpacked_as_bz2_does(parts: list[bytes], threads: int) -> None:
    packed = b"".join(map(bz2.compress, parts))
    assert everything(packed, threads) == (b"".join(parts), None)


MIXED = [b"words " * 50, RNG.randbytes(5_000), b"", RNG.randbytes(90_000), b"end", b""]


def test_streams_of_any_length(unpacks: Callable[[bytes], tuple[bytes, str | None]]) -> None:
    packed = b"".join(map(bz2.compress, MIXED))
    assert unpacks(packed) == (b"".join(MIXED), None)
    assert unpacks(b"") == (b"", None)


def test_what_is_cut_off_is_told_after_all_that_is_whole(unpacks: Callable[[bytes], tuple[bytes, str | None]]) -> None:
    packed, whole = b"".join(map(bz2.compress, MIXED)), b"".join(MIXED)
    first = len(bz2.compress(MIXED[0]) + bz2.compress(MIXED[1]))
    for cut in (5, first - 1, first + 60_000, len(packed) - 15):
        read, error = unpacks(packed[:cut])
        assert error == "EOFError"
        assert whole.startswith(read)
        assert len(read) >= (len(MIXED[0] + MIXED[1]) if cut > first else 0)


def test_damage_is_an_error_and_never_other_content(unpacks: Callable[[bytes], tuple[bytes, str | None]]) -> None:
    packed, whole = b"".join(map(bz2.compress, MIXED)), b"".join(MIXED)
    for place in range(200, len(packed) - 100, 9_973):
        damaged = bytearray(packed)
        damaged[place] ^= 0x55
        read, error = unpacks(bytes(damaged))
        assert error in ("OSError", "EOFError")
        assert whole.startswith(read)


def test_a_giant_stream_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST", 100_000)
    file = io.BytesIO(bz2.compress(RNG.randbytes(3_000_000)))
    unpacked = Unpacked(file, 2)
    unpacked.read()
    assert file.tell() < streams.LONGEST + 2 * streams.BLOCK
