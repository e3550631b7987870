"""The command that scores predictions, on a corpus with boxes: protocols, candidates and what is wrong with files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scanner_jax.evaluate import main
from scanner_jax.protocols import PROTOCOLS

DATA = Path(__file__).parent.parent / "data" / "twitter_gmner"
FACE, HAND, WALL = [0, 0, 10, 10], [50, 50, 60, 70], [0, 0, 200, 200]


@pytest.fixture(autouse=True)
def little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits are scored in parts, whose counts are added up."""
    monkeypatch.setattr("scanner_jax.scoring.AT_ONCE", 2)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "tweets"
    (folder / "xml").mkdir(parents=True)
    (folder / "train.txt").write_text("IMGID:1\nMira\tB-PER\n")
    (folder / "test.txt").write_text(
        "IMGID:2\nMira\tB-PER\nin\tO\nTamsin\tB-LOC\n\nIMGID:3\nReds\tB-ORG\n\nIMGID:4\nnothing\tO\n"
    )
    objects = "".join(
        "<object><name>Mira</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>".format(
            *box
        )
        for box in (FACE, HAND)
    )
    (folder / "xml" / "2.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder


def write(path: Path, entities: dict[str, list[tuple[int, int, str, list[int] | None]]]) -> Path:
    names = ("start", "end", "type", "box")
    lines = [
        json.dumps({"id": identity, "entities": [dict(zip(names, row, strict=True)) for row in rows]})
        for identity, rows in entities.items()
    ]
    path.write_text("\n".join(lines))
    return path


def score(corpus: Path, predictions: Path, *more: str) -> dict:
    out = predictions.with_suffix(".json")
    assert main([f"--gold={corpus}", f"--predictions={predictions}", f"--json={out}", *more]) == 0
    return json.loads(out.read_text())


PREDICTED = {"2": [(0, 1, "PER", HAND), (2, 3, "LOC", WALL)], "3": [(0, 1, "PER", None)]}


def test_scores_by_hand(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = score(corpus, write(tmp_path / "p.jsonl", PREDICTED))
    assert result["gmner"] == {"precision": 33.33, "recall": 33.33, "f1": 33.33, "support": 3}
    assert result["eeg"]["f1"] == result["mner"]["f1"] == result["micro"]["f1"] == 66.67
    assert (result["span"]["f1"], result["always_none"]["f1"]) == (100.0, 33.33)
    assert result["groundable"] == {"precision": 50.0, "recall": 100.0, "f1": 66.67, "support": 1}
    assert result["ungroundable"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}
    assert result["gmner_per_type"]["PER"] == {"precision": 50.0, "recall": 100.0, "f1": 66.67, "support": 1}
    assert result["protocol"] == "paper" and "candidates" not in result
    printed = capsys.readouterr().out
    assert "boxes are scored by the protocol: paper" in printed
    assert [
        line.split() for line in printed.splitlines() if line.startswith("gmner PER") or "gmner_per_type PER" in line
    ] == [["gmner_per_type", "PER", "50.00", "100.00", "66.67", "1"]]


@pytest.mark.parametrize(
    ("protocol", "true_positives", "predicted", "gold"),
    [
        ("paper", 1, 3, 3),
        ("riveg", 1, 3, 3),
        ("hindex", 1, 3, 3),
        ("mqspn", 2, 4, 4),  # a tuple for each of Mira's boxes, and Tamsin's wrong box is forgiven once
        ("unco", 2, 4, 4),
    ],
)
def test_protocols(corpus: Path, tmp_path: Path, protocol: str, true_positives: int, predicted: int, gold: int) -> None:
    result = score(corpus, write(tmp_path / "p.jsonl", PREDICTED), f"--protocol={protocol}")
    found = result["gmner"]
    assert found["support"] == gold
    assert found["precision"] == round(100 * true_positives / predicted, 2)
    assert found["recall"] == round(100 * true_positives / gold, 2)
    assert result["protocol"] == protocol and ("eeg" in result) is (protocol == "paper")


def test_candidates_are_read_and_their_recall_is_told(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = write(tmp_path / "p.jsonl", PREDICTED)
    assert score(corpus, predictions, "--protocol=hindex")["candidates"] == "gold boxes"
    assert "no --candidates were given: the gold boxes serve as candidates" in capsys.readouterr().out
    candidates = tmp_path / "c.jsonl"
    candidates.write_text(json.dumps({"id": "2", "boxes": [WALL]}))
    result = score(corpus, predictions, "--protocol=hindex", f"--candidates={candidates}")
    assert result["candidates"] == "given"
    assert result["candidate_boxes"] == {"recall": 0.0, "support": 1}
    assert result["gmner"]["f1"] == 0.0
    printed = capsys.readouterr().out
    assert "recall 0.00, support 1" in printed and "serve as candidates" not in printed
    candidates.write_text(json.dumps({"id": "2", "boxes": [WALL, HAND]}))
    result = score(corpus, predictions, f"--candidates={candidates}")  # the paper's rule does without, but tells recall
    assert result["candidate_boxes"] == {"recall": 100.0, "support": 1} and "candidates" not in result


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ('{"id": "2", "boxes": [[1, 2, 3]]}', [], "c.jsonl:1: box 1 is [1, 2, 3]; expected [x1, y1, x2, y2]"),
        ('{"id": "77", "boxes": []}', [], "not one id of the candidates is one of the split's"),
        ('{"id": "2", "entities": []}', [], 'c.jsonl:1: expected {"id": "...", "boxes"'),
    ],
)
def test_bad_candidates(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, arguments: list[str], said: str
) -> None:
    predictions, candidates = write(tmp_path / "p.jsonl", PREDICTED), tmp_path / "c.jsonl"
    candidates.write_text(text)
    assert main([f"--gold={corpus}", f"--predictions={predictions}", f"--candidates={candidates}"]) == 1
    assert said in capsys.readouterr().err


def test_a_protocol_needs_boxes(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "xml" / "2.xml").unlink()
    predictions = write(tmp_path / "p.jsonl", PREDICTED)
    assert "gmner" not in score(corpus, predictions)
    assert main([f"--gold={corpus}", f"--predictions={predictions}", "--protocol=unco"]) == 1
    assert "tweets has no boxes: --protocol and --candidates are for grounded entities" in capsys.readouterr().err


def test_gold_in_the_format(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    assert main([f"--gold={corpus}", f"--write-gold={path}"]) == 0
    first = json.loads(path.read_text().splitlines()[0])["entities"][0]
    assert (first["box"], first["boxes"]) == (FACE, [FACE, HAND])
    f1 = {protocol: score(corpus, path, f"--protocol={protocol}")["gmner"]["f1"] for protocol in PROTOCOLS}
    assert f1 == {"paper": 100.0, "riveg": 100.0, "hindex": 100.0, "mqspn": 85.71, "unco": 85.71}


def test_gold_of_the_real_corpus(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("needs data/twitter_gmner")
    path = tmp_path / "gold.jsonl"
    assert main([f"--gold={DATA}", f"--write-gold={path}"]) == 0
    found = {protocol: score(DATA, path, f"--protocol={protocol}") for protocol in PROTOCOLS}
    for protocol in ("paper", "riveg", "hindex"):
        assert found[protocol]["gmner"] == {"precision": 100.0, "recall": 100.0, "f1": 100.0, "support": 2543}
    paper = found["paper"]
    assert (paper["groundable"]["support"], paper["ungroundable"]["support"]) == (1046, 1497)
    assert paper["always_none"]["recall"] == round(100 * 1497 / 2543, 2)
    entities = [item for line in path.read_text().splitlines() for item in json.loads(line)["entities"]]
    distinct = sum(len({tuple(box) for box in item["boxes"]}) for item in entities)
    assert found["unco"]["gmner"]["support"] == 1497 + distinct  # a tuple for each box
    assert found["unco"]["gmner"]["precision"] == 100.0
    assert 98 < found["mqspn"]["gmner"]["precision"] < 100  # some boxes are those of two names, and one name gets them


def test_riveg_matches_over_all_sentences_of_an_image(corpus: Path, tmp_path: Path) -> None:
    """Even where they are not scored together: a name found in one of them is found."""
    with (corpus / "test.txt").open("a") as file:
        file.write("\nIMGID:3\nthe\tO\nReds\tO\n")
    found = {"2": [(0, 1, "PER", FACE), (2, 3, "LOC", None)], "3#2": [(1, 2, "ORG", None)]}
    predictions = write(tmp_path / "predictions.jsonl", found)
    assert score(corpus, predictions)["gmner"]["f1"] == 66.67
    assert score(corpus, predictions, "--protocol=riveg")["gmner"]["f1"] == 100
