"""Progress: numbers as JSON lines and for TensorBoard, a line per evaluation, a bar."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest
import rich.console

from scanner_jax.files import read_json_lines
from scanner_jax.progress import EVENTS, Progress, open_progress


def test_records_are_appended_and_readable_at_once(tmp_path: Path) -> None:
    progress = open_progress("detector-teacher", tmp_path, start=0)
    progress.record(50, {"loss": 0.5})
    (record,) = read_json_lines(tmp_path / "metrics.jsonl")
    assert {key: record[key] for key in ("step", "loss")} == {"step": 50, "loss": 0.5}
    assert record["time"] > 0
    progress = open_progress("detector-teacher", tmp_path, start=50)
    progress.record(100, {"span_f1": 80.94})
    assert [record["step"] for record in read_json_lines(tmp_path / "metrics.jsonl")] == [50, 100]


def test_records_beyond_the_restored_checkpoint_are_dropped(tmp_path: Path) -> None:
    progress = open_progress("detector-teacher", tmp_path, start=0)
    for step in (2, 4, 6):
        progress.record(step, {"loss": 1.0 / step})
        progress.record(step, {"f1": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # what a killed process may leave
    progress = open_progress("detector-teacher", tmp_path, start=4)
    progress.record(4, {"f1": 5.0})  # a checkpoint is written before its own scores
    kept = [(record["step"], "loss" in record) for record in read_json_lines(tmp_path / "metrics.jsonl")]
    assert kept == [(2, True), (2, False), (4, True), (4, False)]
    open_progress("detector-teacher", tmp_path, start=0)
    assert read_json_lines(tmp_path / "metrics.jsonl") == []  # no checkpoint was left: all is done again


def test_a_disk_that_is_full_is_named() -> None:
    progress = Progress("detector-teacher", Path("/dev/full"), None, rich.console.Console(file=io.StringIO()))
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        progress.record(1, {"loss": 1.0})


def test_without_tensorboard_there_are_no_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    progress = open_progress("detector-teacher", tmp_path, start=0)
    progress.record(1, {"loss": 0.5})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_is_given_what_metrics_have(tmp_path: Path, event_pb2: ModuleType) -> None:
    def scalars() -> list[tuple[int, str, float]]:
        (path,) = tmp_path.glob(EVENTS)
        return [
            (event.step, value.tag, value.simple_value)
            for event in read_events(path, event_pb2)
            for value in event.summary.value
        ]

    progress = open_progress("detector-teacher", tmp_path, start=0)
    progress.record(2, {"loss": 0.5})
    progress.record(2, {"score": 25.0, "support": 8})
    assert scalars() == [(2, "loss", 0.5), (2, "score", 25.0), (2, "support", 8.0)]
    progress.record(4, {"loss": 0.25})
    progress = open_progress("detector-teacher", tmp_path, start=2)  # step 4 was not saved
    progress.record(2, {"score": 25.0})
    assert scalars() == [(2, "loss", 0.5), (2, "score", 25.0)]
    (path,) = tmp_path.glob(EVENTS)
    times = [event.wall_time for event in read_events(path, event_pb2) if event.summary.value]
    assert times == [record["time"] for record in read_json_lines(tmp_path / "metrics.jsonl")]


@pytest.fixture
def event_pb2() -> ModuleType:
    reason = "TensorBoard is not installed (requirements-dev.txt)"
    return pytest.importorskip("tensorboard.compat.proto.event_pb2", reason=reason)


def test_tensorboard_reads_its_events(tmp_path: Path) -> None:
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    before = {*sys.modules}  # other tests have torch as an oracle
    open_progress("detector-teacher", tmp_path, start=0).record(2, {"loss": 0.5})
    events = loader.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(2, 0.5)]
    assert not {"tensorflow", "torch"} & ({*sys.modules} - before)


def read_events(path: Path, event_pb2: ModuleType) -> list:
    """Read a TFRecord file: length, its checksum, data, their checksum."""
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<Q", content)
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_what_a_person_sees(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = rich.console.Console(file=screen, width=120, force_terminal=True, color_system=None)
    progress = Progress("recognizer-teacher", tmp_path / "metrics.jsonl", None, console)
    progress.record(10, {"loss": 1.25})
    assert screen.getvalue() == ""
    progress.record(20, {"f1": 79.38}, say="dev f1 79.38")
    assert "recognizer-teacher step 20: dev f1 79.38\n" in screen.getvalue()
    with progress.bar(40, start=20) as advance:
        advance(30, 0.125)
    assert "30/40" in screen.getvalue()
    assert "loss 0.1250" in screen.getvalue()
    assert len(read_json_lines(tmp_path / "metrics.jsonl")) == 2
