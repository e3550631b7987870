"""A recipe that a test can run: an invented corpus, a tiny encoder and some knowledge, and its command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from scanner_jax.settings import paper_settings
from scanner_jax.store import write_kind
from scanner_jax.wikipedia import build

NAMES = {
    "PER": ["Ada", "Bo Lind", "Cleo", "Dmitri Orlo", "Eve Park"],
    "LOC": ["Oslo", "Lake Mira", "Quito", "Port Vale"],
    "ORG": ["Acme", "Nova Labs", "Zen Bank", "Ulm FC"],
}
SENTENCES = [
    ["saw", "*", "again", "today"],
    ["nothing", "here"],
    ["*", "and", "*", "are", "great"],
    ["why", "is", "*", "so", "cold", "?"],
]
WORDS = [
    *sorted({word for sentence in SENTENCES for word in sentence if word != "*"}),
    *(part for names in NAMES.values() for name in names for part in name.split()),
    *"The entity is for in this sentence . a person place company photo of".split(),
]


def write_corpus(folder: Path) -> Path:
    folder.mkdir()
    drawn = [(kind, name) for kind, names in NAMES.items() for name in names]
    number = 0
    for split, count in (("train", 24), ("valid", 8), ("test", 8)):
        lines = []
        for _ in range(count):
            lines.append(f"IMGID:{number}")
            for place, word in enumerate(SENTENCES[number % len(SENTENCES)]):
                if word == "*":
                    kind, name = drawn[(7 * number + 3 * place) % len(drawn)]
                    prefixes = ["B", *("I" for _ in name.split()[1:])]
                    lines += [f"{part}\t{prefix}-{kind}" for part, prefix in zip(name.split(), prefixes, strict=True)]
                else:
                    lines.append(f"{word}\tO")
            lines.append("")
            number += 1
        (folder / f"{split}.txt").write_text("\n".join(lines))
    return folder


def write_world(folder: Path, tiny_encoder: Callable[[Sequence[str]], Path]) -> ConfigDict:
    """A config whose inputs are all there."""
    config = paper_settings()
    config.corpus = str(write_corpus(folder / "tweets"))
    config.encoder = str(tiny_encoder(WORDS))
    config.knowledge.store = str(folder / "store")
    captions = [(str(number), {"text": "a photo of a place"}) for number in range(0, 40, 2)]
    write_kind(config.knowledge.store, "captions", captions, {"importer": "test"})
    config.knowledge.wikipedia_index = str(folder / "index.sqlite")
    build([("Ada", "a person"), ("Oslo", "a place"), ("Acme", "a company")], config.knowledge.wikipedia_index)
    config.epochs.update(dict.fromkeys(config.epochs, 2))
    for stage in (config.detector, config.recognizer):
        stage.learning_rate = 1e-2
        stage.eval_batch_size = 8
    config.recognizer.max_tokens = 48
    config.folds = 2
    return config.lock()


def command(world: ConfigDict, folder: Path) -> list[str]:
    """The command line of a recipe that leaves all it writes in `folder`."""
    config = folder / "own.py"
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
        f"    return ConfigDict({json.loads(json.dumps(world.to_dict()))!r}).lock()\n"
    )
    paths = [f"--config={config}", f"--workdir={folder / 'run'}", f"--prepared={folder / 'prepared'}"]
    return [sys.executable, "-m", "scanner_jax.train", *paths]
