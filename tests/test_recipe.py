"""The whole recipe on a tiny corpus and a tiny encoder, and what makes a phase run again."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import tiny_recipe
from ml_collections import ConfigDict
from tiny_recipe import write_world

from scanner_jax import evaluate, phases, stages
from scanner_jax.checkpoint import restore_params
from scanner_jax.corpora import read_corpus
from scanner_jax.files import read_json_lines
from scanner_jax.inputs import InputError, open_inputs
from scanner_jax.recipe import recipe_steps, run_recipe
from scanner_jax.report import write_report
from scanner_jax.runs import Run, prompted_with_knowledge, recognition_of
from scanner_jax.settings import paper_settings
from scanner_jax.stages import fold_of
from scanner_jax.store import write_kind
from scanner_jax.types import Example


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_encoder) -> ConfigDict:
    return write_world(tmp_path_factory.mktemp("world"), tiny_encoder)


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    inputs = open_inputs(world, prepared=folder / "prepared")
    run = Run(config=world, inputs=inputs, root=folder / "phases")
    return folder, inputs, run_recipe(run)


def changed(world: ConfigDict, **values) -> ConfigDict:
    copy = world.copy_and_resolve_references()
    copy.unlock()
    for name, value in values.items():
        copy.update_from_flattened_dict({name.replace("__", "."): value})
    return copy


def hashes(config, inputs):
    steps = recipe_steps(Run(config=config, inputs=inputs, root=Path()))
    return {name: step.phase.hash for name, step in steps.items()}


def test_metrics_have_the_documented_form(finished):
    _, inputs, metrics = finished
    assert set(metrics) == {"detector", "recognizer", "detector_teacher", "recognizer_teacher"}
    prf = {"precision", "recall", "f1", "support"}
    assert set(metrics["detector"]["test"]) == set(metrics["detector"]["dev"]) == prf
    test = metrics["recognizer"]["test"]
    assert set(test) == {"micro", "per_type", "seen", "unseen", "candidates"}
    gold = sum(len(example.entities) for example in inputs.test)
    assert test["micro"]["support"] == gold == test["seen"]["support"] + test["unseen"]["support"]
    assert sum(scores["support"] for scores in test["per_type"].values()) == gold
    assert str(inputs.encoder.folder) not in json.dumps(metrics)


def test_candidates_are_gold_and_mistakes_in_training_and_predictions_elsewhere(finished, world):
    folder, inputs, _ = finished
    run = Run(config=world, inputs=inputs, root=folder / "phases")
    listed = {name: step.phase for name, step in recipe_steps(run).items()}
    candidates = listed["candidates"].folder(folder / "phases")
    gold = {(example.id, entity.start, entity.end) for example in inputs.training for entity in example.entities}
    out_of_fold = {
        (record["id"], *span)
        for name in ("detector-fold-0", "detector-fold-1")
        for record in read_json_lines(listed[name].folder(folder / "phases") / "held-out-spans.jsonl")
        for span in record["spans"]
    }
    found = {(line["id"], *span) for line in read_json_lines(candidates / "train.jsonl") for span in line["spans"]}
    assert found == gold | out_of_fold
    student = listed["detector-student"].folder(folder / "phases")
    assert read_json_lines(candidates / "test.jsonl") == read_json_lines(student / "test-spans.jsonl")
    held_out = [
        {record["id"] for record in read_json_lines(listed[name].folder(folder / "phases") / "held-out-spans.jsonl")}
        for name in ("detector-fold-0", "detector-fold-1")
    ]
    assert not held_out[0] & held_out[1]
    assert held_out[0] | held_out[1] == {example.id for example in inputs.training}


def test_nothing_runs_twice_and_the_report_is_equal(finished, world, tmp_path, monkeypatch):
    folder, inputs, metrics = finished
    monkeypatch.setattr(phases, "write_json", lambda *_: pytest.fail("a finished phase was run again"))
    again = run_recipe(Run(config=world, inputs=inputs, root=folder / "phases"))
    assert again == metrics
    table = write_report(tmp_path / "report", Run(config=world, inputs=inputs, root=folder / "phases"), again)
    assert (tmp_path / "report" / "metrics.txt").read_text() == table
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == metrics
    assert "recognizer test micro" in table


def test_the_report_can_be_checked_against_the_corpus(finished, world, tmp_path):
    folder, inputs, metrics = finished
    write_report(tmp_path, Run(config=world, inputs=inputs, root=folder / "phases"), metrics)
    score = ["--gold", world.corpus, "--json", str(tmp_path / "scores.json"), "--predictions"]
    for split, name in (("test", "predictions.jsonl"), ("dev", "predictions-dev.jsonl")):
        assert evaluate.main([*score, str(tmp_path / name), "--split", split]) == 0
        scores = json.loads((tmp_path / "scores.json").read_text())
        for key in ("micro", "per_type", "seen", "unseen"):
            assert scores[key] == metrics["recognizer"][split][key]
    errors = [record["kind"] for record in read_json_lines(tmp_path / "errors.jsonl")]
    gold, right = inputs.corpus.split_fingerprints["test"], metrics["recognizer"]["test"]["micro"]
    missing = len(errors) - errors.count("spurious")
    assert round(100 * (1 - missing / sum(gold.entities.values())), 2) == right["recall"]


def test_the_report_tells_what_prompts_were_told_and_what_teachers_doubt(finished, world, tmp_path):
    folder, inputs, metrics = finished
    write_report(tmp_path, Run(config=world, inputs=inputs, root=folder / "phases"), metrics)
    prompts = read_json_lines(tmp_path / "prompts.jsonl")
    count = metrics["recognizer"]["test"]["candidates"]["count"]
    assert len(prompts) == count["entities"] + count["non_entities"]
    predicted = {
        (record["id"], entity["start"], entity["end"]): (entity["type"], entity["score"])
        for record in read_json_lines(tmp_path / "predictions.jsonl")
        for entity in record["entities"]
    }
    for record in prompts:
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        wanted = predicted.pop((record["id"], record["start"], record["end"]), ("non-entity", None))
        assert record["predicted"] == wanted[0]
        assert wanted[1] is None or record["probabilities"][wanted[0]] == pytest.approx(wanted[1], abs=2e-6)
        assert record["caption"] in ("", "a photo of a place")
    found = metrics["recognizer"]["test"]["candidates"]["wikipedia_found_by"]
    assert found == Counter(record["wikipedia_how"] for record in prompts if record["wikipedia"])
    assert not predicted and {record["wikipedia"] for record in prompts} <= {"", "a person", "a place", "a company"}
    suspects = read_json_lines(tmp_path / "suspect_labels.jsonl")
    words = sum(len(example.words) for example in inputs.training)
    assert sum(record["teacher"] == "detector" for record in suspects) == words
    assert [record["alpha"] for record in suspects] == sorted(record["alpha"] for record in suspects)


def test_candidates_are_counted_by_how_their_page_was_found(finished, world):
    folder, inputs, _ = finished
    run = Run(config=world, inputs=inputs, root=folder / "phases")
    candidates = [(example, entity.span) for example in inputs.training for entity in example.entities]
    prompted = prompted_with_knowledge(run, recognition_of(run), candidates)
    told = stages._candidates_report(prompted)
    with_page = sum(example.surface(span) in ("Ada", "Oslo", "Acme") for example, span in candidates)
    assert told["wikipedia_found_by"] == {"exact": with_page} and with_page
    assert told["with_knowledge_percent"]["wikipedia"] == round(100 * with_page / len(candidates), 2)


def test_trained_parameters_are_kept_without_checkpoints(finished, world):
    folder, inputs, _ = finished
    run = Run(config=world, inputs=inputs, root=folder / "phases")
    student = recipe_steps(run)["recognizer-student"].phase.folder(run.root)
    params = restore_params(student / "params")
    vocabulary = params["encoder"]["embeddings"]["word"]["embedding"].shape[0]
    assert vocabulary == inputs.encoder.config.vocab_size + 1  # the row of <obj>
    assert params["types"]["kernel"].shape == (16, len(inputs.corpus.types) + 1)
    assert not (student / "checkpoints").exists()


def test_a_change_reruns_what_depends_on_it_and_nothing_else(finished, world):
    _, inputs, _ = finished
    before = hashes(world, inputs)

    def rerun(**values):
        after = hashes(changed(world, **values), inputs)
        return {name for name in after if after[name] != before.get(name)}

    recognizers = {"recognizer-teacher", "recognizer-student"}
    assert rerun(seed=2) == set(before)
    assert rerun(detector__learning_rate=0.5) == set(before)
    assert rerun(detector__eval_batch_size=5, recognizer__log_every=1) == set()
    assert rerun(recognizer__max_tokens=40) == recognizers
    assert rerun(recognizer__awp_gamma=0.5) == set()  # AWP is off there
    assert rerun(epochs__detector_student=3) == {"detector-student", "candidates"} | recognizers
    assert rerun(epochs__recognizer_student=3) == {"recognizer-student"}
    assert rerun(tyt__alpha=0.5) == {"detector-student", "candidates"} | recognizers
    assert rerun(tyt__recognizer=False) == {"recognizer-student"}
    assert "recognizer-teacher" not in hashes(changed(world, tyt__recognizer=False), inputs)
    assert "detector-teacher" not in hashes(changed(world, tyt__detector=False), inputs)


def test_how_layers_are_computed_reruns_nothing_but_packing_does(finished, world):
    _, inputs, _ = finished
    before = hashes(world, inputs)
    scanned = changed(world, execution__scan_layers=True, execution__remat="layers", execution__attention="xla")
    assert hashes(scanned, inputs) == before
    packed = hashes(changed(world, recognizer__pack_width=64), inputs)
    assert {name for name in before if before[name] != packed[name]} == {"recognizer-teacher", "recognizer-student"}
    packed = hashes(changed(world, detector__pack_width=48), inputs)
    assert all(before[name] != packed[name] for name in before)


def test_bfloat16_reruns_everything_and_float32_is_no_part_of_a_hash(finished, world):
    """On a CPU "auto" is float32, which hashes have not named since before there was a choice."""
    _, inputs, _ = finished
    before = hashes(world, inputs)
    assert hashes(changed(world, execution__compute_dtype="float32"), inputs) == before
    rounded = changed(world, execution__compute_dtype="bfloat16")
    assert all(before[name] != own for name, own in hashes(rounded, inputs).items())
    for config, named in ((world, False), (rounded, True)):
        steps = recipe_steps(Run(config=config, inputs=inputs, root=Path()))
        trained = [step.phase.config for name, step in steps.items() if name != "candidates"]
        assert {"compute_dtype" in parts for parts in trained} == {named}


def test_other_knowledge_reruns_the_recognizers_only(finished, world, tmp_path):
    _, inputs, _ = finished
    before = hashes(world, inputs)
    for settings in ({"knowledge__use_wikipedia": False}, {"knowledge__wikipedia_lookups": ("exact",)}):
        config = changed(world, **settings)
        other = hashes(config, open_inputs(config, prepared=tmp_path))
        assert {name for name in before if before[name] != other[name]} == {"recognizer-teacher", "recognizer-student"}


@pytest.mark.parametrize(
    ("use_wikipedia", "use_notes", "told"),
    [
        (True, False, "a person a photo of a place"),
        (False, True, "so cold a photo of a place"),
        (True, True, "a person so cold a photo of a place"),
        (False, False, "a photo of a place"),
    ],
    ids=["wikipedia", "notes in its place", "notes beside it", "neither"],
)
def test_notes_stand_in_wikipedias_place_or_beside_it(world, tmp_path, use_wikipedia, use_notes, told):
    """Table 12's settings, by the switches alone: the prompt's end, behind the sentence."""
    store = str(tmp_path / "store")
    shutil.copytree(world.knowledge.store, store)
    corpus = read_corpus(world.corpus)
    candidates = [
        (example, entity.span)
        for example in corpus.splits["train"]
        for entity in example.entities
        if example.surface(entity) == "Ada" and int(example.image_id) % 2 == 0  # it has a page, the image a caption
    ]
    write_kind(store, "notes", [(example.id, {"text": "so cold"}) for example, _ in candidates], {})
    switches = {"knowledge__use_wikipedia": use_wikipedia, "knowledge__use_notes": use_notes}
    config = changed(world, knowledge__store=store, **switches)
    run = Run(config=config, inputs=open_inputs(config, prepared=tmp_path), root=tmp_path)
    recognition = recognition_of(run)
    prompts = prompted_with_knowledge(run, recognition, candidates).prompts
    assert prompts
    for (example, _), prompt in zip(candidates, prompts, strict=True):
        tokens = [recognition.tokenizer.backend.id_to_token(token) for token in prompt.token_ids[1:-1]]
        _, _, behind = " ".join(tokens).partition(f"in this sentence . {example.text}")
        assert behind.strip() == told


def test_train_and_dev_together_leave_dev_null(world, tmp_path):
    config = changed(world, train_on=("train", "dev"), tyt__recognizer=False, tyt__detector=False)
    config.epochs.update(dict.fromkeys(config.epochs, 1))
    inputs = open_inputs(config, prepared=tmp_path / "prepared")
    assert len(inputs.training) == 32
    metrics = run_recipe(Run(config=config, inputs=inputs, root=tmp_path / "phases"))
    assert metrics["detector"]["dev"] is None and metrics["recognizer"]["dev"] is None
    assert metrics["detector_teacher"] is None
    assert metrics["recognizer"]["test"]["micro"]["support"] > 0


def test_folds_are_seeded_by_id():
    examples = [Example(f"id{number}", ("word",)) for number in range(400)]
    folds = [fold_of(example, folds=4, seed=1) for example in examples]
    assert folds == [fold_of(example, folds=4, seed=1) for example in examples]
    assert folds != [fold_of(example, folds=4, seed=2) for example in examples]
    assert all(70 < folds.count(fold) < 130 for fold in range(4))


def test_all_missing_inputs_are_listed_at_once(tmp_path):
    config = paper_settings()
    config.update(corpus=str(tmp_path / "nowhere"), encoder=str(tmp_path / "no-encoder"), folds=1)
    config.knowledge.update(store=str(tmp_path / "no-store"), wikipedia_index=str(tmp_path / "no-index"))
    config.knowledge.update(
        clip_template="no place", wikipedia_lookups=("exact", "fuzzy"), wikipedia_fulltext_score=8.0
    )
    config.epochs.recognizer_student = 0
    config.detector.update(log_every=0, learning_rate=-1.0)
    config.tyt.alpha = 2.0
    config.execution.remat = "all"
    with pytest.raises(InputError) as caught:
        open_inputs(config, prepared=tmp_path)
    message = str(caught.value)
    wanted = "nowhere no-encoder no-store no-index folds=1 clip_template train.txt alpha=2.0 recognizer_student=0"
    wanted += " fuzzy fulltext_score=8.0 detector.log_every=0 learning_rate=-1.0 execution"
    for word in (*wanted.split(), "store import captions"):
        assert word in message


def test_boxes_cannot_be_learned_from_a_corpus_without_boxes(world, tmp_path):
    with pytest.raises(InputError, match="grounding_weight=1"):
        open_inputs(changed(world, recognizer__grounding_weight=1.0), prepared=tmp_path)


def test_an_encoder_in_pieces_is_told_at_once(world, tiny_encoder, tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(world.encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 9}))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        open_inputs(changed(world, encoder=str(folder)), prepared=tmp_path)
    assert "vocab_size of 9" in str(caught.value) and "model.safetensors" in str(caught.value)


def test_command_stops_after_a_phase_and_refuses_unknown_ones(world, tmp_path):
    command = [*tiny_recipe.command(world, tmp_path), "--config.epochs.detector_teacher=1"]
    run = subprocess.run([*command, "--until=detector-teacher"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "detector_teacher test" in run.stdout
    metrics = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert metrics["detector"] is None and metrics["detector_teacher"]["test"]["support"] > 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["epochs"]["detector_teacher"] == 1 and record["corpus"]["variant"]
    wrong = subprocess.run([*command, "--until=nonsense"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "detector-fold-0" in wrong.stderr and "Traceback" not in wrong.stderr
    unknown = subprocess.run([*command, "--config.detector.lr=1"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 1 and "'lr'" in unknown.stderr and "Traceback" not in unknown.stderr
    report = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert report == metrics  # a command that fails leaves the report alone
