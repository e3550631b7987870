"""Extraction: what was done is kept, whatever ends a run; shards share the work out; a merge takes all or nothing.

The expert here tells an image's colour, so that no test needs torch.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scanner_jax.images import UnreadableImage, find_images
from scanner_jax.interrupt import Interrupted
from scanner_jax.knowledge.extraction import NO_IMAGE, Job, Outcome, extract, is_made
from scanner_jax.knowledge.ledger import ExtractionError
from scanner_jax.knowledge.merging import main as merge_command
from scanner_jax.knowledge.shards import FOLDER, Shard, merge
from scanner_jax.store import Store, write_kind

SETTINGS = {"expert": "colours", "model": "eye", "revision": "1", "precision": "fp32"}
COUNT = 10


class Colours:
    """Describes images by their colour and width; fails where it is told to, and notes what it was given."""

    def __init__(self, batch_size: int = 3, fails_at: int | None = None, units: int = 1) -> None:
        self.batch_size, self.ahead = batch_size, 4
        self.batches: list[list[str]] = []
        self.prepared: list[str] = []
        self._fails_at, self._units = fails_at, units

    def prepare(self, key: str, image: Image.Image) -> tuple[str, str]:
        self.prepared.append(key)
        if image.width == 13:
            raise UnreadableImage("unlucky")
        return key, f"{image.getpixel((0, 0))} {image.width}"

    def units(self, prepared: Any) -> int:
        return self._units

    def describe(self, prepared: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        if self._fails_at == len(self.batches):
            raise Interrupted(15)  # type: ignore[arg-type]
        self.batches.append([key for key, _ in prepared])
        return [{"text": text} for _, text in prepared]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images, one of them broken."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (number + 1, 2), (number, 0, 0)).save(images / f"i{number}.png")
    (images / "i4.png").write_bytes(b"no image")
    return images


def job(folder: Path, expert: Colours | None = None, **settings: Any) -> Job:
    images: dict[str, Path | None] = {**find_images(folder)}
    return Job("captions", {**SETTINGS, **settings}, images, lambda: expert or Colours())


def run(store: Path, one: Job, shard: str = "1/1", **options: Any) -> Outcome:
    return extract(store, one, Shard.parse(shard), threads=2, **options)


def texts(store: Path) -> dict[str, str]:
    opened = Store.open(store)
    return {key: opened.get("captions", key)["text"] for key in opened.keys("captions")}  # type: ignore[index]


EXPECTED = {f"i{number}": f"{(number, 0, 0)} {number + 1}" for number in range(COUNT) if number != 4}


def test_one_shard_becomes_a_kind(tmp_path: Path, folder: Path) -> None:
    expert, store = Colours(), tmp_path / "store"
    outcome = run(store, job(folder, expert))
    assert (outcome.done, outcome.failures, outcome.before) == (9, (("i4", "not an image"),), 0)
    assert outcome.seconds > 0
    assert [len(batch) for batch in expert.batches] == [3, 3, 3]
    with pytest.raises(ValueError, match="not a knowledge store"):
        Store.open(store)  # nothing is to be seen before the merge
    assert not is_made(store, job(folder))
    assert merge(store, "captions") == 9
    assert texts(store) == EXPECTED
    provenance = Store.open(store).provenance("captions")
    assert SETTINGS.items() <= provenance.items()
    assert provenance["images"] == COUNT and len(provenance["image_ids"]) == 64
    assert provenance["counts"] == {"not an image": 1} and provenance["places"] == {"not an image": ["i4"]}
    assert len(provenance["versions"]) == 1 and {"scanner_jax", "torch", "pillow"} <= provenance["versions"][0].keys()
    assert not (store / FOLDER).exists()
    assert is_made(store, job(folder))
    assert not is_made(store, job(folder, revision="2"))


def test_what_was_done_is_not_done_again(tmp_path: Path, folder: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(Interrupted):
        run(store, job(folder, Colours(fails_at=2)))
    assert not (store / "captions").exists()
    expert = Colours()
    outcome = run(store, job(folder, expert))
    assert (outcome.before, outcome.done, len(outcome.failures)) == (7, 9, 1)
    assert expert.batches == [["i7", "i8", "i9"]] and sorted(expert.prepared) == ["i7", "i8", "i9"]
    untouched = Colours()
    assert run(store, job(folder, untouched)).before == COUNT and not untouched.prepared
    merge(store, "captions")
    assert texts(store) == EXPECTED


def test_the_model_is_not_loaded_for_nothing(tmp_path: Path, folder: Path) -> None:
    def load() -> Colours:
        raise AssertionError("loaded")

    run(tmp_path, job(folder))
    one = job(folder)
    assert run(tmp_path, Job(one.kind, one.settings, one.images, load)).done == 9


@pytest.mark.parametrize("count", [2, 3, 4])
def test_shards_make_the_same_kind_as_one_run(tmp_path: Path, folder: Path, count: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, job(folder))
    merge(whole, "captions")
    seen: list[str] = []
    for number in range(count, 0, -1):
        expert = Colours()
        run(parts, job(folder, expert), f"{number}/{count}")
        seen += expert.prepared
    assert len(seen) == len(set(seen)) == COUNT - 1
    assert merge_command([str(parts), "captions"]) == 0
    assert texts(parts) == texts(whole)
    files = [sorted((store / "captions").glob("*.array_record")) for store in (whole, parts)]
    assert files[0][0].name == files[1][0].name  # named after the content
    assert Store.open(parts).provenance("captions")["counts"] == {"not an image": 1}


def test_a_merge_wants_all_shards_whole_and_alike(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> str:
        assert merge_command([str(tmp_path), "captions"]) == 1
        assert not (tmp_path / "captions").exists()
        return capsys.readouterr().err

    assert "holds no shard of captions" in refused()
    run(tmp_path, job(folder), "1/4")
    assert "captions lacks --shard 2/4, 3/4, 4/4" in refused()
    run(tmp_path, job(folder, prompt="a photo of"), "3/4")
    run(tmp_path, job(folder), "4/4")
    with pytest.raises(Interrupted):
        run(tmp_path, job(folder, Colours(fails_at=0)), "2/4")
    answer = refused()
    assert "captions-2-of-4 is not whole; give its command again" in answer
    assert "captions-3-of-4 was made with other settings: prompt was None and is 'a photo of'" in answer
    run(tmp_path, job(folder), "2/4")
    run(tmp_path, job(folder), "3/4", restart=True)
    shutil.copytree(tmp_path / FOLDER / "captions-1-of-4", tmp_path / FOLDER / "captions-1-of-2")
    assert "out of 2 and 4" in refused()
    shutil.rmtree(tmp_path / FOLDER / "captions-1-of-2")
    assert merge_command([str(tmp_path), "captions"]) == 0


def test_going_on_otherwise_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, job(folder, Colours(fails_at=1)))
    changed = {"revision": "2", "precision": "bf16", "prompt": "a photo of"}
    with pytest.raises(ExtractionError) as caught:
        run(tmp_path, job(folder, **changed))
    for said in ("revision was '1' and is '2'", "precision was 'fp32' and is 'bf16'", "--restart"):
        assert said in str(caught.value)
    with pytest.raises(ExtractionError, match=r"begun in 1 part: go on so \(--shard I/1\), or delete .*-1-of-1"):
        run(tmp_path, job(folder), "1/2")
    Image.new("RGB", (3, 3)).save(folder / "new.png")
    with pytest.raises(ExtractionError, match="images was 10 and is 11, image_ids was "):
        run(tmp_path, job(folder))
    expert = Colours()
    assert run(tmp_path, job(folder, expert, **changed), restart=True).done == COUNT
    assert sum(map(len, expert.batches)) == COUNT


def test_another_kind_of_the_store_stays(tmp_path: Path, folder: Path) -> None:
    write_kind(tmp_path, "notes", [("n1", {"text": "a note"})], {})
    run(tmp_path, job(folder))
    merge(tmp_path, "captions")
    assert Store.open(tmp_path).notes("n1") == "a note" and len(texts(tmp_path)) == 9


def test_images_that_are_missing_or_refused_are_failures(tmp_path: Path, folder: Path) -> None:
    Image.new("RGB", (13, 2)).save(folder / "i13.png")
    one = job(folder)
    outcome = run(tmp_path, Job(one.kind, one.settings, {**one.images, "gone": None}, one.load))
    assert outcome.failures == (("gone", NO_IMAGE), ("i13", "unlucky"), ("i4", "not an image"))


def test_nothing_to_write(tmp_path: Path, folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"")
    assert run(tmp_path, job(folder)).done == 0
    with pytest.raises(ExtractionError, match="no image has a value"):
        merge(tmp_path, "captions")


def test_the_second_process_is_turned_away(tmp_path: Path, folder: Path) -> None:
    program = (
        "import pathlib, sys\nfrom scanner_jax.knowledge.ledger import open_ledger\n"
        "with open_ledger(pathlib.Path(sys.argv[1])):\n    print('open', flush=True)\n    sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / FOLDER / "captions-1-of-1")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "open\n"
        with pytest.raises(ExtractionError, match=f"in use by process {holder.pid} on .*; let it end"):
            run(tmp_path, job(folder))
    finally:
        holder.kill()
        holder.communicate()
    assert run(tmp_path, job(folder)).done == 9


def test_a_damaged_file_says_how_to_begin_anew(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, job(folder))
    (tmp_path / FOLDER / "captions-1-of-1" / "progress.sqlite").write_bytes(b"something else entirely" * 99)
    with pytest.raises(ExtractionError, match="is damaged .*--restart"):
        run(tmp_path, job(folder))
    assert run(tmp_path, job(folder), restart=True).done == 9


def test_a_full_disk_says_so(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def small(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 7")
        return connection

    class Wordy(Colours):
        def describe(self, prepared: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
            return [{"text": text * 1000} for _, text in prepared]

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(ExtractionError, match="database or disk is full; is there room"):
        run(tmp_path, job(folder, Wordy()))
    monkeypatch.setattr(sqlite3, "connect", connect)
    assert run(tmp_path, job(folder)).done == 9


def test_batches_are_counted_in_units(tmp_path: Path, folder: Path) -> None:
    expert = Colours(batch_size=8, units=4)
    run(tmp_path, job(folder, expert))
    assert [len(batch) for batch in expert.batches] == [2, 2, 2, 2, 1]


def test_images_are_not_prepared_too_far_ahead(tmp_path: Path, folder: Path) -> None:
    furthest: list[int] = []

    class Watching(Colours):
        def describe(self, prepared: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
            threading.Event().wait(0.02)  # time to run ahead
            values = super().describe(prepared)
            furthest.append(len(self.prepared) - sum(map(len, self.batches)))
            return values

    expert = Watching(batch_size=1)
    expert.ahead = 2
    run(tmp_path, job(folder, expert))
    assert 1 <= max(furthest) <= 3


def test_shards_are_written_i_of_n() -> None:
    assert Shard.parse("2/8") == Shard(2, 8) and str(Shard(2, 8)) == "2/8"
    for wrong in ("0/8", "9/8", "2", "2/", "a/b", "-1/8", "1/0"):
        with pytest.raises(ValueError, match="expected I/N with I from 1 to N"):
            Shard.parse(wrong)
    # Where an image belongs must not change between versions and machines.
    assert [Shard(n, 3).holds("17_06_4705") for n in (1, 2, 3)] == [True, False, False]
    counts = [sum(Shard(n, 4).holds(f"image-{i}") for i in range(4000)) for n in range(1, 5)]
    assert sum(counts) == 4000 and min(counts) > 900
