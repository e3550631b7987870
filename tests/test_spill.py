"""Spilled collections: what a list, a dict and a set do, in memory that does not grow, and nothing left behind."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import held

from scanner_jax import spill
from scanner_jax.spill import SpilledDict, SpilledList, SpilledSet

TEXTS = st.text(st.characters(), max_size=3)  # half characters among them
VALUES = st.tuples(TEXTS, st.none() | st.integers(-9, 9) | st.binary(max_size=9))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Files begin after a few values, in a folder of their own, and reading together ends soon."""
    folder = tmp_path_factory.mktemp("spilled")
    with monkeypatch.context() as patched:
        patched.setattr(spill, "BUFFER", 20)
        patched.setattr(spill, "RECENT", 2)
        patched.setattr(spill, "_AT_ONCE", 3)
        patched.setattr(tempfile, "tempdir", str(folder))
        patched.setenv("SQLITE_TMPDIR", str(folder))
        yield folder


@given(values=st.lists(VALUES, max_size=12), cut=st.slices(12))
def test_a_list(values: list[tuple[str, object]], cut: slice) -> None:
    spilled = SpilledList(values)
    assert len(spilled) == len(values) and list(spilled) == values
    assert [spilled[index] for index in range(-len(values), len(values))] == values * 2
    assert spilled[cut] == tuple(values[cut])
    assert spilled == values and spilled != [*values, 0] and spilled != 3
    assert not values or spilled != [*values[:-1], 0]
    for index in (len(values), -len(values) - 1):
        with pytest.raises(IndexError):
            spilled[index]


def test_a_list_of_other_things() -> None:
    spilled = SpilledList([3j, 4j], pack=lambda number: number.imag, unpack=lambda imaginary: imaginary * 1j)
    spilled.append(5j)
    assert list(spilled) == [3j, 4j, 5j] and spilled[1] == 4j and 5j in spilled
    assert repr(spilled) == "<SpilledList of 3>"


@given(pairs=st.lists(st.tuples(TEXTS, VALUES), max_size=12), asked=TEXTS)
def test_a_dict(pairs: list[tuple[str, tuple[str, object]]], asked: str) -> None:
    spilled, expected = SpilledDict[tuple[str, object]](), dict[str, tuple[str, object]]()
    for key, value in pairs:
        assert (key in spilled) == (key in expected)
        spilled[key] = expected[key] = value
        assert spilled[key] == value
    assert len(spilled) == len(expected) and list(spilled) == list(expected)
    assert list(spilled.items()) == list(expected.items()) and spilled == expected
    assert list(spilled.by_key()) == sorted(expected.items(), key=lambda pair: pair[0])
    assert spilled.get(asked) == expected.get(asked) and (asked in spilled) == (asked in expected)
    assert 3 not in spilled


def test_a_dict_of_other_things() -> None:
    spilled = SpilledDict[complex](pack=lambda number: number.imag, unpack=lambda imaginary: imaginary * 1j)
    for number in range(5):
        spilled[str(number)] = number * 1j
    assert dict(spilled) == {str(number): number * 1j for number in range(5)}
    with pytest.raises(KeyError, match="'5'"):
        spilled["5"]


@given(values=st.lists(TEXTS, max_size=12), asked=TEXTS)
def test_a_set(values: list[str], asked: str) -> None:
    spilled = SpilledSet(values)
    assert spilled == set(values) and list(spilled) == list(dict.fromkeys(values))
    assert len(spilled) == len(set(values)) and (asked in spilled) == (asked in values)


def test_threads_read_together() -> None:
    texts, numbers, failed = SpilledList(map(str, range(300))), SpilledDict[int](), list[int]()
    for number in range(300):
        numbers[str(number)] = number

    def read() -> None:
        failed.extend(n for n in range(300) if texts[n] != str(n) or numbers[str(n)] != n)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_files_are_private_and_gone(tiny: Path) -> None:
    def descriptors() -> int:
        links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(link.startswith(str(tiny)) for link in links)

    spilled, numbers = SpilledList(["rain"] * 100), SpilledDict[str]()
    for number in range(100):
        numbers[str(number)] = "rain" * 20_000  # more than the file's cache
    assert list(tiny.iterdir()) == [] and descriptors() >= 2
    del spilled, numbers
    assert descriptors() == 0


def test_a_full_disk_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as raised:
        SpilledList(["rain"] * 100)
    assert raised.value.filename == str(tiny)


@pytest.mark.parametrize("made", ["list", "dict"])
def test_memory_does_not_grow(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(spill, "RECENT", 1000)

    def fill(count: int) -> None:
        if made == "list":
            spilled = SpilledList({"text": f"{number}", "place": number} for number in range(count))
            assert sum(value["place"] for value in spilled) == count * (count - 1) // 2
        else:
            numbers = SpilledDict[int]()
            for number in range(count):
                numbers[f"a text of {number}"] = number
            assert sum(value for _, value in numbers.items()) == count * (count - 1) // 2

    assert held(fill, 10_000, 40_000) < 1
