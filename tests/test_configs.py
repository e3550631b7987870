"""The files in configs/: every variant loads, is locked, and holds the paper's numbers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parent.parent / "configs"


def load(name: str, *variant: str):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*variant)


@pytest.mark.parametrize(
    ("name", "encoder", "stage_1", "stage_2"),  # epochs, batch size
    [
        ("conll03", "roberta-large", (5, 8), (20, 8)),
        ("mner15", "xlm-roberta-large", (10, 4), (5, 8)),
        ("mner17", "xlm-roberta-large", (10, 8), (7, 8)),
        ("gmner", "xlm-roberta-large", (10, 8), (5, 8)),
    ],
)
def test_the_papers_hyperparameters(name, encoder, stage_1, stage_2):
    config = load(name)
    assert config.encoder == encoder
    assert {config.epochs[f"detector_{role}"] for role in ("teacher", "folds", "student")} == {stage_1[0]}
    assert {config.epochs[f"recognizer_{role}"] for role in ("teacher", "student")} == {stage_2[0]}
    assert (config.detector.batch_size, config.recognizer.batch_size) == (stage_1[1], stage_2[1])
    assert config.recognizer.max_objects == {"gmner": 18}.get(name, 15)
    assert config.detector.awp and not config.recognizer.awp
    assert config.recognizer.weight_decay == 0.01
    assert config.tyt.detector and config.tyt.recognizer == (name != "conll03")
    assert config.folds == 4 and config.is_locked


def test_conll_trains_on_dev_too_unless_tuning():
    assert load("conll03").train_on == ("train", "dev")
    assert load("conll03", "tune").train_on == ("train",)


def test_own_data_needs_nothing_but_a_corpus():
    config = load("own")
    assert config.corpus is None and config.types == () and config.train_on == ("train",)
    assert config.encoder == "xlm-roberta-large" and config.is_locked
    assert not any(config.knowledge[f"use_{kind}"] for kind in ("wikipedia", "captions", "objects", "notes"))


@pytest.mark.parametrize(
    ("name", "fourth"),
    [("conll03", {"MISC"}), ("mner15", {"OTHER"}), ("mner17", {"MISC", "OTHER"}), ("gmner", {"OTHER"})],
)
def test_the_papers_corpora_name_their_types(name, fourth):
    assert set(load(name).types) == {"PER", "LOC", "ORG"} | fourth


def test_small_variants_differ_in_the_recognizer_only():
    small, without = load("mner15", "small"), load("mner15", "small-without-knowledge")
    assert small.encoder == without.encoder == "models/granite-30m-english"
    assert small.detector == without.detector
    assert small.knowledge.use_notes and small.knowledge.use_captions and small.knowledge.use_wikipedia
    assert not any(without.knowledge[f"use_{kind}"] for kind in ("wikipedia", "captions", "objects", "notes"))


def test_gmner_is_grounded_and_the_others_are_not():
    for variant in ("", "small"):
        config = load("gmner", variant)
        assert config.recognizer.grounding_weight == 1.0 and config.knowledge.use_objects
        assert config.recognizer.max_objects == 18
        assert config.knowledge.use_clip_order == (variant == "")
    assert config.knowledge.use_notes and config.knowledge.use_captions
    assert {load(name).recognizer.grounding_weight for name in ("conll03", "mner15", "mner17", "own")} == {0.0}


@pytest.mark.parametrize("name", ["conll03", "mner15", "gmner"])
def test_unknown_variants_name_the_known_ones(name):
    with pytest.raises(ValueError, match=r"has no variant 'big': it has"):
        load(name, "big")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_each_file_opens_with_its_command(path):
    assert f"python -m scanner_jax.train --config=configs/{path.name}" in path.read_text().split('"""')[1]
