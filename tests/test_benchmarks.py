"""The benchmarks' commands run and end with one line of JSON; how fast anything is, no test says."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import input
import numpy as np
import pytest
from growth import slope, summary
from growth_stages import FOR_ALL_SIZES, STAGES
from input import CORPUS, ENCODER
from invented import SPLITS, write_corpus
from machine import describe
from predict import in_turn, proposing

from scanner_jax.corpora import read_corpus
from scanner_jax.detection import spans_of
from scanner_jax.predictions import read_predictions
from scanner_jax.scanner import Request
from scanner_jax.scoring import evaluate
from scanner_jax.store.importers import read_captions

ROOT = Path(__file__).parent.parent


def result(module: str, *arguments: str, through: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a command's last line says."""
    command = [sys.executable, *through, f"benchmarks/{module}.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    machine = describe("torch") | {"threads": 1} if through else describe()
    assert found["benchmark"] == module and found["machine"] == machine
    return found


def test_the_machine_is_described() -> None:
    found = describe()
    assert {"processor", "cores", "memory_gib", "python", "jax", "device"} == found.keys()
    assert all(found.values())


def test_an_invented_corpus_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_corpus(tmp_path / name, 200)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    corpus = read_corpus(tmp_path / "one")
    assert {split: len(examples) for split, examples in corpus.splits.items()} == {"train": 160, "dev": 20, "test": 20}
    images = {key for key, _ in read_captions([tmp_path / "one" / "captions.txt"]).records}
    assert images == {example.image_id for examples in corpus.splits.values() for example in examples}
    for split in SPLITS:
        predictions = read_predictions(tmp_path / "one" / f"{split}-predictions.jsonl")
        scores, _ = evaluate(corpus, split, predictions, trained_on=["train"])
        assert scores["span"]["f1"] == 100 > scores["micro"]["f1"] > 50


def test_slope() -> None:
    sizes = (10, 100, 1000)
    assert slope({size: 3.0 * size for size in sizes}) == 1
    assert slope({size: 0.5 * size**2 for size in sizes}) == 2
    assert slope({10: 1.0}) is None


def test_summary() -> None:
    taken = {
        100: {"seconds": 1.0, "cpu_seconds": 1.5, "base_mb": 50.0, "peak_mb": 60.0},
        1100: {"seconds": 2.0, "cpu_seconds": 2.5, "base_mb": 70.0, "peak_mb": 90.0},
    }
    found = summary(taken)
    assert found["bytes_per_sentence"] == round(10 * 2**20 / 1000) and found["memory_ratio"] == 1.5
    assert found["peak_mb"] == {100: 60, 1100: 90} and found["seconds"] == {100: 1, 1100: 2}


def test_growth_without_a_model() -> None:
    found = result("growth", "--sizes", "50", "100", "--model-up-to", "0")
    assert found["sizes"] == [50, 100] and found["stages"].keys() == set(FOR_ALL_SIZES)
    for stage in found["stages"].values():
        assert stage["seconds"].keys() == stage["peak_mb"].keys() == {"50", "100"}
        assert min(stage["peak_mb"].values()) > 0 and isinstance(stage["slope"], float)


def test_input_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert input.main([]) == 1
    said = capsys.readouterr().err
    assert str(CORPUS) in said and str(ENCODER) in said


def test_predict_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "predict.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and f"{CORPUS} is missing" in done.stderr


def test_predict_proposes_as_many_spans_as_there_are() -> None:
    logits = [np.random.default_rng(seed).normal(size=(seed + 2, 3)).astype(np.float32) for seed in range(5)]
    for count in (1, 7, 12):
        bias = proposing(logits, count)
        spans = spans_of([rows + bias for rows in logits])
        assert sum(map(len, spans)) == count and {span.end - span.start for own in spans for span in own} == {1}


def test_predict_takes_turns() -> None:
    asked: list[tuple[str, int]] = []

    def side(name: str, requests: Sequence[Request]) -> int:
        asked.append((name, len(requests)))
        return 2

    sides = {name: functools.partial(side, name) for name in ("theirs", "ours")}
    found = in_turn(sides, [[Request(text="a")] * 32] * 3)
    turn = {name: [(name, 32)] * 3 for name in sides}  # a call that does not count, and two that do
    assert asked == [*turn["theirs"], *turn["ours"], *turn["theirs"][:2], *turn["ours"][:2]]
    assert found.keys() == sides.keys() and all(own["found"] == 6 for own in found.values())


@pytest.mark.slow
def test_extract() -> None:
    arguments = "--images 2 --boxes 2 --rounds 1 --width 16 --layers 1".split()
    found = result("extract", *arguments, through=("tests/torchvision_shim.py",))
    assert found["settings"]["boxes"] == 2
    for kind in ("captions", "objects", "regions"):
        assert found[kind]["ratio"] > 0 and found[kind]["images_per_second"] > 0
    assert found["ratio"] > 0


def test_extract_takes_the_median_of_the_rounds() -> None:
    from extract import summary  # brings in torch

    seconds = {"captions": [(4.0, 1.0), (6.0, 1.0), (9.0, 3.0)], "regions": [(8.0, 1.0), (8.0, 2.0), (8.0, 2.0)]}
    found = summary(seconds, 10)
    assert found["captions"] == {"ratio": 4.0, "images_per_second": 10.0}
    assert found["regions"] == {"ratio": 4.0, "images_per_second": 5.0}
    assert found["ratio"] == 4.67  # of 12 to 2, 14 to 3 and 17 to 5 seconds


@pytest.mark.slow
def test_vinvl() -> None:
    arguments = "--images 2 --batch-size 2 --rounds 1 --short 64 --long 96 --proposals 3 --device cpu".split()
    found = result("vinvl", *arguments, through=("tests/torchvision_shim.py",))
    assert found["ratio"] > 0 and found["images_per_second"] > 0 and found["peak_mb"] > 500
    assert 1 < found["gflops_per_image"] < 100


def test_vinvl_takes_the_median_of_the_rounds() -> None:
    from vinvl import summary  # brings in torch

    found = summary([(4.0, 2.0), (9.0, 3.0), (6.0, 6.0)], 6, 12e12)
    assert (found["ratio"], found["images_per_second"], found["single_images_per_second"]) == (2.0, 2.0, 1.0)
    assert (found["gflops_per_image"], found["tflops_per_second"]) == (2000.0, 4.0)


@pytest.mark.slow
def test_growth(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = result("growth", "--sizes", "50", "100", "--out", str(tmp_path / "plot.png"))
    assert found["stages"].keys() == STAGES.keys()
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / CORPUS).is_dir() or not (ROOT / ENCODER).is_dir(), reason=f"{CORPUS} or {ENCODER} is not there"
)
def test_input() -> None:
    found = result("input", "--rounds", "1", "--steps", "2", "--epochs", "1")
    assert {"ratio", "pipeline_examples_per_second", "step_examples_per_second"} <= found.keys()
    rates = found["pipeline_examples_per_second"], found["step_examples_per_second"]
    assert min(rates) > 0 and found["ratio"] == pytest.approx(rates[0] / rates[1], rel=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / CORPUS).is_dir(), reason=f"{CORPUS} is not there")
def test_train_step(tiny_encoder: Callable[[Sequence[str]], Path]) -> None:
    encoder = tiny_encoder(["we", "love", "it"])
    options = "--cases detector 32 --sides ours eager --steps 2 --awp --without-dropout".split()
    found = result("train_step", "--encoder", str(encoder), *options)
    cases = ["stage 1, 4 tweets", "stage 2, 8 x 32", "stage 1, 4 tweets, AWP"]
    cases += ["stage 1, 4 tweets, no dropout", "stage 2, 8 x 32, no dropout"]
    assert [row["case"] for row in found["rows"]] == [case for case in cases for _ in range(2)]
    for ours, theirs in zip(found["rows"][::2], found["rows"][1::2], strict=True):
        assert (ours["side"], theirs["side"]) == ("scanner_jax", "PyTorch, eager")
        assert ours["seconds"] > 0 and ours["mfu"] > 0 and ours["peak_bytes"] > 0 and ours["over_ours"] == 1
        assert theirs["over_ours"] == pytest.approx(theirs["seconds"] / ours["seconds"])
        assert ours["tokens"] == theirs["tokens"] > 8
    assert found["ratio"] == pytest.approx(found["rows"][1]["over_ours"], abs=1e-3)
    assert {target["found"] for target in found["targets"]} == {"not measured"}  # this is no H200
