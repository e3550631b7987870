"""Corpora through TFDS: the same examples come back, nothing stale or half-written is taken, no TensorFlow."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invented import write_corpus
from memory import held

from scanner_jax import spill
from scanner_jax.corpora import builders, load_corpus, read_corpus
from scanner_jax.tags import entities_from_tags
from scanner_jax.types import Entity, Example

TWEET = "IMGID:{}\nrain\tO\nin\tO\nLima\tB-LOC\n\n"


@pytest.fixture
def tweets(tmp_path: Path) -> Path:
    folder = tmp_path / "tweets"
    folder.mkdir()
    for number, name in enumerate(("train", "dev", "test")):
        (folder / f"{name}.txt").write_text("".join(TWEET.format(f"{number}_{k}") for k in range(12)))
    return folder


WORDS = st.text(st.characters(exclude_characters="\t\n", exclude_categories=["Cs"]), min_size=1, max_size=6)
TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-OTHER"])
CORNERS = st.floats(allow_nan=False, allow_infinity=False)
BOXES = st.lists(st.tuples(CORNERS, CORNERS, CORNERS, CORNERS), max_size=2).map(tuple)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    rows = draw(st.lists(st.tuples(WORDS, TAGS), min_size=1, max_size=8))
    words, tags = zip(*rows, strict=True)
    entities = tuple(dataclasses.replace(entity, boxes=draw(BOXES)) for entity in entities_from_tags(tags))
    return Example(draw(WORDS), words, entities, draw(st.none() | WORDS))


@settings(max_examples=15, deadline=None)
@given(split=st.lists(examples(), min_size=1, max_size=15))
def test_examples_come_back_equal_and_in_order(split: list[Example]) -> None:
    splits = {"train": split, "dev": [Example("a", ("\u00a0", "b\x00"))], "test": split[::-1]}
    with tempfile.TemporaryDirectory() as folder:
        found = builders.read_prepared(builders.prepare(splits, folder=Path(folder)))
    assert found == {name: tuple(examples) for name, examples in splits.items()}


def test_more_examples_than_are_read_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(builders, "_AT_ONCE", 4)
    for count in (7, 8, 9):
        split = tuple(Example(str(number), ("rain", str(number))) for number in range(count))
        prepared = builders.prepare({"train": split}, folder=tmp_path / str(count))
        assert builders.read_prepared(prepared) == {"train": split}


def test_a_split_may_be_several_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(builders, "_SHARD", 4)
    split = tuple(Example(str(number), ("rain", str(number))) for number in range(9))
    prepared = builders.prepare({"train": split, "dev": split[:4]}, folder=tmp_path)
    assert len(list(prepared.glob("*array_record*"))) == 4
    assert builders.read_prepared(prepared) == {"train": split, "dev": split[:4]}


def test_loaded_corpus_equals_its_source(tweets: Path, tmp_path: Path) -> None:
    corpus = load_corpus(tweets, prepared_dir=tmp_path / "prepared")
    assert corpus == read_corpus(tweets)
    assert corpus.splits["dev"][3] == Example("1_3", ("rain", "in", "Lima"), (Entity(2, 3, "LOC"),), "1_3")
    assert {type(corpus.splits["dev"][3].entities[0].start)} == {int}  # not numpy's, so that JSON takes it
    assert [path.name for path in (tmp_path / "prepared" / "tweets").iterdir()] == [corpus.fingerprint]


def test_a_corpus_is_prepared_once(tweets: Path, tmp_path: Path) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "prepared").rglob("*") if path.is_file()}

    load_corpus(tweets, prepared_dir=tmp_path / "prepared")
    before = files()
    load_corpus(tweets, prepared_dir=tmp_path / "prepared")
    assert files() == before
    assert any("array_record" in path.name for path in before)


def test_an_edited_corpus_is_prepared_anew(tweets: Path, tmp_path: Path) -> None:
    before = load_corpus(tweets, prepared_dir=tmp_path / "prepared")
    (tweets / "dev.txt").write_text((tweets / "dev.txt").read_text().replace("Lima", "Oslo"))
    after = load_corpus(tweets, prepared_dir=tmp_path / "prepared")
    assert after.splits["dev"][0].words == ("rain", "in", "Oslo")
    folders = {path.name for path in (tmp_path / "prepared" / "tweets").iterdir()}
    assert folders == {before.fingerprint, after.fingerprint} and len(folders) == 2


def test_an_interrupted_preparation_is_not_taken_for_whole(tweets: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from scanner_jax.corpora import builders, load_corpus\n"
        "original, written = builders._to_record, []\n"
        "def killed(example):\n"
        "    written.append(example)\n"
        "    return original(example) if len(written) < 20 else os._exit(9)  # in the second split\n"
        "builders._to_record = killed\n"
        "load_corpus(sys.argv[1], prepared_dir=sys.argv[2])\n"
    )
    command = [sys.executable, "-c", code, str(tweets), str(tmp_path / "prepared")]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 9
    assert list((tmp_path / "prepared").rglob("*")), "it was killed before it wrote anything"
    assert load_corpus(tweets, prepared_dir=tmp_path / "prepared") == read_corpus(tweets)


def test_damaged_prepared_data_are_named(tweets: Path, tmp_path: Path) -> None:
    load_corpus(tweets, prepared_dir=tmp_path / "prepared")
    (dev,) = (tmp_path / "prepared").rglob("*-dev.array_record*")
    (test,) = (tmp_path / "prepared").rglob("*-test.array_record*")
    dev.write_bytes(test.read_bytes())  # readable, but another split's tweets
    with pytest.raises(ValueError, match="delete this folder"):
        load_corpus(tweets, prepared_dir=tmp_path / "prepared")
    dev.unlink()
    with pytest.raises(ValueError, match="delete this folder"):
        load_corpus(tweets, prepared_dir=tmp_path / "prepared")


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "_SHARD", 200)
    monkeypatch.setattr(builders, "_AT_ONCE", 100)
    monkeypatch.setattr(spill, "RECENT", 100)

    def read(count: int) -> None:
        if not (tmp_path / str(count)).exists():
            write_corpus(tmp_path / str(count), count)
        corpus = load_corpus(tmp_path / str(count), prepared_dir=tmp_path / f"prepared-{time.monotonic_ns()}")
        assert sum(map(len, corpus.splits.values())) == count

    assert held(read, 1000, 3000) < 60


def test_losing_the_race_to_another_process_is_no_error(
    tweets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = read_corpus(tweets).splits
    original = builders.TaggedCorpus.download_and_prepare

    def overtaken(builder: builders.TaggedCorpus, **options: Any) -> None:
        other = builders.TaggedCorpus(splits=splits, data_dir=tmp_path / "prepared")
        original(other, **options)
        raise OSError("directory not empty")  # what the rename says then

    monkeypatch.setattr(builders.TaggedCorpus, "download_and_prepare", overtaken)
    assert builders.read_prepared(builders.prepare(splits, folder=tmp_path / "prepared")) == splits


def test_unknown_variants_are_logged(tweets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_corpus(tweets, prepared_dir=tmp_path / "prepared")
    assert "no known variant" in caplog.text


def test_no_tensorflow_no_network_and_nothing_printed(tweets: Path, tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*arguments, **options): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from scanner_jax.corpora import load_corpus, read_corpus\n"
        "read_corpus(sys.argv[1])\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "load_corpus(sys.argv[1], prepared_dir=sys.argv[2])\n"
        "assert 'tensorflow_datasets' in sys.modules\n"
        "assert not {'tensorflow', 'torch'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tweets), str(tmp_path / "prepared")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
