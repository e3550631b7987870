"""Starting from another run's encoders, and the refusal where that run has seen what this one is tested on."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from tiny_recipe import write_world

from scanner_jax import checkpoint
from scanner_jax.convert import add_token_row, fingerprint_encoder, load_encoder
from scanner_jax.corpora import read_corpus
from scanner_jax.files import write_checksums, write_json
from scanner_jax.inputs import InputError, open_inputs
from scanner_jax.recipe import recipe_steps
from scanner_jax.runs import Run
from scanner_jax.warmstart import WarmStartError, open_warm_start, overlap

DATA = Path("data")


def write_run(workdir: Path, corpus: str, encoder: str, **config: object) -> Path:
    """What `open_warm_start` reads of a finished run; the recognizer's encoder is the detector's doubled."""
    params = load_encoder(encoder)[1]
    phases = {}
    for stage in ("detector", "recognizer"):
        folder = workdir / "phases" / f"{stage}-student-0123"
        folder.mkdir(parents=True)
        trained = params if stage == "detector" else jax.tree.map(lambda x: 2 * x, add_token_row(params))
        checkpoint.save_params(folder / "params", {"encoder": trained, "head": {"bias": np.zeros(2)}})
        write_json(folder / "phase.json", {"inputs": {"encoder": fingerprint_encoder(encoder)}})
        phases[f"{stage}-student"] = str(folder)
    source = {"folder": corpus, "sha256": read_corpus(corpus).fingerprint}
    write_json(workdir / "run.json", {"phases": phases, "corpus": source, "config": {"train_on": ["train"], **config}})
    return workdir


@pytest.fixture
def world(tmp_path, tiny_encoder) -> ConfigDict:
    return write_world(tmp_path, tiny_encoder).unlock()


def other_tweets(tmp_path: Path, *, shared: int) -> str:
    """A corpus of which some training tweets have images that are test images of the world's corpus (32 to 39)."""
    folder = tmp_path / f"other-{shared}"
    folder.mkdir()
    for split, first in (("train", 1000), ("valid", 2000), ("test", 3000)):
        images = range(32, 32 + shared) if split == "train" else ()
        numbers = [*images, *range(first, first + 4)]
        lines = [f"IMGID:{number}\nAda\tB-PER\nwaits\tO\n{number}\tO\n" for number in numbers]
        (folder / f"{split}.txt").write_text("\n".join(lines))
    return str(folder)


def test_both_stages_start_from_the_other_runs_students(world, tmp_path):
    before = open_inputs(world, prepared=tmp_path / "prepared")
    world.start_from = str(write_run(tmp_path / "run", other_tweets(tmp_path, shared=0), world.encoder))
    inputs = open_inputs(world, prepared=tmp_path / "prepared")
    run = Run(config=world, inputs=inputs, root=tmp_path)
    pretrained = load_encoder(world.encoder)[1]
    jax.tree.map(np.testing.assert_array_equal, run.encoder_params("detector"), pretrained)
    doubled = jax.tree.map(lambda x: 2 * x, add_token_row(pretrained))
    jax.tree.map(np.testing.assert_array_equal, run.encoder_params("recognizer"), doubled)
    hashes = {name: step.phase.hash for name, step in recipe_steps(run).items()}
    for name, step in recipe_steps(Run(config=world, inputs=before, root=tmp_path)).items():
        assert step.phase.hash != hashes[name]


def test_an_overlap_with_test_is_refused_with_its_count_unless_asked_for(world, tmp_path, caplog):
    world.start_from = str(write_run(tmp_path / "run", other_tweets(tmp_path, shared=3), world.encoder))
    with pytest.raises(InputError, match=r"3 of 8 test examples.*start_despite_overlap=True"):
        open_inputs(world, prepared=tmp_path / "prepared")
    world.start_despite_overlap = True
    assert open_inputs(world, prepared=tmp_path / "prepared").warm_start is not None
    assert "not checked" in caplog.text


def test_the_runs_before_it_count_as_well(world, tmp_path):
    first = write_run(tmp_path / "first", other_tweets(tmp_path, shared=2), world.encoder)
    second = write_run(tmp_path / "second", other_tweets(tmp_path, shared=0), world.encoder, start_from=str(first))
    with pytest.raises(WarmStartError, match="2 of 8 test"):
        open_warm_start(second, read_corpus(world.corpus), despite_overlap=False)


def test_runs_that_cannot_be_started_from(world, tmp_path, tiny_encoder):
    corpus = read_corpus(world.corpus)
    with pytest.raises(WarmStartError, match=r"no run.json"):
        open_warm_start(tmp_path, corpus, despite_overlap=False)
    source = other_tweets(tmp_path, shared=0)
    workdir = write_run(tmp_path / "run", source, world.encoder)
    with (Path(source) / "train.txt").open("a") as file:
        file.write("\nIMGID:7\nmore\tO\n")
    with pytest.raises(WarmStartError, match="before an edit"):
        open_warm_start(workdir, corpus, despite_overlap=False)
    world.update(start_from=str(workdir), start_despite_overlap=True, encoder=str(tiny_encoder(["other", "words"])))
    with pytest.raises(InputError, match="another encoder"):
        open_inputs(world, prepared=tmp_path / "prepared")
    write_checksums(tmp_path / "run/phases/recognizer-student-0123")
    write_json(tmp_path / "run/phases/recognizer-student-0123/phase.json", {})
    with pytest.raises(WarmStartError, match="phase.json changed"):
        open_warm_start(workdir, corpus, despite_overlap=True)
    (tmp_path / "run/phases/detector-student-0123/params").rename(tmp_path / "gone")
    with pytest.raises(WarmStartError, match="detector-student-0123"):
        open_warm_start(workdir, corpus, despite_overlap=False)


@pytest.mark.skipif(
    not (DATA / "twitter2015").exists() or not (DATA / "twitter_gmner").exists(), reason="needs both Twitter corpora"
)
def test_gmner_shares_test_tweets_with_twitter2015():
    trained_on = read_corpus(DATA / "twitter2015").splits["train"]
    assert overlap(read_corpus(DATA / "twitter_gmner").splits["test"], trained_on) == 404
