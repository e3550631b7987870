"""The command that scores any system's predictions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invented import write_corpus
from memory import held

from scanner_jax import spill
from scanner_jax.alignment import EvaluationError, check_ids
from scanner_jax.corpora import read_corpus
from scanner_jax.evaluate import main
from scanner_jax.predictions import read_predictions
from scanner_jax.scoring import evaluate
from scanner_jax.types import Entity, Example

DATA = Path(__file__).parent.parent / "data"
TWEETS = {
    "train": "IMGID:1\nMira\tB-PER\nvisits\tO\nTamsin\tB-LOC\n",
    "valid": "IMGID:2\nTamsin\tI-LOC\nagain\tO\n",
    "test": (
        "IMGID:3\nMira\tB-PER\nOkafor\tI-PER\nin\tO\nTamsin\tB-LOC\n\n"
        "IMGID:3\nMira\tB-PER\nsings\tO\n\nIMGID:4\nReds\tI-ORG\nwin\tO\n\nIMGID:5\nnothing\tO\n"
    ),
}
GOLD_ENTITIES = {"3": [(0, 2, "PER"), (3, 4, "LOC")], "3#2": [(0, 1, "PER")], "4": [(0, 1, "ORG")], "5": []}


@pytest.fixture(autouse=True)
def little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits are scored in parts, whose counts are added up."""
    monkeypatch.setattr("scanner_jax.scoring.AT_ONCE", 2)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "tweets"
    folder.mkdir()
    for name, text in TWEETS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def write(path: Path, entities: dict[str, list[tuple[int, int, str]]]) -> Path:
    lines = [
        json.dumps(
            {"id": identity, "entities": [dict(zip(("start", "end", "type"), row, strict=True)) for row in rows]}
        )
        for identity, rows in entities.items()
    ]
    path.write_text("\n".join(lines))
    return path


def score(corpus: Path, predictions: Path, *more: str) -> dict:
    out = predictions.with_suffix(".json")
    assert main([f"--gold={corpus}", f"--predictions={predictions}", f"--json={out}", *more]) == 0
    return json.loads(out.read_text())


def test_gold_in_the_format_scores_100(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = corpus / "gold.jsonl"
    for split in ("train", "dev", "test"):
        assert main([f"--gold={corpus}", f"--split={split}", f"--write-gold={path}"]) == 0
        result = score(corpus, path, f"--split={split}")
        assert result["micro"]["f1"] == result["span"]["f1"] == 100.0
        assert result["micro"]["support"] == result["gold"]["entities"] > 0
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert {r["id"]: [(e["start"], e["end"], e["type"]) for e in r["entities"]] for r in records} == GOLD_ENTITIES
    assert "warning" not in capsys.readouterr().out


def test_scores_by_hand(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predicted = {"3": [(0, 2, "LOC"), (3, 4, "LOC")], "3#2": [(0, 1, "PER")], "4": [], "5": [(0, 1, "ORG")]}
    result = score(corpus, write(tmp_path / "p.jsonl", predicted))
    assert result["micro"] == {"precision": 50.0, "recall": 50.0, "f1": 50.0, "support": 4}
    assert result["span"] == {"precision": 75.0, "recall": 75.0, "f1": 75.0, "support": 4}
    assert result["seen"] == {"precision": 100.0, "recall": 100.0, "f1": 100.0, "support": 2}  # Mira, Tamsin
    assert result["unseen"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}
    assert result["per_type"]["PER"] == {"precision": 100.0, "recall": 50.0, "f1": 66.67, "support": 2}
    assert result["per_type"]["ORG"]["support"] == 1
    assert result["gold"] == {"sentences": 4, "entities": 4}
    assert str(tmp_path) not in json.dumps(result)
    printed = capsys.readouterr().out
    assert "gold: 4 entities in 4 sentences" in printed and "span" in printed and "75.00" in printed


def test_seen_is_what_was_trained_on(corpus: Path, tmp_path: Path) -> None:
    (corpus / "valid.txt").write_text("IMGID:2\nReds\tB-ORG\n")
    predictions = write(tmp_path / "p.jsonl", GOLD_ENTITIES)
    assert score(corpus, predictions)["seen"]["support"] == 2
    assert score(corpus, predictions, "--trained-on", "train", "dev")["seen"]["support"] == 3


def test_what_does_not_fit_is_defined_counted_and_reported(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted = {
        "3": [(0, 2, "LOC"), (0, 2, "PER"), (0, 2, "LOC"), (0, 2, "PER"), (3, 5, "LOC"), (-1, 4, "LOC"), (2, 2, "LOC")],
        "4": [(0, 1, "TEAM")],
        "99": [(0, 1, "PER"), (7, 1, "PER")],
    }
    result = score(corpus, write(tmp_path / "p.jsonl", predicted))
    assert result["predictions"] == {
        "sentences": 2,
        "entities": 5,
        "missing_ids": 2,
        "unknown_ids": 1,
        "duplicate_spans": 3,
        "spans_out_of_range": 3,
        "unknown_types": {"TEAM": 1},
    }
    # Right: the last (0, 2, PER). Wrong: three spans out of range and the TEAM, whose span is right.
    assert result["micro"] == {"precision": 20.0, "recall": 25.0, "f1": 22.22, "support": 4}
    assert result["span"]["precision"] == 40.0
    assert result["per_type"]["TEAM"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    printed = capsys.readouterr().out
    for said in (
        "2 sentences without a line; nothing was predicted there ('3#2', '5')",
        "1 lines left out, for their ids are not the split's ('99')",
        "3 predictions replaced by a later one of the same span ('3 0-2', '3 0-2', '3 0-2')",
        "3 spans out of range, counted as wrong predictions ('3 3-5', '3 -1-4', '3 2-2')",
        "types that the corpus does not have, counted as wrong: TEAM 1",
    ):
        assert f"warning: {said}" in printed


def test_predictions_of_another_split_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"not one of the 1 ids .*'a'"):
        check_ids([Example("a", ("x",))], {"b": [Entity(0, 1, "PER")]})


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--predictions=bad.jsonl"], 1, "bad.jsonl:2: not JSON"),
        (["--predictions=bad.jsonl"], 1, "2 malformed lines"),
        (["--predictions=nowhere.jsonl"], 1, "nowhere.jsonl: No such file"),
        (["--predictions=tweets"], 1, "tweets: Is a directory"),
        (["--predictions=empty.jsonl"], 1, "not one of the 0 ids"),
        (["--predictions=good.jsonl", "--gold=nowhere"], 1, "nowhere"),
        (["--predictions=good.jsonl", "--json=no/such/folder.json"], 1, "folder.json"),
        (["--write-gold=no/such/folder.jsonl"], 1, "folder.jsonl"),
        (["--predictions=good.jsonl", "--split=validation"], 2, "validation"),
        ([], 2, "--write-gold"),
        (["--json=x.json", "--write-gold=gold.jsonl"], 2, "--json writes the scores of --predictions"),
    ],
)
def test_errors_have_an_exit_code_and_a_sentence(
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    monkeypatch.chdir(corpus.parent)
    Path("bad.jsonl").write_text('{"id": "3", "entities": []}\n{\n{"id": "3", "entities": []}\n')
    Path("empty.jsonl").write_text("")
    write(Path("good.jsonl"), GOLD_ENTITIES)
    try:
        returned = main([f"--gold={corpus}", *arguments])
    except SystemExit as left:
        returned = left.code
    assert returned == status
    captured = capsys.readouterr()
    assert said in captured.err and "Traceback" not in captured.err
    assert "micro" not in captured.out or "folder.json" in said


def test_a_split_without_gold_is_not_scored(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = write(tmp_path / "p.jsonl", GOLD_ENTITIES)
    (corpus / "test.txt").write_text("IMGID:3\nMira\nsings\n")
    assert main([f"--gold={corpus}", f"--predictions={predictions}"]) == 1
    assert "test: no gold entities, words alone; splits with gold: train, dev" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["twitter2015", "twitter_gmner", "conll2003"])
def test_gold_of_a_real_corpus_scores_100(name: str, tmp_path: Path) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"data/{name} is not here")
    path = tmp_path / "gold.jsonl"
    assert main([f"--gold={DATA / name}", f"--write-gold={path}"]) == 0
    result = score(DATA / name, path)
    assert result["micro"]["f1"] == 100.0
    gold = sum(len(example.entities) for example in read_corpus(DATA / name).splits["test"])
    assert result["micro"]["support"] == gold == {"twitter2015": 5207, "twitter_gmner": 2543, "conll2003": 5648}[name]
    assert result["predictions"]["missing_ids"] == result["predictions"]["unknown_ids"] == 0


def test_memory_does_not_grow_with_the_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "RECENT", 100)
    for count in (1000, 4000):
        write_corpus(tmp_path / str(count), count)

    def scored(count: int) -> None:
        folder = tmp_path / str(count)
        predictions = read_predictions(folder / "train-predictions.jsonl")
        scores, _ = evaluate(read_corpus(folder), "train", predictions, trained_on=["train"])
        assert scores["gold"]["sentences"] == 0.8 * count

    assert held(scored, 1000, 4000) < 100
