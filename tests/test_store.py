"""The knowledge store: what is written comes back, and damage is never taken for knowledge."""

from __future__ import annotations

import copy
import json
import os
import threading
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory import held

from scanner_jax import spill
from scanner_jax.store import Store, StoreError, box_digest, objects_value, reader, write_kind
from scanner_jax.store.importers import read_captions
from scanner_jax.store.writer import _group_size
from scanner_jax.types import ImageObject, Span

CAPTIONS = {"1": {"text": "a red kite over a hill"}, "16_02_05": {"text": "zwei Möwen 🕊"}, "O_7": {"text": "a cat"}}


def write_captions(folder: Path, records: dict[str, dict[str, Any]] = CAPTIONS) -> str:
    return write_kind(folder, "captions", records.items(), {"importer": "test"})


def data_file(folder: Path, suffix: str) -> Path:
    (path,) = (folder / "captions").glob(f"*{suffix}")
    return path


def all_captions(store: Store) -> dict[str, str | None]:
    return {key: store.caption(key) for key in store.keys("captions")}


def test_captions_and_notes_round_trip(tmp_path: Path) -> None:
    write_captions(tmp_path)
    write_kind(tmp_path, "notes", [("train-1", {"text": "Kite is a toy."})], {"importer": "test"})
    store = Store.open(str(tmp_path))
    assert store.kinds == ("captions", "notes")
    assert list(store.keys("captions")) == list(CAPTIONS)
    assert all_captions(store) == {key: value["text"] for key, value in CAPTIONS.items()}
    assert store.caption("2") is None
    assert store.notes("train-1") == "Kite is a toy."
    assert store.notes("1") is None
    assert store.provenance("captions")["importer"] == "test"
    assert store.provenance("captions")["count"] == 3


def test_another_process_opens_it_anew(tmp_path: Path) -> None:
    write_captions(tmp_path)
    again = copy.deepcopy(Store.open(tmp_path))  # as pickle does it
    assert all_captions(again) == {key: value["text"] for key, value in CAPTIONS.items()}
    (tmp_path / "captions" / "provenance.json").unlink()
    with pytest.raises(StoreError, match="not a knowledge store"):
        copy.deepcopy(again)


def test_one_look_up_reads_one_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of positions, even of one, costs a copy of the whole file's index: all look-ups were quadratic."""
    write_captions(tmp_path)
    asked: list[tuple[Any, ...]] = []

    class Spy(reader.ArrayRecordReader):  # type: ignore[misc]
        def read(self, *arguments: Any) -> Any:
            asked.append(arguments)
            return super().read(*arguments)

    monkeypatch.setattr(reader, "ArrayRecordReader", Spy)
    assert all_captions(Store.open(tmp_path)) == {key: value["text"] for key, value in CAPTIONS.items()}
    assert asked == [(0, 1), (1, 2), (2, 3)]


def test_notes_of_the_older_form_have_no_spans(tmp_path: Path) -> None:
    write_kind(tmp_path, "notes", [("a", {"text": "old"}), ("b", {"text": "", "spans": [[0, 2, "new"]]})], {})
    store = Store.open(tmp_path)
    assert (store.notes("a"), store.span_notes("a")) == ("old", {})
    assert (store.notes("b"), store.span_notes("b")) == (None, {Span(0, 2): "new"})
    assert store.span_notes("c") == {}


@pytest.mark.parametrize("spans", [[[0, "x"]], [["a", 1, "x"]], 7])
def test_damaged_span_notes_are_told(tmp_path: Path, spans: Any) -> None:
    write_kind(tmp_path, "notes", [("a", {"text": "", "spans": spans})], {})
    with pytest.raises(StoreError, match="damaged"):
        Store.open(tmp_path).span_notes("a")


def test_objects_round_trip(tmp_path: Path) -> None:
    found = (
        ImageObject((0.5, 1.0, 20.25, 30.0), "white dog", 0.75, "a dog"),
        ImageObject((1.0, 2.0, 3.0, 4.0), "cup", 0.5),
    )
    write_kind(tmp_path, "objects", [("1", objects_value(found)), ("2", objects_value(()))], {})
    store = Store.open(tmp_path)
    assert store.objects("1") == found
    assert store.objects("2") == ()
    assert store.objects("3") == ()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))))
def test_any_text_round_trips(tmp_path: Path, texts: dict[str, str]) -> None:
    write_captions(tmp_path, {key: {"text": text} for key, text in texts.items()})
    assert all_captions(Store.open(tmp_path)) == texts


def test_a_kind_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    write_captions(tmp_path)
    write_kind(tmp_path, "notes", [("a", {"text": "old note"})], {})
    before = Store.open(tmp_path)
    write_captions(tmp_path, {"9": {"text": "new"}})
    after = Store.open(tmp_path)
    assert all_captions(after) == {"9": "new"}
    assert after.notes("a") == "old note"
    assert before.caption("O_7") == "a cat"  # opened earlier: still whole
    assert len(list((tmp_path / "captions").iterdir())) == 3
    assert sorted(os.listdir(tmp_path)) == ["captions", "notes"]


def test_fingerprint_is_of_the_content_of_the_named_kinds(tmp_path: Path) -> None:
    write_captions(tmp_path / "a")
    write_kind(tmp_path / "b", "captions", reversed(CAPTIONS.items()), {"importer": "another"})
    write_kind(tmp_path / "b", "notes", [("x", {"text": "note"})], {})
    a, b = Store.open(tmp_path / "a"), Store.open(tmp_path / "b")
    assert a.fingerprint(("captions",)) == b.fingerprint(("captions",))
    assert b.fingerprint(("captions", "notes")) == b.fingerprint(("notes", "captions"))
    assert b.fingerprint(("captions", "notes")) != b.fingerprint(("captions",)) != b.fingerprint(("notes",))
    write_captions(tmp_path / "a", {**CAPTIONS, "1": {"text": "a red kite over a hil"}})
    assert Store.open(tmp_path / "a").fingerprint(("captions",)) != b.fingerprint(("captions",))
    with pytest.raises(StoreError, match=r"holds no notes \(it holds: captions\).*store import notes"):
        a.fingerprint(("captions", "notes"))
    with pytest.raises(StoreError, match=r"holds no objects .*store import vinvl"):
        a.objects("1")


def test_a_failed_write_leaves_the_old_kind(tmp_path: Path) -> None:
    write_captions(tmp_path)

    def broken() -> Any:
        yield "1", {"text": "half"}
        raise OSError("the source went away")

    with pytest.raises(OSError, match="went away"):
        write_kind(tmp_path, "captions", broken(), {})
    assert Store.open(tmp_path).caption("1") == "a red kite over a hill"
    assert os.listdir(tmp_path) == ["captions"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_write_stopped_between_its_renames_leaves_the_old_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    write_captions(tmp_path)
    real = os.replace
    done: list[Any] = []

    def stopping(source: Any, target: Any) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", stopping)
    with pytest.raises(KeyboardInterrupt):
        write_captions(tmp_path, {"9": {"text": "new"}})
    monkeypatch.undo()
    assert all_captions(Store.open(tmp_path)) == {key: value["text"] for key, value in CAPTIONS.items()}


def test_a_reader_beside_a_writer_never_sees_half(tmp_path: Path) -> None:
    versions = [{f"{v}-{i}": {"text": f"text {v}"} for i in range(20 + v)} for v in range(2)]
    write_captions(tmp_path, versions[0])
    stop = threading.Event()

    def rewrite() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            write_captions(tmp_path, versions[turn % 2])

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        seen = set()
        for _ in range(100):
            found = all_captions(Store.open(tmp_path))
            assert found in [{key: value["text"] for key, value in version.items()} for version in versions]
            seen.add(len(found))
    finally:
        stop.set()
        writer.join()
    assert seen == {20, 21}


def test_bad_records_are_all_listed_and_nothing_is_written(tmp_path: Path) -> None:
    records = [("1", {"text": "a"}), ("", {"text": "b"}), ("1", {"text": "c"}), ("2", {"key": "3"})]
    with pytest.raises(StoreError, match=r"(?s)key '':.*key '1' stands twice.*key '2':"):
        write_kind(tmp_path, "captions", records, {})
    assert os.listdir(tmp_path) == []


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "other" / "captions").mkdir(parents=True)
    (tmp_path / "other" / "captions" / "mine.txt").write_text("x")
    with pytest.raises(StoreError, match=r"missing does not exist; write one: python -m scanner_jax.store import"):
        Store.open(tmp_path / "missing")
    with pytest.raises(StoreError, match="file is a file, not a folder"):
        Store.open(tmp_path / "file")
    with pytest.raises(StoreError, match="other is not a knowledge store"):
        Store.open(tmp_path / "other")
    with pytest.raises(StoreError, match="file is a file; give the store's folder"):
        write_captions(tmp_path / "file")
    with pytest.raises(StoreError, match="not a knowledge store's"):
        write_captions(tmp_path / "other")
    with pytest.raises(StoreError, match=r"'\.\./x': expected small letters"):
        write_kind(tmp_path, "../x", [], {})


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write_captions(tmp_path)
    path = tmp_path / "captions" / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(StoreError, match="format 2, and this version reads up to 1; upgrade"):
        Store.open(tmp_path)


@pytest.mark.parametrize("suffix", [".array_record", ".keys", ".json"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_file_cut_short(tmp_path: Path, suffix: str, keep: float) -> None:
    write_captions(tmp_path)
    path = data_file(tmp_path, suffix)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(StoreError, match=r"captions is damaged or cut short .*import it again"):
        Store.open(tmp_path)


@pytest.mark.parametrize("suffix", [".array_record", ".keys"])
def test_a_missing_file(tmp_path: Path, suffix: str) -> None:
    write_captions(tmp_path)
    data_file(tmp_path, suffix).unlink()
    with pytest.raises(StoreError, match=f"captions is incomplete: .*{suffix} is missing"):
        Store.open(tmp_path)


@pytest.mark.parametrize("suffix", [".array_record", ".keys", ".json"])
def test_a_flipped_byte_is_reported_or_harmless(tmp_path: Path, suffix: str) -> None:
    write_captions(tmp_path)
    expected = all_captions(Store.open(tmp_path))
    path = data_file(tmp_path, suffix)
    data = path.read_bytes()
    used = [i for i, byte in enumerate(data) if byte]  # the rest is padding
    reported = 0
    for position in used[:: max(1, len(used) // 60)]:
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x15]) + data[position + 1 :])
        try:
            assert all_captions(Store.open(tmp_path)) == expected
        except StoreError:
            reported += 1
    assert reported


def test_records_hold_no_extension_types(tmp_path: Path) -> None:
    write_kind(tmp_path, "captions", [("1", {"text": msgpack.ExtType(5, b"code")})], {})
    with pytest.raises(StoreError, match="damaged"):
        Store.open(tmp_path).caption("1")


DOG = ImageObject((1.0, 2.0, 30.5, 40.0), "dog", 0.75, "an imported caption")
CAR = ImageObject((0.0, 0.0, 10.0, 20.0), "car", 0.5)


def write_objects(folder: Path, *objects: ImageObject) -> str:
    write_kind(folder, "objects", [("7", objects_value(objects))], {"importer": "test"})
    return box_digest(item.box for item in objects)


def test_regions_caption_the_objects_they_were_made_for(tmp_path: Path) -> None:
    boxes = write_objects(tmp_path, DOG, CAR)
    assert [item.caption for item in Store.open(tmp_path).objects("7")] == ["an imported caption", ""]
    write_kind(tmp_path, "regions", [("7", {"captions": ["a dog asleep", ""], "boxes": boxes})], {"importer": "test"})
    objects = Store.open(tmp_path).objects("7")
    assert [item.caption for item in objects] == ["a dog asleep", ""]
    assert [(item.box, item.label, item.score) for item in objects] == [(x.box, x.label, x.score) for x in (DOG, CAR)]
    write_objects(tmp_path, CAR, DOG)
    with pytest.raises(StoreError, match=r"image 7 has other boxes since; .*knowledge regions IMAGES"):
        Store.open(tmp_path).objects("7")


def test_vectors_come_back_in_the_objects_order(tmp_path: Path) -> None:
    boxes = write_objects(tmp_path, DOG, CAR)
    assert Store.open(tmp_path).vectors("7") is None
    vectors = np.array([[0.6, 0.8, 0], [0, 0, 1]], "<f2")
    value = {"vectors": vectors.tobytes(), "width": 3, "boxes": boxes}
    write_kind(tmp_path, "clip", [("7", value)], {"importer": "test"})
    store = Store.open(tmp_path)
    np.testing.assert_array_equal(store.vectors("7"), vectors)
    assert store.vectors("8") is None
    write_objects(tmp_path, DOG)
    with pytest.raises(StoreError, match=r"image 7 has other boxes since; .*knowledge clip IMAGES"):
        Store.open(tmp_path).vectors("7")


@pytest.mark.parametrize(
    "vectors", [b"", np.zeros((3, 3), "<f2").tobytes(), np.full((2, 3), np.nan, "<f2").tobytes(), "text"]
)
def test_vectors_that_do_not_fit_are_damage(tmp_path: Path, vectors: Any) -> None:
    boxes = write_objects(tmp_path, DOG, CAR)
    write_kind(tmp_path, "clip", [("7", {"vectors": vectors, "width": 3, "boxes": boxes})], {"importer": "test"})
    with pytest.raises(StoreError, match="clip is damaged or cut short"):
        Store.open(tmp_path).vectors("7")


def test_a_box_digest_tells_boxes_and_their_order_apart() -> None:
    assert len({box_digest(boxes) for boxes in ([], [DOG.box], [CAR.box], [DOG.box, CAR.box], [CAR.box, DOG.box])}) == 5
    assert box_digest([(1, 2, 30.5, 40)]) == box_digest([DOG.box])


def test_large_records_are_read_alone_and_small_ones_together() -> None:
    assert _group_size([100, 200, 30]) == 16 and _group_size([]) == 16
    assert _group_size([100, 4096]) == 4 and _group_size([10**6]) == 1


@pytest.mark.parametrize("size", [1, 5000])
def test_blocks_of_any_size_are_read(tmp_path: Path, size: int) -> None:
    records = {str(number): {"text": f"{number} " * size} for number in range(150)}
    write_captions(tmp_path, records)
    assert all_captions(Store.open(tmp_path)) == {key: value["text"] for key, value in records.items()}


def test_memory_does_not_grow_with_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "RECENT", 100)

    def write_and_read(count: int) -> None:
        source = tmp_path / "captions.txt"
        with source.open("w") as file:
            file.writelines(f"{number}.jpg :kite number {number}\n" for number in range(count))
        write_kind(tmp_path / "store", "captions", read_captions([source]).records, {})
        store = Store.open(tmp_path / "store")
        assert all(store.caption(key) == f"kite number {key}" for key in store.keys("captions"))

    assert held(write_and_read, 2000, 8000) < 40
