"""What a recipe reads from a user's own data: splits without gold or without dev, types, images, order of objects."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict
from tiny_recipe import write_world

from scanner_jax import stages
from scanner_jax.files import read_json_lines
from scanner_jax.inputs import InputError, open_inputs
from scanner_jax.metrics import metrics_table
from scanner_jax.models import init_detector, init_recognizer
from scanner_jax.recipe import recipe_steps, run_recipe
from scanner_jax.runs import Run
from scanner_jax.store import objects_value, write_kind
from scanner_jax.types import ImageObject


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_encoder) -> ConfigDict:
    """configs/own.py, shrunk, over an invented corpus with images."""
    folder = tmp_path_factory.mktemp("world")
    small = write_world(folder, tiny_encoder)
    path = Path(__file__).parent.parent / "configs" / "own.py"
    spec = importlib.util.spec_from_file_location("own", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    for key in ("corpus", "encoder", "folds"):
        config[key] = small[key]
    config.epochs.update(dict.fromkeys(config.epochs, 1))
    config.detector.learning_rate = config.recognizer.learning_rate = 1e-2
    config.recognizer.max_tokens = 64
    return config


def changed(world: ConfigDict, corpus: Path, **values) -> ConfigDict:
    copy = world.copy_and_resolve_references()
    copy.unlock()
    copy.update_from_flattened_dict({name.replace("__", "."): value for name, value in values.items()})
    copy.corpus = str(corpus)
    return copy.lock()


def copied(world: ConfigDict, folder: Path, **change) -> Path:
    """The corpus with each named split's text changed; None leaves the split out."""
    folder.mkdir()
    for split in ("train", "valid", "test"):
        edit = change.get(split, str)
        if edit is not None:
            (folder / f"{split}.txt").write_text(edit((Path(world.corpus) / f"{split}.txt").read_text()))
    return folder


def words_alone(text: str) -> str:
    return re.sub(r"\t.*", "", text)


def without_images(text: str) -> str:
    return re.sub(r"IMGID:.*\n", "", text)


def untrained_detector(detection, *, encoder_params, **rest):
    return init_detector(detection.encoder, encoder_params, jax.random.key(0))


def untrained_recognizer(recognition, *, encoder_params, **rest):
    return init_recognizer(recognition.encoder, encoder_params, jax.random.key(0), num_types=len(recognition.classes))


def test_a_split_without_gold_is_predicted_and_never_scored(world, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "train_detector", untrained_detector)  # what is learned does not matter here
    monkeypatch.setattr(stages, "train_recognizer", untrained_recognizer)
    corpus = copied(world, tmp_path / "mine", test=words_alone)
    write_kind(
        tmp_path / "store",
        "objects",
        [(str(number), objects_value([ImageObject((0.0, 0.0, 4.0, 4.0), "man", 0.9)])) for number in range(30)],
        {},
    )
    config = changed(world, corpus, knowledge__use_objects=True, knowledge__store=str(tmp_path / "store"))
    inputs = open_inputs(config, prepared=tmp_path / "prepared")
    assert inputs.scored == ("dev",) and set(inputs.evaluated) == {"dev", "test"}
    run = Run(config=config, inputs=inputs, root=tmp_path / "phases")
    metrics = run_recipe(run)
    for stage in ("detector", "recognizer", "detector_teacher", "recognizer_teacher"):
        assert metrics[stage]["test"] is None
        assert metrics[stage]["dev"] is not None
    count = metrics["recognizer"]["dev"]["candidates"]["object_order"]["detector score"]
    assert f"object_order   detector score {count}" in re.sub(" {4,}", "   ", metrics_table(metrics))
    phases = {name: step.phase.folder(run.root) for name, step in recipe_steps(run).items()}
    assert json.loads((phases["candidates"] / "result.json").read_text())["test"] is None
    for split in ("dev", "test"):
        predictions = read_json_lines(phases["recognizer-student"] / f"{split}-predictions.jsonl")
        assert [record["id"] for record in predictions] == [example.id for example in inputs.evaluated[split]]


def test_a_dev_split_without_gold_selects_nothing(world, tmp_path, caplog):
    corpus = copied(world, tmp_path / "mine", valid=words_alone)
    with caplog.at_level("INFO"):
        inputs = open_inputs(changed(world, corpus), prepared=tmp_path / "prepared")
    assert inputs.dev is None and inputs.scored == ("test",)
    assert set(inputs.evaluated) == {"dev", "test"}  # it is predicted all the same
    assert "dev has words alone" in caplog.text and "last epoch" in caplog.text


def test_a_missing_dev_split_selects_nothing(world, tmp_path, caplog):
    corpus = copied(world, tmp_path / "mine", valid=None)
    with caplog.at_level("INFO"):
        inputs = open_inputs(changed(world, corpus), prepared=tmp_path / "prepared")
    assert inputs.dev is None and set(inputs.evaluated) == {"test"} == set(inputs.scored)
    assert "no dev split" in caplog.text and "last epoch" in caplog.text


def test_dev_selects_where_it_has_gold(world, tmp_path):
    inputs = open_inputs(changed(world, Path(world.corpus)), prepared=tmp_path / "prepared")
    assert inputs.dev == inputs.evaluated["dev"] == tuple(inputs.corpus.splits["dev"])
    both = open_inputs(changed(world, Path(world.corpus), train_on=("train", "dev")), prepared=tmp_path / "prepared")
    assert both.dev is None and set(both.evaluated) == {"test"}
    assert len(both.training) == len(inputs.training) + len(inputs.dev)


@pytest.mark.parametrize("change", [words_alone, None], ids=["words alone", "missing"])
def test_dev_without_gold_cannot_be_trained_on(world, tmp_path, change):
    config = changed(world, copied(world, tmp_path / "mine", valid=change), train_on=("train", "dev"))
    with pytest.raises(InputError, match=r"train_on=\('train', 'dev'\): .*dev.*leave dev out"):
        open_inputs(config, prepared=tmp_path / "prepared")


def test_a_training_split_without_entities_is_refused(world, tmp_path):
    corpus = copied(world, tmp_path / "mine", train=lambda text: re.sub(r"\t.*", "\tO", text))
    with pytest.raises(InputError, match="no entity to learn from in train"):
        open_inputs(changed(world, corpus), prepared=tmp_path / "prepared")


def test_types_are_held_to_the_configs_list(world, tmp_path):
    corpus = copied(world, tmp_path / "mine", train=lambda text: text.replace("B-ORG", "B-OGR", 1))
    accepted = open_inputs(changed(world, corpus), prepared=tmp_path / "prepared")
    assert "OGR" in accepted.corpus.types
    config = changed(world, corpus, types=("LOC", "ORG", "PER"))
    with pytest.raises(InputError, match=r"types=\('LOC', 'ORG', 'PER'\): .* has others as well \(OGR 1\)"):
        open_inputs(config, prepared=tmp_path / "prepared")


def test_knowledge_of_images_needs_images(world, tmp_path):
    change = dict.fromkeys(("train", "valid", "test"), without_images)
    corpus = copied(world, tmp_path / "mine", **change)
    assert open_inputs(changed(world, corpus), prepared=tmp_path / "prepared").corpus.splits["train"]
    with pytest.raises(InputError) as raised:
        open_inputs(
            changed(world, corpus, knowledge__use_captions=True, knowledge__use_objects=True),
            prepared=tmp_path / "prepared",
        )
    assert "use_captions=True: no sentence" in str(raised.value) and "use_objects=True: no sentence" in str(
        raised.value
    )


def test_awp_over_embeddings_is_refused_with_the_vocabulary_in_use(world, tmp_path):
    both = {"detector__awp_tensors": ("kernel", "embedding")}
    config = changed(world, Path(world.corpus), **both)
    with pytest.raises(InputError, match=r"detector.awp_tensors=.*set execution.used_vocabulary=False"):
        open_inputs(config, prepared=tmp_path / "prepared")
    config = changed(world, Path(world.corpus), execution__used_vocabulary=False, **both)
    open_inputs(config, prepared=tmp_path / "prepared")


def test_a_folder_of_images_that_is_none_is_refused(world, tmp_path):
    config = changed(world, Path(world.corpus), images=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="images=.*nowhere: no such folder; None takes images/ in the corpus"):
        open_inputs(config, prepared=tmp_path / "prepared")
