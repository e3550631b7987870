"""What `stats` counts in a store, and for how much of a corpus."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scanner_jax.corpora import read_corpus
from scanner_jax.knowledge.__main__ import main
from scanner_jax.knowledge.shards import Shard
from scanner_jax.knowledge.statistics import statistics
from scanner_jax.store import Store, box_digest, objects_value, write_kind
from scanner_jax.types import ImageObject

CAR, DOG = ImageObject((0, 0, 4, 4), "red car", 0.9), ImageObject((1, 1, 2, 2), "dog", 0.5)
SPLITS = {"train": ["7", "8", "8"], "dev": ["9"], "test": ["11"]}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Five tweets; their ids are of their images, but that the third has the second's image."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, images in SPLITS.items():
        tweets = [f"IMGID:{image}\nMira\tB-PER\n{number}\tO\n" for number, image in enumerate(images)]
        (folder / f"{split}.txt").write_text("\n".join(tweets))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    captions = [("7", {"text": "a lake by night"}), ("8", {"text": " "}), ("9", {"text": "a\x1b[31m cat"})]
    counts, places = {"cut short or damaged": 7, "not an image": 0}, {"cut short or damaged": list("abcdef")}
    made = {"model": "tiny", "revision": "sha256:0", "precision": "fp32", "prompt": "", "versions": [{"torch": "2.13"}]}
    write_kind(folder, "captions", captions, {"counts": counts, "places": places} | made)
    write_kind(folder, "objects", [("7", objects_value([CAR, DOG, CAR])), ("8", objects_value([]))], {})
    digests = box_digest([CAR.box, DOG.box, CAR.box]), box_digest([DOG.box])
    regions = {"7": (["a red car", "", "a car"], digests[0]), "9": (["x"], digests[1])}
    told = [(image, {"captions": captions, "boxes": boxes}) for image, (captions, boxes) in regions.items()]
    write_kind(folder, "regions", told, {})
    vectors = np.eye(3, 4, dtype="<f2").tobytes()
    write_kind(folder, "clip", [("7", {"vectors": vectors, "width": 4, "boxes": digests[1]})], {})
    return folder


def test_kinds_are_counted(store: Path) -> None:
    found = statistics(Store.open(store))
    assert list(found["kinds"]) == ["captions", "clip", "objects", "regions"]
    captions, clip, objects, regions = found["kinds"].values()
    assert (captions["records"], captions["empty"]) == (3, 1)
    assert captions["lengths"] == {"words a caption": {"number": 3, "mean": 2.0, "median": 2, "p95": 4, "max": 4}}
    assert captions["failures"] == {"cut short or damaged": {"count": 7, "places": list("abcde")}}
    told = ("model", "revision", "precision", "prompt", "versions", "package_version", "fingerprint")
    assert set(told) <= captions["provenance"].keys() and "counts" not in captions["provenance"]
    assert (objects["records"], objects["empty"]) == (2, 1)
    assert objects["labels"] == {"different": 2, "common": [("red car", 2), ("dog", 1)]}
    assert objects["lengths"]["objects an image"]["mean"] == 1.5
    assert regions["lengths"]["words a region's caption"] == {"number": 4, "mean": 1.5, "median": 1, "p95": 3, "max": 3}
    assert (regions["other_boxes"], clip["other_boxes"]) == (1, 1)
    assert clip["lengths"]["vectors an image"]["max"] == 3 and clip["lengths"]["numbers a vector"]["max"] == 4
    assert "coverage" not in captions


def test_coverage_goes_by_images_and_for_notes_by_examples(store: Path, corpus: Path) -> None:
    read = read_corpus(corpus)
    first = read.splits["train"][0].id
    notes = [(first, {"text": "So.", "spans": [[0, 1, "A woman."]]}), (read.splits["test"][0].id, {"text": ""})]
    write_kind(store, "notes", notes, {})
    found = statistics(Store.open(store), read)
    assert found["corpus"]["name"] == "corpus"
    assert found["kinds"]["captions"]["coverage"] == {
        "train": {"of": 2, "have": 1, "percent": 50.0},
        "dev": {"of": 1, "have": 1, "percent": 100.0},
        "test": {"of": 1, "have": 0, "percent": 0.0},
    }
    assert [share["of"] for share in found["kinds"]["notes"]["coverage"].values()] == [3, 1, 1]
    assert [share["have"] for share in found["kinds"]["notes"]["coverage"].values()] == [1, 0, 0]
    assert found["kinds"]["notes"]["lengths"]["words a note on a span"]["max"] == 2


def test_gold_boxes_within_reach_of_an_object(store: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    (corpus / "xml").mkdir()
    for image, where in {"7": (1, 1, 2, 2), "8": (0, 0, 4, 4), "9": (0, 0, 4, 4), "11": (0, 0, 4, 4)}.items():
        found = f"<annotation><object><name>Mira</name>{box.format(*where)}</object></annotation>"
        (corpus / "xml" / f"{image}.xml").write_text(found)
    objects = {"7": [CAR, DOG, CAR], "8": [], "9": [CAR], "11": [DOG]}
    write_kind(store, "objects", [(image, objects_value(found)) for image, found in objects.items()], {})
    reach = statistics(Store.open(store), read_corpus(corpus))["kinds"]["objects"]["reach"]
    assert reach == {  # image 8 has no objects
        "train": {"recall": 100.0, "support": 1, "covered": 1, "last_rank": 2},
        "dev": {"recall": 100.0, "support": 1, "covered": 1, "last_rank": 1},
        "test": {"recall": 0.0, "support": 1, "covered": 0, "last_rank": None},
    }
    assert main(["stats", str(store), "--corpus", str(corpus)]) == 0
    printed = capsys.readouterr().out
    said = "groundable entities with an object that is theirs"
    assert f"  train, {said}: 1 of 1 (100.00 %), the first of them at rank 2 or before\n" in printed
    assert f"  test, {said}: 0 of 1 (0.00 %)\n" in printed


def test_a_corpus_without_images_and_a_kind_of_another_version(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split in SPLITS:
        (folder / f"{split}.txt").write_text(f"Mira B-PER\n{split} O\n")
    write_kind(tmp_path / "store", "sounds", [("7", {"hertz": 440})], {})
    found = statistics(Store.open(tmp_path / "store"), read_corpus(folder))
    assert found["kinds"]["sounds"]["records"] == 1
    assert found["kinds"]["sounds"]["coverage"]["train"] == {"of": 0, "have": 0, "percent": None}


def test_the_command_says_it_in_words(store: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kind(store, "objects", [("7", objects_value([ImageObject((0, 0, 4, 4), "c\x1bar\n", 0.9)]))], {})
    assert main(["stats", str(store), "--corpus", str(corpus)]) == 0
    printed = capsys.readouterr().out
    for line in (
        "captions: 3 images, 1 of them empty",
        "  train: 1 of 2 images (50.00 %)",
        "  words a caption: mean 2.0, median 2, 95 % to 4, at most 4",
        "  cut short or damaged: 7 (a, b, c, d, e, ...)",
        "  model: tiny",
        "  versions: torch 2.13",
        "  of other boxes than objects has, so of no use: 2",
        "  labels: 1, above all c\\x1bar\\n (1)",
    ):
        assert f"{line}\n" in printed
    assert "not an image" not in printed and "\x1b" not in printed


def test_the_command_says_it_in_json(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(store), "--json"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads(json.dumps(statistics(Store.open(store))))


def test_extractions_that_are_not_merged_are_told(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (3, 1):
        Shard(number, 4).folder(store, "captions").mkdir(parents=True)
    assert statistics(Store.open(store))["begun"] == [{"kind": "captions", "of": 4, "shards": [1, 3]}]
    assert main(["stats", str(store)]) == 0
    assert "begun, not merged: captions, shards 1, 3 of 4\n" in capsys.readouterr().out


def test_wrong_folders(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(tmp_path / "nowhere")]) == 1
    assert main(["stats", str(store), "--corpus", str(tmp_path / "nowhere")]) == 1
    said = capsys.readouterr()
    assert "nowhere does not exist" in said.err and "no such folder" in said.err and not said.out


def test_a_reader_that_has_enough_ends_it_quietly(store: Path) -> None:
    command = [sys.executable, "-m", "scanner_jax.knowledge", "stats", str(store), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141
