"""What the commands answer to wrong input: an exit code, and a message that names the thing and the remedy.

Each command runs as a user runs it, in a process of its own, two at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_recipe import write_world


class Case(NamedTuple):
    """A wrong command line, with places as `{name}`, and what its answer must hold."""

    name: str
    command: str
    code: int
    said: tuple[str, ...]


TRAIN = "train --config={config} --workdir={out} --prepared={prepared}"
CASES = [
    Case("a command after a blank", "_ train", 2, ("python -m scanner_jax.train",)),
    Case("a command that is none", "_ predickt", 2, ("'predickt'", "one of the above")),
    # train: its command line
    Case("no config", "train", 1, ("--config must have a value",)),
    Case("config without its flag", "train configs/mner15.py --config={config}", 1, ("configs/mner15.py", "--config.")),
    Case("no such config", "train --config=configs/nope.py", 1, ("configs/nope.py", "the recipes are in configs/")),
    Case("a folder for a config", "train --config=configs", 1, ("directory", "the recipes are in configs/")),
    Case("no such variant", "train --config=configs/mner15.py:big", 1, ("'big'", "small-without-knowledge")),
    Case("unknown setting", TRAIN + " --config.detector.lr=1", 1, ("'lr'", "settings.py lists")),
    Case("setting of a wrong kind", TRAIN + " --config.seed=one", 1, ("--config.seed=one",)),
    Case("unknown flag", TRAIN + " --wordkir=x", 1, ("wordkir", "--help")),
    Case("unknown phase", TRAIN + " --until=detektor", 1, ("until=detektor", "detector-teacher")),
    # train: what it reads
    Case("nothing is there", "train --config=configs/mner15.py --config.corpus={none} --config.encoder={none}/e "
         "--config.knowledge.store={none}/s --config.knowledge.wikipedia_index={none}/w", 1,
         ("{none}", "no such folder", "{none}/e", "store import captions", "knowledge wikipedia build")),
    Case("corpus is a file", TRAIN + " --config.corpus={file}", 1, ("{file}", "a folder")),
    Case("corpus is empty", TRAIN + " --config.corpus={empty}", 1, ("{empty}/train.txt", "empty")),
    Case("unknown type", TRAIN + " --config.types='(\"PER\",\"LOC\")'", 1, ("ORG", "types=()")),
    Case("encoder of another kind", TRAIN + " --config.encoder={gpt}", 1, ("model_type", "'gpt2'", "roberta")),
    Case("encoder as a pickle", TRAIN + " --config.encoder={pickled}", 1, ("pytorch_model.bin", "save_pretrained")),
    Case("tokenizer without a mask token", TRAIN + " --config.encoder={maskless}", 1, ("tokenizer.json", "<mask>")),
    Case("encoder without a tokenizer", TRAIN + " --config.encoder={mute}", 1, ("tokenizer.json is missing",)),
    Case("no such lookup", TRAIN + " --config.knowledge.wikipedia_lookups='(\"fuzzy\",)'", 1,
         ("wikipedia_lookups=('fuzzy',)", "exact, redirect, normalised, disambiguation, fulltext")),
    Case("a rate that is none", TRAIN + " --config.detector.learning_rate=-1.0", 1, ("learning_rate=-1.0",)),
    Case("a workdir that cannot be", TRAIN.replace("{out}", "{file}/run"), 1, ("{file}",)),
    # corpora
    Case("nothing to check", "corpora check", 2, ("FOLDER",)),
    Case("no such corpus", "corpora check {none}", 1, ("{none}", "no such folder")),
    Case("a file to check", "corpora check {file}", 1, ("{file}", "a folder with")),
    Case("wrong encoding", "corpora check {latin}", 1, ("train.txt:2", "0xe9", "UTF-8")),
    Case("a row without its tag", "corpora check {ragged}", 1, ("train.txt:3", "tag")),
    # store
    Case("no such captions", "store import captions {none}/c.txt {out}", 1, ("{none}/c.txt", "does not exist")),
    Case("a folder for captions", "store import captions {empty} {out}", 1, ("{empty}", "is a folder")),
    Case("captions of another form", "store import captions {file} {out}", 1, ("{file}:1", "IMAGE.jpg :caption")),
    Case("notes without a corpus", "store import notes {empty} {out}", 2, ("--corpus",)),
    Case("notes that are not there", "store import notes {empty} {out} --corpus {corpus}", 1, ("train.txt", "{empty}")),
    Case("the old spelling of build", "store import wikipedia {file} {out}.sqlite", 1, ("{file}:1", "JSON")),
    Case("a store that is a file", "store import captions {captions} {file}", 1, ("{file}", "folder")),
    Case("a store below a file", "store import captions {captions} {file}/store", 1, ("{file}",)),
    Case("objects that are not there", "store import vinvl {empty} {out}", 1, ("{empty}", ".npz")),
    Case("notes for nobody", "store import notes-jsonl {nobody} {out}", 1, ("{nobody}:1", '"id"')),
    Case("a store without notes", "store check {store} {corpus}", 1, ("{store}", "notes")),
    # knowledge
    Case("no knowledge asked for", "knowledge", 2, ("wikipedia", "no subcommand given")),
    Case("no such dump", "knowledge wikipedia build {none}.xml {out}.sqlite", 1, ("{none}.xml", "pages-articles")),
    Case("pages that are no JSON", "knowledge wikipedia build {file} {out}.sqlite", 1, ("{file}:1", "JSON")),
    Case("a dump cut short", "knowledge wikipedia build {cut} {out}.sqlite", 1, ("{cut}", "after the page 'Oslo'")),
    Case("an index in a dump's place", "knowledge wikipedia build {file} {captions}", 1, ("{captions}", "INDEX")),
    Case("no workers", "knowledge wikipedia build {file} {out} --workers=0", 2, ("--workers", "'0'", "from 1 on")),
    Case("no such index", "knowledge wikipedia lookup {none} Oslo", 1, ("{none}", "wikipedia build")),
    Case("no index", "knowledge wikipedia lookup {file} Oslo", 1, ("{file}", "no SQLite file", "wikipedia build")),
    Case("no such way", "knowledge wikipedia lookup {none} Oslo --lookups=fuzzy", 2, ("'fuzzy'", "redirect")),
    # evaluate
    Case("no predictions", "evaluate --gold {corpus} --predictions {none}", 1, ("{none}",)),
    Case("a folder of predictions", "evaluate --gold {corpus} --predictions {empty}", 1, ("{empty}",)),
    Case("predictions that are no JSON", "evaluate --gold {corpus} --predictions {file}", 1, ("{file}:1", "JSON")),
    Case("no such split", "evaluate --gold {corpus} --split tset --predictions {file}", 2, ("tset", "test")),
    # profiling
    Case("nothing to profile", "profiling", 1, ("--config must have a value",)),
    Case("no such stage", "profiling --config={config} --stage=tagger", 1, ("tagger", "detector")),
    Case("no such device", "profiling --config={config} --device=H1000", 1, ("H1000", "NVIDIA H100", "--peak_tflops")),
    Case("half a device", "profiling --config={config} --peak_tflops=9", 1, ("--bandwidth_gbs",)),
    Case("a profile below a file", "profiling --config={config} --out={file}/profile", 1, ("{file}",)),
    Case("no steps", "profiling --config={config} --steps=0", 1, ("steps", "0")),
    # demo
    Case("runs that have not run", "demo compare {none} {empty}", 1, ("{none}", "metrics.json")),
    Case("a demo below a file", "demo build {file}/demo", 1, ("{file}",)),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory, tiny_encoder) -> dict[str, str]:
    """Files and folders that are right or wrong, by the names that the cases call them."""
    folder = tmp_path_factory.mktemp("places")
    world = write_world(folder, tiny_encoder)
    config = folder / "config.py"
    config.write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
        f"    return ConfigDict({world.to_dict()!r}).lock()\n"
    )
    file = folder / "file.txt"
    file.write_text("some words\n")
    captions = folder / "captions.txt"
    captions.write_text("1.jpg :a lake\n")
    cut = folder / "cut.xml"
    cut.write_text("<mediawiki><page><title>Oslo</title><ns>0</ns></page>\n<page><title>Ber")
    nobody = folder / "nobody.jsonl"
    nobody.write_text('{"text": "a note"}\n')
    texts = {"empty": "", "latin": "IMGID:1\ncafé\tO\n", "ragged": "IMGID:1\nsaw\tO\nher\n"}
    for name, text in texts.items():
        (folder / name).mkdir()
        for split in ("train", "valid", "test"):
            (folder / name / f"{split}.txt").write_bytes(text.encode("latin-1"))
    encoders = {name: shutil.copytree(world.encoder, folder / name) for name in ("gpt", "pickled", "maskless", "mute")}
    (encoders["gpt"] / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 9}))
    (encoders["pickled"] / "model.safetensors").rename(encoders["pickled"] / "pytorch_model.bin")
    (encoders["mute"] / "tokenizer.json").unlink()
    tokenizer = encoders["maskless"] / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("<mask>", "<musk>"))
    named = {
        "config": config,
        "file": file,
        "captions": captions,
        "nobody": nobody,
        "cut": cut,
        "none": folder / "none",
    }
    named |= {name: folder / name for name in texts} | encoders | {"prepared": folder / "prepared"}
    named |= {"corpus": Path(world.corpus), "store": Path(world.knowledge.store), "out": folder / "out"}
    return {name: str(path) for name, path in named.items()}


@pytest.fixture(scope="module")
def answers(places):
    """Every command's run, begun two at a time as soon as the first is asked for."""
    with ThreadPoolExecutor(2) as pool:
        running = {case.name: pool.submit(answer, case, places) for case in CASES}
        yield running
        pool.shutdown(cancel_futures=True)


def answer(case: Case, places: dict[str, str]) -> subprocess.CompletedProcess[str]:
    module, *arguments = [word.replace("'", "").format(**places) for word in case.command.split()]
    command = [sys.executable, "-m", "scanner_jax" if module == "_" else f"scanner_jax.{module}", *arguments]
    environment = {**os.environ, "XLA_FLAGS": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_wrong_input_is_answered_in_words(
    case: Case, places: dict[str, str], answers: dict[str, Future[subprocess.CompletedProcess[str]]]
):
    run = answers[case.name].result()
    assert run.returncode == case.code, run.stderr
    assert "Traceback" not in run.stderr + run.stdout
    for words in case.said:
        assert words.format(**places) in run.stderr, run.stderr
