"""Importing VinVL's TSV: its two labels, its attributes as the demo writes them, and every kind of broken line."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from scanner_jax.store import Store, StoreError
from scanner_jax.store.__main__ import main
from scanner_jax.store.vinvl import read_vinvl
from scanner_jax.types import ImageObject


def item(name: str = "car", conf: float = 0.5, **changed: Any) -> dict[str, Any]:
    """One object as VinVL writes it; its feature is no base64 at all, since nobody decodes it."""
    return {"rect": [1, 2, 30, 40.5], "bbox_id": 3, "class": name, "conf": conf, "feature": "%%%"} | changed


def line(key: str, *items: Any) -> str:
    return f"{key}\t{json.dumps({'objects': items, 'relations': None})}\n"


def write(folder: Path, *lines: str, name: str = "predictions.tsv") -> Path:
    (folder / name).write_bytes("".join(lines).encode())
    return folder / name


def labels(path: Path, label: str = "attr_obj") -> dict[str, list[str]]:
    records = read_vinvl([path], label=label).records
    return {key: [item["label"] for item in value["objects"]] for key, value in records}


def refused(*paths: Path) -> str:
    with pytest.raises(StoreError) as raised:
        list(read_vinvl(paths).records)
    return str(raised.value)


def test_the_command_writes_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = item("bag", 0.9, rect=[5, 5, 5, 9])
    path = write(
        tmp_path, line("17_06_1.jpg", item(), flat, item("dog", 0.75)), line("O_7"), line("8", item("lamp", 1))
    )
    store = tmp_path / "store"
    assert main(["import", "vinvl", str(path), str(store), "--label", "objects"]) == 0
    printed = capsys.readouterr().out
    assert "3 images -> " in printed and "objects in all: 3" in printed
    assert "skipped boxes: 1 (predictions.tsv:1 object 1 (no area))" in printed
    opened = Store.open(store)
    box = (1.0, 2.0, 30.0, 40.5)
    assert opened.objects("17_06_1") == (ImageObject(box, "dog", 0.75), ImageObject(box, "car", 0.5))
    assert list(opened.keys("objects")) == ["17_06_1", "O_7", "8"] and opened.objects("O_7") == ()
    provenance = opened.provenance("objects")
    assert (provenance["importer"], provenance["label"], provenance["objects"]) == ("vinvl", "objects", 3)
    assert provenance["sources"][0]["file"] == "predictions.tsv"
    assert provenance["places"]["skipped boxes"] == ["predictions.tsv:1 object 1 (no area)"]


def test_a_folder_and_a_file_of_any_name_are_taken_by_their_content(tmp_path: Path) -> None:
    write(tmp_path, line("1", item()), name="a.tsv")
    write(tmp_path, line("2", item()), name="b.tsv")
    assert list(labels(tmp_path)) == ["1", "2"]
    assert list(labels(write(tmp_path, "\ufeff" + line("3", item()), name="features"))) == ["3"]


def test_attributes_stand_as_the_demo_writes_them(tmp_path: Path) -> None:
    names = ["tall", "young", "blonde", "smiling", "blond", "wet", "red"]
    scores = [0.09, 0.2, 0.15, 0.3, 0.1, 0.01, 0.11]
    person = item("woman", attributes=names, attr_scores=scores)
    unlikely = item("box", 0.4, attributes=["white"], attr_scores=[0.1])
    path = write(tmp_path, line("1", person, unlikely))
    assert labels(path) == {"1": ["red,young,blond,smiling woman", "box"]}
    assert labels(path, "objects") == {"1": ["woman", "box"]}
    assert not any(read_vinvl([path]).remarks.values())


def test_without_attributes_the_class_stands_alone_and_this_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, line("1", item()), line("2", item(attributes=["red"], attr_scores=[0.5])), line("3", item()))
    assert labels(path) == {"1": ["car"], "2": ["red car"], "3": ["car"]}
    assert main(["import", "vinvl", str(path), str(tmp_path / "store")]) == 0
    assert "files without attributes, labels are classes: 1 (predictions.tsv)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"rect": [float("nan"), 2, 30, 40]}, "not finite"),
        ({"rect": [1, 2, 10**400, 40]}, "not finite"),
        ({"rect": [1, 2, 30_000, 40]}, "outside the image"),
        ({"rect": [-2, 2, 30, 40]}, "outside the image"),
        ({"conf": 1.5}, "score outside 0 to 1"),
        ({"class": " "}, "empty label"),
    ],
)
def test_boxes_that_are_none_are_left_out_and_listed(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    imported = read_vinvl([write(tmp_path, line("1", item(**changed), item("dog")))])
    ((_, value),) = imported.records
    assert [found["label"] for found in value["objects"]] == ["dog"]
    assert imported.remarks["skipped boxes"] == [f"predictions.tsv:1 object 0 ({reason})"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (line("2", item())[:-1], "the file is cut short: its last line has no line end"),
        (line("2", item())[:40], "the file is cut short: its last line has no line end"),
        (line("2", item())[:40] + "\n", "broken JSON (Expecting"),
        ("2\t\n", "broken JSON (Expecting value, character 3)"),
        ("\n", "expected key<TAB>"),
        ('2 {"objects": []}\n', "expected key<TAB>"),
        (' \t{"objects": []}\n', "expected key<TAB>"),
        ("2\t[]\n", "expected key<TAB>"),
        ('2\t{"boxes": []}\n', "expected key<TAB>"),
        ('2\t{"objects": 3}\n', "expected key<TAB>"),
        ('2\t{"objects": ["car"]}\n', "expected key<TAB>"),
        (line("2", {"rect": [1, 2, 3, 4], "class": "car"}), "expected key<TAB>"),
        ("2\t" + "[" * 100_000 + "\n", "expected key<TAB>"),
        (line("2", item(rect=[1, 2, 3])), "object 0: rect is [1.0, 2.0, 3.0]; expected [x1, y1, x2, y2]"),
        (line("2", item(), item(rect=[1, 2, True, 4])), "object 1: rect is "),
        (line("2", item(conf="0.5")), "object 0: expected a text as class and a number as conf"),
        (line("2", item("\ud800")), "object 0: the label is not valid Unicode"),
        (line("2", item(attributes=["red"])), "object 0: expected attributes and attr_scores"),
        (line("2", item(attributes=["red"], attr_scores=[])), "object 0: expected attributes and attr_scores"),
        (line("1.jpg", item()), "image 1 stands in "),
    ],
)
def test_a_broken_line_is_named_and_nothing_is_written(tmp_path: Path, broken: str, message: str) -> None:
    path = write(tmp_path, line("1", item()), broken)
    said = refused(path)
    assert f"{path}:2: {message}" in said and said.count("\n") == 1
    assert main(["import", "vinvl", str(path), str(tmp_path / "store")]) == 1
    assert not (tmp_path / "store").exists()


def test_a_failed_import_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    assert main(["import", "vinvl", str(write(tmp_path, line("1", item()))), store]) == 0
    assert main(["import", "vinvl", str(write(tmp_path, line("2", item()), "?\n")), store]) == 1
    assert list(Store.open(store).keys("objects")) == ["1"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["objects"]


def test_all_broken_lines_are_listed_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "?\n", line("1", item()), "2\t\xff\n", "!\n")
    assert [number in refused(path) for number in (":1: ", ":2: ", ":3: ", ":4: ")] == [True, False, True, True]
    monkeypatch.setattr("scanner_jax.store.vinvl.PROBLEM_LIMIT", 2)
    said = refused(path)
    assert ":3: " in said and ":4: " not in said and said.endswith("reading stopped here")
    path.write_bytes(line("1", item()).encode() + b"2\t\xff\n")
    assert f"{path}:2: not UTF-8 (invalid start byte at byte 2)" in refused(path)


def test_too_many_skipped_boxes_are_another_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner_jax.store.vinvl.SKIPPED_LIMIT", 2)
    path = write(tmp_path, *(line(key, item(), item(rect=[0, 0, 0, 0])) for key in "1234"))
    assert "3 files and boxes skipped, such as ['predictions.tsv:1 object 1 (no area)']" in refused(path)


def test_a_line_too_long_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner_jax.store.vinvl_tsv.LINE_LIMIT", 200)
    path = write(tmp_path, line("1"), line("2", item(feature="A" * 10_000_000)))
    tracemalloc.start()
    said = refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert f"{path}:2: longer than 200 bytes" in said
    assert peak < 1_000_000


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, *(line(str(number), item(feature="A" * 1_000_000)) for number in range(30)))
    tracemalloc.start()
    count = sum(1 for _ in read_vinvl([path]).records)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30 and peak < 10_000_000 < path.stat().st_size


def test_a_line_index_beside_the_file_must_have_its_length(tmp_path: Path) -> None:
    path = write(tmp_path, line("1", item()), line("2", item()))
    (tmp_path / "predictions.lineidx").write_text("0\n200\n")
    assert list(labels(path)) == ["1", "2"]
    (tmp_path / "predictions.lineidx").write_text("0\n200\n400\n")
    assert f"{path}: 2 lines, and predictions.lineidx lists 3" in refused(path)
