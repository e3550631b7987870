"""The command `predict`: one text, files in and out in every format, resuming, and errors in words."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from scanner_jax import evaluate, export, predict
from scanner_jax.files import read_json, read_json_lines, write_json_lines
from scanner_jax.predictions import read_predictions
from scanner_jax.scanner import Scanner
from scanner_jax.sentences import read_sentences

TEXTS = ["saw Ada again today", "Lake Mira, and Quito are great!", "why is Zen Bank so cold?", "nothing here", "Oslo"]


@pytest.fixture(scope="module")
def model(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.export(finished_run, tmp_path_factory.mktemp("exported") / "model", weights="safetensors")


@pytest.fixture(scope="module")
def run_config(finished_run: Path) -> dict[str, Any]:
    return dict(read_json(finished_run / "run.json")["config"])


def command(model: Path, *arguments: object) -> int:
    return predict.main(["--model", str(model), *map(str, arguments)])


def test_one_text(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(model, "--text", TEXTS[1]) == 0
    found = Scanner.from_pretrained(model).predict(TEXTS[1])
    assert found and capsys.readouterr().out.splitlines() == [str(entity) for entity in found]
    assert command(model, "--text", " ") == 0
    said = capsys.readouterr()
    assert said.out == "" and "no entity found" in said.err


def test_plain_lines(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "tweets.txt", tmp_path / "out.jsonl"
    source.write_text("\n".join([TEXTS[0], "", *TEXTS[1:]]), encoding="utf-8")
    assert command(model, "--input", source, "--output", out) == 0
    assert f"5 sentences -> {out}; " in capsys.readouterr().out
    lines = read_json_lines(out)
    assert [line["id"] for line in lines] == ["1", "3", "4", "5", "6"]
    assert [line["text"] for line in lines] == TEXTS
    with Scanner.from_pretrained(model) as scanner:
        for line, entities in zip(lines, scanner.predict_batch(TEXTS), strict=True):
            places = [(item["start_char"], item["end_char"], item["text"], item["type"]) for item in line["entities"]]
            assert places == [(entity.start, entity.end, entity.text, entity.label) for entity in entities]
    assert set(read_predictions(out)) == {"1", "3", "4", "5", "6"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "tweets.txt"]


def test_a_corpus_is_predicted_for_evaluate(model: Path, run_config: dict[str, Any], tmp_path: Path) -> None:
    corpus, out = run_config["corpus"], tmp_path / "out.jsonl"
    knowledge = ["--store", run_config["knowledge"]["store"], "--wikipedia", run_config["knowledge"]["wikipedia_index"]]
    assert command(model, "--input", corpus, "--split", "dev", "--output", out, *knowledge) == 0
    scores = tmp_path / "scores.json"
    arguments = ["--gold", corpus, "--split", "dev", "--predictions", str(out), "--json", str(scores)]
    assert evaluate.main(arguments) == 0
    assert read_json(scores)["gold"]["sentences"] == len(read_json_lines(out))
    assert any(item["box_score"] is not None for line in read_json_lines(out) for item in line["entities"])


def test_conll_in_and_out(model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.conll", tmp_path / "out.conll"
    source.write_text("IMGID:7\nsaw\tO\nAda\tB-PER\n\nIMGID:8\nOslo\tB-LOC\n")
    assert command(model, "--input", source, "--output", out) == 0
    rows = [line.split("\t") for line in out.read_text().split("\n") if line]
    assert [row[:2] for row in rows] == [["saw", "O"], ["Ada", "B-PER"], ["Oslo", "B-LOC"]]
    assert all(len(row) == 3 for row in rows)
    source.write_text("saw Ada\nOslo, too\n")
    assert command(model, "--input", source, "--input-format", "lines", "--output", out) == 0
    rows = [line.split("\t") for line in out.read_text().split("\n")]
    assert [row[0] for row in rows] == ["saw", "Ada", "", "Oslo", ",", "too", "", ""]
    assert all(len(row) == 2 for row in rows if row[0])


def test_json_lines_with_knowledge(model: Path, tmp_path: Path) -> None:
    objects = [{"box": [1, 2, 30, 40], "label": "person"}]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_json_lines(
        source,
        [
            {"id": "a", "text": TEXTS[1], "knowledge": {"caption": "a photo", "objects": objects}},
            {"words": TEXTS[2].split()},
        ],
    )
    assert command(model, "--input", source, "--output", out) == 0
    first, second = read_json_lines(out)
    assert first["id"] == "a" and second["id"] == "2" and second["words"] == TEXTS[2].split()
    assert all(item["box_score"] is not None for item in first["entities"])
    assert {item["box_score"] for item in second["entities"]} <= {None}


def test_standard_input_and_output(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in (b"saw Ada again\n", b'{"id": "1", "text": "saw Ada again"}\n', b"saw\tO\nAda\tB-PER\nagain\tO\n"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert command(model, "--input", "-") == 0
        assert json.loads(capsys.readouterr().out)["words"] == ["saw", "Ada", "again"]


def test_a_stopped_run_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, whole = tmp_path / "in.txt", tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    source.write_text("\n".join(TEXTS))
    monkeypatch.setattr(predict, "AT_ONCE", 2)
    assert command(model, "--input", source, "--output", whole) == 0
    explain, calls = Scanner.explain, []

    def dying(self: Scanner, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(out))
        return explain(self, *arguments, **options)

    monkeypatch.setattr(Scanner, "explain", dying)
    assert command(model, "--input", source, "--output", out) == 1
    assert "No space left" in capsys.readouterr().err and not out.exists()
    (part,) = (tmp_path / "out.jsonl.part").glob("*.jsonl")
    with part.open("a") as file:
        file.write('{"id": "3", "ent')  # as a killed process leaves it
    assert command(model, "--input", source, "--output", out) == 0
    assert "5 sentences" in (said := capsys.readouterr().out) and "2 of them before" in said
    assert out.read_bytes() == whole.read_bytes() and len(calls) == 4
    assert not (tmp_path / "out.jsonl.part").exists()


BAD = [
    (b"[1]", "a JSON list"),
    (b"{", "not JSON"),
    (b'{"txt": "x"}', "unknown field 'txt'"),
    (b'{"id": "x"}', "give a text, or words"),
    (b'{"text": 7}', "text is no string"),
    (b'{"words": "x"}', "expected a list of strings"),
    (b'{"text": "x", "id": "ok"}', "id 'ok' has a line already"),
    (b'{"text": "x", "knowledge": {"captoin": ""}}', "knowledge is not an object"),
    (b'{"text": "x", "knowledge": {"caption": 7}}', "caption is no string"),
    (b'{"text": "x", "knowledge": {"objects": [{"box": [1]}]}}', "an object is not"),
    (b'{"text": "\xff"}', "not UTF-8"),
]


def test_bad_lines_are_reported_by_number(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"id": "ok", "text": "saw Ada"}\n' + b"\n".join(line for line, _ in BAD))
    assert command(model, "--input", source, "--output", out) == 1
    said = capsys.readouterr().err
    for number, (_, problem) in enumerate(BAD, start=2):
        (line,) = [line for line in said.splitlines() if line.startswith(f"{source}:{number}:")]
        assert problem in line
    assert f"{len(BAD)} lines of {source} cannot be read" in said and not out.exists()
    assert command(model, "--input", source, "--output", out, "--bad-lines", "skip") == 0
    assert [line["id"] for line in read_json_lines(out)] == ["ok"]
    assert f"left out: {len(BAD)} lines" in capsys.readouterr().err


def test_half_a_character_is_written_escaped(model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "Ada \\ud83d saw \U0001f642"}\n', encoding="utf-8")
    assert command(model, "--input", source, "--output", out) == 0
    assert read_json_lines(out)[0]["text"] == "Ada \ud83d saw \U0001f642"


def test_what_cannot_be_done_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "half.conll").write_text("Ada\tB-PER\nsaw\n")
    cases = [
        (tmp_path / "none", ["--text", "x"], "no such folder"),
        (model, ["--input", tmp_path / "none.txt"], "none.txt: No such file"),
        (model, ["--input", tmp_path / "empty.txt"], "nothing to predict in it"),
        (model, ["--input", tmp_path / "half.conll"], "half.conll:2"),
        (model, ["--text", "x", "--store", tmp_path / "none"], "knowledge store"),
        (model, ["--text", "x", "--wikipedia", tmp_path / "none"], "Wikipedia index"),
        (model, ["--text", "x", "--expert", "captoins=x"], "no such kind"),
    ]
    for folder, arguments, said in cases:
        assert command(folder, *arguments) == 1
        assert said in capsys.readouterr().err
    for arguments in (
        [],
        ["--text", "x", "--draw", "x.png"],
        ["--text", "x", "--output", "x"],
        ["--text", "x", "--expert", "x"],
    ):
        with pytest.raises(SystemExit, match="2"):
            command(model, *arguments)


def test_images_of_a_folder_go_to_their_sentences(tmp_path: Path) -> None:
    (tmp_path / "7.jpg").touch()
    source = tmp_path / "in.conll"
    source.write_text("IMGID:7\nAda\n\nIMGID:8\nOslo\n")
    read = read_sentences(source, source.read_bytes(), images=tmp_path)
    assert [sentence.request.image for sentence in read.sentences] == [tmp_path / "7.jpg", None]
    data = b'{"text": "x", "image": "7.jpg"}'
    (sentence,) = read_sentences(tmp_path / "in.jsonl", data, images=tmp_path).sentences
    assert sentence.request.image == tmp_path / "7.jpg"
