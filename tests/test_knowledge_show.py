"""What `show` prints of an image and of an example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scanner_jax.knowledge.__main__ import main
from scanner_jax.store import box_digest, objects_value, write_kind
from scanner_jax.types import ImageObject

OBJECTS = (ImageObject((0, 0, 4, 4), "red car", 0.9), ImageObject((1.2, 1, 2, 2.6), "dog", 0.5))


@pytest.fixture
def store(tmp_path: Path) -> str:
    write_kind(tmp_path, "captions", [("17_06_1", {"text": "a lake\n\x1b[2Jby night"}), ("17_06_2", {"text": "a"})], {})
    write_kind(tmp_path, "objects", [("17_06_1", objects_value(OBJECTS)), ("17_06_3", objects_value([]))], {})
    notes = {"17_06_1": {"text": "So they say."}, "train-0": {"text": "", "spans": [[0, 2, "She plays."]]}}
    write_kind(tmp_path, "notes", notes.items(), {})
    return str(tmp_path)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["show", *arguments]) == 0
    return capsys.readouterr().out


def test_an_image_with_its_objects_and_its_examples_notes(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, store, "17_06_1") == (
        "17_06_1\n"
        "caption: a lake\\n\\x1b[2Jby night\n"
        "objects: 2, in the order of the detector's score\n"
        "    1. 0.90  [0, 0, 4, 4]  red car\n"
        "    2. 0.50  [1, 1, 2, 3]  dog\n"
        "notes: So they say.\n"
    )


def test_regions_have_their_captions(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = box_digest(item.box for item in OBJECTS)
    write_kind(store, "regions", [("17_06_1", {"captions": ["a \x07car", "a dog"], "boxes": boxes})], {})
    printed = shown(capsys, store, "17_06_1")
    assert "red car: a \\x07car\n" in printed and "dog: a dog\n" in printed
    write_kind(store, "objects", [("17_06_1", objects_value(OBJECTS[:1]))], {})
    assert main(["show", store, "17_06_1"]) == 1
    assert "image 17_06_1 has other boxes since" in capsys.readouterr().err


def test_what_a_store_has_not_is_left_out(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, store, "17_06_2") == "17_06_2\ncaption: a\n"
    assert shown(capsys, store, "17_06_3") == "17_06_3\nobjects: 0, in the order of the detector's score\n"
    assert shown(capsys, store, "train-0") == "train-0\nnotes on words 0 to 1: She plays.\n"


def test_the_same_as_json(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(capsys, store, "17_06_1", "--json"))
    assert found["objects"][1] == {"box": [1.2, 1, 2, 2.6], "label": "dog", "score": 0.5, "caption": ""}
    assert (found["caption"], found["notes"], found["span_notes"]) == ("a lake\n\x1b[2Jby night", "So they say.", [])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("17_06_1.jpg", "knows no image or example 17_06_1.jpg; the closest are 17_06_1, 17_06_3, 17_06_2"),
        ("train-1", "the closest are train-0\n"),
        ("\x1b", "knows no image or example \\x1b; it knows, for instance, 17_06_1, 17_06_2, train-0, 17_06_3\n"),
    ],
)
def test_an_unknown_id(store: str, asked: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", store, asked]) == 1
    assert said in capsys.readouterr().err
