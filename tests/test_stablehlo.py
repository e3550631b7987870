"""`--format stablehlo`: programs for any shape that run without this package, and find what `Scanner` finds."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from scanner_jax import export
from scanner_jax.detection import tag
from scanner_jax.exported import ExportError, open_exported
from scanner_jax.files import read_json, write_json
from scanner_jax.recognition import judge, write_prompts
from scanner_jax.scanner import Scanner
from scanner_jax.stablehlo import EXAMPLE, PLATFORMS
from scanner_jax.tokens import load_tokenizer
from scanner_jax.types import Example, ImageObject, Knowledge, Span

MODELS = Path(__file__).parent.parent / "models"
TEXTS = ["Lake Mira, and Quito are <mask> great!", "", "nothing here", "why is Zen Bank's Oslo so cold"]
KNOWN = Knowledge(wikipedia="a company", caption="a photo of a place")
OBJECTS = (ImageObject((0, 0, 9, 9), "person", 0.5, "a person"), ImageObject((0, 0, 4, 4), "place", 0.5))


@pytest.fixture(scope="module")
def folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.export(finished_run, tmp_path_factory.mktemp("exported") / "model", weights="stablehlo")


@pytest.fixture(scope="module")
def there(folder: Path) -> dict[str, Any]:
    """What the export's predict.py defines."""
    return runpy.run_path(str(folder / "predict.py"))


ALONE = """
import json, runpy, socket, sys
for name in ("scanner_jax", "flax", "orbax", "transformers", "torch"):
    sys.modules[name] = None  # importing it is an error
socket.socket.connect = None
script, text, *known = sys.argv[1:]
sys.argv = [script, text, *known]
there = runpy.run_path(script, run_name="__main__")
print(json.dumps([there["predict"](text, *known) for text in json.load(sys.stdin)]))
"""


def test_it_finds_the_same_in_a_fresh_process_without_this_package(folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(folder, tmp_path / "moved")
    known = [KNOWN.wikipedia, KNOWN.caption]
    run = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(moved / "predict.py"), TEXTS[0], *known],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    *printed, found = run.stdout.splitlines()
    expected = Scanner.from_pretrained(folder).predict_batch(TEXTS, knowledge=KNOWN)
    assert printed == list(map(str, expected[0])) and printed
    assert sum(map(len, expected)) > 3
    for entities, rows in zip(expected, json.loads(found), strict=True):
        assert [row[:3] for row in rows] == [[entity.start, entity.end, entity.label] for entity in entities]
        np.testing.assert_allclose([row[3] for row in rows], [entity.score for entity in entities], atol=2e-5)


def test_the_detectors_logits_are_ours(folder: Path, there: dict[str, Any]) -> None:
    model = open_exported(folder)
    examples = [Example(str(number), tuple(text.split())) for number, text in enumerate(TEXTS) if text]
    tokenizer, rows, places = model.detection.tokenizer, [], []
    for words in tokenizer.words([example.words for example in examples]):
        rows.append([tokenizer.start, *(token for word in words for token in word), tokenizer.end])
        places.append(np.cumsum([1, *map(len, words)])[:-1])
    found = there["logits"]("detector", rows)
    for own, firsts, expected in zip(found, places, tag(model.detection, model.detector, examples), strict=True):
        np.testing.assert_allclose(own[firsts], expected, atol=2e-5)


@pytest.mark.parametrize(("count", "objects"), [(1, 0), (3, 2)])
def test_the_recognizers_logits_are_ours(folder: Path, there: dict[str, Any], count: int, objects: int) -> None:
    """Programs take any batch, length and number of objects."""
    model = open_exported(folder)
    asked = [(Example("", tuple(TEXTS[-1].split()[-number - 1 :])), Span(0, 1)) for number in range(1, count + 1)]
    known = Knowledge(caption=KNOWN.caption, objects=OBJECTS[:objects])
    prompted = write_prompts(model.recognition, asked, [known] * count)
    rows = [list(prompt.token_ids) for prompt in prompted.prompts]
    masks = np.array([prompt.mask_position for prompt in prompted.prompts], np.int32)
    places = np.array([prompt.object_positions or (0,) for prompt in prompted.prompts], np.int32)
    types, overlaps = there["logits"]("recognizer", rows, masks, places)
    expected = judge(model.recognition, model.recognizer, prompted)
    np.testing.assert_allclose(types, expected.types, atol=2e-5)
    np.testing.assert_allclose(overlaps[:, :objects], expected.overlaps[:, :objects], atol=2e-5)


def test_programs_are_of_symbolic_shapes_and_hold_no_weights(folder: Path) -> None:
    for stage in ("detector", "recognizer"):
        path = folder / f"{stage}.stablehlo"
        program = jax.export.deserialize(bytearray(path.read_bytes()))
        assert program.platforms == PLATFORMS == ("cpu", "cuda")
        assert [str(size) for size in program.in_avals[-1 if stage == "detector" else -3].shape] == ["b", "t"]
        weights = load_file(folder / f"{stage}.safetensors")
        assert len(program.in_avals) == len(weights) + (2 if stage == "detector" else 4)


def test_what_is_too_long_is_said(there: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="102 tokens, and at most 48 are read: give shorter texts"):
        there["predict"]("again " * 100)


@pytest.mark.parametrize("name", ["granite-30m-english", "xlm-roberta-large-shape"])
def test_it_tokenizes_as_we_do(folder: Path, tmp_path: Path, name: str) -> None:
    if not (MODELS / name / "tokenizer.json").is_file():
        pytest.skip(f"{MODELS / name / 'tokenizer.json'} is not there")
    tokenizer = load_tokenizer(MODELS / name)
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.copy(MODELS / name / "tokenizer.json", copy)
    ids = {key: getattr(tokenizer, key) for key in ("start", "end", "pad", "mask", "unknown")}
    write_json(copy / "scanner.json", read_json(copy / "scanner.json") | {"tokens": ids})
    there = runpy.run_path(str(copy / "predict.py"))
    words = ["Okafor", "<mask>", "e\u0301t\u00e9", "\u200b", "\U0001f600", "東京", "</s>now", "'s", "#tag-x", "a" * 40]
    (expected,) = tokenizer.words([words])
    assert [there["tokens"](word) or [ids["unknown"]] for word in words] == expected
    text = " ".join(words)
    assert there["tokens"](text) == tokenizer.text(text)


def test_a_damaged_program_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    program = copy / "detector.stablehlo"
    program.write_bytes(program.read_bytes()[:-1])
    with pytest.raises(ExportError, match=r"cut short or was changed: detector\.stablehlo; copy the folder again"):
        open_exported(copy)


def test_the_model_card_has_the_example(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert EXAMPLE in card and "LOC, ORG, PER, non-entity" in card
