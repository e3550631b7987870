"""Exported models: whole, self-contained, the same in every format, and refused in words where they are not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
import torchvision_shim

from scanner_jax import checkpoint, export
from scanner_jax.detection import tag
from scanner_jax.exported import FORMAT, WEIGHTS, ExportError, open_exported
from scanner_jax.files import read_json, write_checksums, write_json
from scanner_jax.recognition import judge, write_prompts
from scanner_jax.torch_folders import EXAMPLE
from scanner_jax.types import Example, ImageObject, Knowledge, Span

ROOT = Path(__file__).parent.parent
EXAMPLES = [Example("1", ("saw", "Lake", "Mira", "again")), Example("2", ("Ada", "and", "Oslo", "are", "great"))]
KNOWN = Knowledge(caption="a photo of a place", objects=(ImageObject((0, 0, 9, 9), "person", 0.5, "a person"),))


@pytest.fixture(scope="session")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run exported in every format."""
    folder = tmp_path_factory.mktemp("exported")
    return {weights: export.export(finished_run, folder / weights, weights=weights) for weights in WEIGHTS}


def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_format_holds_the_students_parameters(
    exported: dict[str, Path], finished_run: Path, weights: str
) -> None:
    found = open_exported(exported[weights])
    phases = read_json(finished_run / "run.json")["phases"]
    for stage, params in (("detector", found.detector), ("recognizer", found.recognizer)):
        trained = checkpoint.restore_params(Path(phases[f"{stage}-student"]) / "params")
        jax.tree.map(np.testing.assert_array_equal, params, trained)


def test_the_description_says_what_was_trained(exported: dict[str, Path], finished_run: Path) -> None:
    found = read_json(exported["orbax"] / "scanner.json")
    record, metrics = read_json(finished_run / "run.json"), read_json(finished_run / "report" / "metrics.json")
    assert found["types"] == ["LOC", "ORG", "PER"] and found["grounded"] and found["max_objects"] == 2
    assert found["box_threshold"] == metrics["recognizer"]["box_threshold"] and found["scores"] == metrics
    assert found["config"]["recognizer"] == record["config"]["recognizer"]
    assert found["config"]["corpus"] == Path(record["config"]["corpus"]).name
    assert found["config"]["knowledge"] == record["config"]["knowledge"] | {
        name: Path(record["config"]["knowledge"][name]).name for name in ("store", "wikipedia_index")
    }
    assert found["encoder"] == found["config"]["encoder"] == Path(record["config"]["encoder"]).name
    assert str(Path(record["config"]["corpus"]).parent) not in (exported["orbax"] / "scanner.json").read_text()
    assert found["corpus"]["sha256"] == record["corpus"]["sha256"]
    told = {kind: found["knowledge"][kind] for kind in ("captions", "objects", "notes", "wikipedia", "clip_order")}
    assert told == {"captions": True, "objects": True, "notes": False, "wikipedia": True, "clip_order": False}
    assert found["experts"]["captions"]["importer"] == "test"
    card = (exported["orbax"] / "README.md").read_text()
    assert "unknown variant" in card and "recognizer test micro" in card and "license: other" in card
    assert EXAMPLE not in card and EXAMPLE in (exported["torch"] / "README.md").read_text()


def test_torch_gives_the_same_logits(exported: dict[str, Path], transformers: ModuleType) -> None:
    """The model card's own code, on the very token ids."""
    import torch

    there: dict[str, Any] = {}
    exec(EXAMPLE, there)
    model = open_exported(exported["safetensors"])
    for example, logits in zip(EXAMPLES, tag(model.detection, model.detector, EXAMPLES), strict=True):
        (words,) = model.detection.tokenizer.words([example.words])
        tokenizer = model.detection.tokenizer
        ids = [tokenizer.start, *(token for word in words for token in word), tokenizer.end]
        firsts = np.cumsum([1, *map(len, words)])[:-1]
        found = there["detector_logits"](exported["torch"], torch.tensor([ids]))[0].numpy()
        np.testing.assert_allclose(found[firsts], logits, atol=2e-5)
    prompted = write_prompts(model.recognition, [(EXAMPLES[0], Span(1, 3)), (EXAMPLES[1], Span(0, 1))], [KNOWN] * 2)
    judgement = judge(model.recognition, model.recognizer, prompted)
    for prompt, types, overlaps in zip(prompted.prompts, *judgement, strict=True):
        ids = torch.tensor([prompt.token_ids])
        found_types, found_overlaps = there["recognizer_logits"](
            exported["torch"], ids, prompt.mask_position, list(prompt.object_positions)
        )
        np.testing.assert_allclose(found_types.numpy(), types, atol=2e-5)
        np.testing.assert_allclose(found_overlaps.numpy(), overlaps[:1], atol=2e-5)


def test_transformers_tokenizer_and_labels(exported: dict[str, Path], transformers: ModuleType) -> None:
    folder = exported["torch"] / "detector"
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.id2label == {0: "O", 1: "B-ENTITY", 2: "I-ENTITY"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = open_exported(exported["torch"]).detection.tokenizer
    found = tokenizer(["saw", "Lake", "Mira"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    assert found == [token for word in next(ours.words([["saw", "Lake", "Mira"]])) for token in word]
    assert tokenizer.mask_token_id == ours.mask


def test_it_opens_in_a_fresh_process_without_the_run(exported: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(exported["orbax"], tmp_path)
    code = (
        "import socket, sys\n"
        "socket.socket.connect = None\n"
        "from scanner_jax.exported import open_exported\n"
        "print(open_exported(sys.argv[1]).recognition.classes)\n"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "('LOC', 'ORG', 'PER', 'non-entity')"


def test_the_torch_format_opens_in_a_fresh_process_without_this_package(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    """The model card's code alone, in a folder that was moved."""
    moved, script = copied(exported["torch"], tmp_path), tmp_path / "script.py"
    card = "".join(re.findall(r"```python\n(.*?)```", (moved / "README.md").read_text(), re.DOTALL))
    assert EXAMPLE in card
    ids = list(range(5, 15))
    script.write_text(
        "import json, socket, sys\n"
        "for name in ('scanner_jax', 'jax', 'flax', 'orbax'):\n"
        "    sys.modules[name] = None\n"
        "socket.socket.connect = None\n"
        f"{EXAMPLE}\n"
        f"types, overlaps = recognizer_logits({str(moved)!r}, torch.tensor([{ids}]), 2, [3])\n"
        f"print(json.dumps([detector_logits({str(moved)!r}, torch.tensor([{ids}])).tolist(), types.tolist()]))\n"
    )
    run = subprocess.run(
        [sys.executable, torchvision_shim.__file__, str(script)], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    tags, types = json.loads(run.stdout.splitlines()[-1])
    model, token_ids = open_exported(exported["torch"]), np.array([ids], np.int32)
    segments, places = np.ones_like(token_ids, bool), (np.array([2], np.int32), np.array([[3]], np.int32))
    expected = model.detection.model.apply({"params": model.detector}, token_ids, segments, deterministic=True)
    np.testing.assert_allclose(tags, expected, atol=2e-5)
    params = {"params": model.recognizer}
    expected, _ = model.recognition.model.apply(params, token_ids, segments, *places, deterministic=True)
    np.testing.assert_allclose(types, expected[0], atol=2e-5)


def _cut(folder: Path) -> None:
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])


def _lose(folder: Path) -> None:
    shutil.rmtree(folder / "recognizer")


def _age(folder: Path) -> None:
    write_json(folder / "scanner.json", read_json(folder / "scanner.json") | {"format": FORMAT + 1})


def _tokenize_otherwise(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["Ada"], vocabulary["Oslo"] = vocabulary["Oslo"], vocabulary["Ada"]
    write_json(folder / "tokenizer.json", content)
    write_checksums(folder)


def _other_types(folder: Path) -> None:
    write_json(folder / "scanner.json", read_json(folder / "scanner.json") | {"types": ["PER"]})
    write_checksums(folder)


def _misspell(folder: Path) -> None:
    write_json(folder / "scanner.json", read_json(folder / "scanner.json") | {"types": "PER", "max_tokens": "9"})


def _forget(folder: Path) -> None:
    (folder / "checksums.json").unlink()


def _halve(folder: Path) -> None:
    path = folder / "scanner.json"
    path.write_text(path.read_text()[:100])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "cut short or was changed"),
        (_lose, "cut short or was changed: recognizer/"),
        (_forget, "cut short or was changed: checksums.json"),
        (_halve, "scanner.json is damaged or cut short"),
        (_age, f"newer format, {FORMAT + 1}, and this version reads {FORMAT}; upgrade"),
        (_tokenize_otherwise, "not the tokenizer that this model was trained with"),
        (_other_types, "the weights do not fit"),
        (_misspell, "types, max_tokens: missing, or not of the kind"),
    ],
)
def test_what_is_not_whole_is_refused(
    exported: dict[str, Path], tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = copied(exported["orbax"], tmp_path)
    damage(folder)
    with pytest.raises(ExportError, match=said):
        open_exported(folder)


def test_folders_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such folder"):
        open_exported(tmp_path / "none")
    with pytest.raises(ExportError, match="no scanner.json in it"):
        open_exported(tmp_path)


def test_the_command_says_what_it_made(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert export.main([str(finished_run), str(out), "--license", "cc-by-4.0"]) == 0
    assert "MB; README.md in it is the model card" in capsys.readouterr().out
    assert "license: cc-by-4.0" in (out / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert export.main([str(finished_run), str(out)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_runs_that_cannot_be_exported(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="give the folder that --workdir named"):
        export.export(tmp_path, tmp_path / "out")
    workdir = tmp_path / "run"
    (workdir / "report").mkdir(parents=True)
    shutil.copy(finished_run / "report" / "metrics.json", workdir / "report")
    record = read_json(finished_run / "run.json")
    write_json(workdir / "run.json", record | {"corpus": {}})
    with pytest.raises(ExportError, match="give the training's command again"):
        export.export(workdir, tmp_path / "out")
    write_json(workdir / "run.json", record | {"phases": {}})
    with pytest.raises(ExportError, match="phase detector-student is not finished"):
        export.export(workdir, tmp_path / "out")
    write_json(workdir / "run.json", record | {"config": record["config"] | {"encoder": "models/none"}})
    with pytest.raises(ExportError, match="the encoder that the run began with"):
        export.export(workdir, tmp_path / "out")


def test_a_run_that_was_moved_is_found(finished_run: Path, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(finished_run, tmp_path / "moved"))
    record = read_json(workdir / "run.json")
    record["phases"] = {name: str(tmp_path / "gone" / Path(folder).name) for name, folder in record["phases"].items()}
    write_json(workdir / "run.json", record)
    assert open_exported(export.export(workdir, tmp_path / "out")).recognition.types == ("LOC", "ORG", "PER")
