"""Files: what is written comes back, and what is half-written is never seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_jax.files import (
    damaged_files,
    explain,
    naming,
    read_arrays,
    read_json,
    read_json_lines,
    write_arrays,
    write_checksums,
    write_json,
    write_json_lines,
    write_text,
)

TEXT = 'Łódź 🕊 "quoted" \\ \u2028 \u0085 \x1c\ttab\r\nline'


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"f1": 79.38, "text": TEXT, "box": [1.0, None], "empty": {}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    content = (tmp_path / "a.json").read_bytes()
    assert "Łódź 🕊".encode() in content  # readable, not escaped
    assert content.endswith(b"}\n")


def test_json_lines_round_trip(tmp_path: Path) -> None:
    records: list[dict[str, object]] = [{"id": "1", "text": TEXT}, {}, {"id": "2", "spans": [[0, 1]]}]
    write_json_lines(tmp_path / "a.jsonl", records)
    assert read_json_lines(tmp_path / "a.jsonl") == records
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 3  # one object a line
    write_json_lines(tmp_path / "a.jsonl", [])
    assert read_json_lines(tmp_path / "a.jsonl") == []


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=6), width=st.integers(1, 3))
def test_arrays_round_trip(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], width: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(length, width)).astype(np.float32) for length in lengths]
    path = tmp_path_factory.mktemp("arrays") / "a.npz"
    write_arrays(path, arrays)
    found = read_arrays(path)
    assert len(found) == len(arrays)
    for ours, theirs in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    assert [item.name for item in path.parent.iterdir()] == ["a.npz"]


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", values=np.array([{}], dtype=object), lengths=np.array([1]))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_arrays(tmp_path / "a.npz")


def test_an_interrupted_writing_leaves_what_was_there(tmp_path: Path) -> None:
    def pieces() -> Iterator[str]:
        yield "new"
        raise KeyboardInterrupt

    path = tmp_path / "a.txt"
    with pytest.raises(KeyboardInterrupt):
        write_text(path, pieces())
    assert not path.exists()
    write_text(path, ["o", "ld"])
    with pytest.raises(KeyboardInterrupt):
        write_text(path, pieces())
    assert path.read_text() == "old"
    with pytest.raises(TypeError):
        write_json(path, {"not JSON": object()})
    assert path.read_text() == "old"


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", ["1"])
    write_text(tmp_path / "a.txt", ["2"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "2"


def test_a_place_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError) as caught:
        write_text(tmp_path / "file" / "a.txt", ["1"])
    assert explain(caught.value).startswith(f"{tmp_path / 'file' / 'a.txt'}: Not a directory; see that this path")
    with pytest.raises(OSError) as caught, naming(Path("/dev/full")), open("/dev/full", "w") as full:
        full.write("1")
    assert (
        explain(caught.value) == "/dev/full: No space left on device; make room there, then give the same command again"
    )


def test_a_failed_writing_leaves_nothing_aside(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json_lines(tmp_path / "a.jsonl", [{"fine": 1}, {"not JSON": object()}])
    assert list(tmp_path.iterdir()) == []


def test_checksums_tell_what_has_changed(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a").write_bytes(b"\0" * 100)
    (tmp_path / "b").write_text("b")
    (tmp_path / "log").write_text("grows")
    with pytest.raises(FileNotFoundError):
        damaged_files(tmp_path)
    write_checksums(tmp_path, leave_out=["lo*"], planned={"c": "later"})
    assert damaged_files(tmp_path) == ["c"]
    (tmp_path / "c").write_text("later")
    (tmp_path / "log").write_text("has grown")
    assert damaged_files(tmp_path) == []
    (tmp_path / "deep" / "er" / "a").write_bytes(b"\0" * 99 + b"\1")
    (tmp_path / "b").unlink()
    assert damaged_files(tmp_path) == ["b", "deep/er/a"]
