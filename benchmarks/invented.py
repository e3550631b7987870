"""Corpora of any size, made up by code: sentences of invented words, captions of their images, and predictions."""

from __future__ import annotations

import json
import random
import sys
from itertools import product
from pathlib import Path
from typing import Any

SPLITS = {"train": 0.8, "dev": 0.1, "test": 0.1}

_TYPES = ("LOC", "ORG", "OTHER", "PER")
_SYLLABLES = [a + b for a, b in product("bdfgklmnprstvz", ("a", "e", "i", "o", "u", "an", "er", "il"))]
WORDS = [a + b for a, b in product(_SYLLABLES[:80], _SYLLABLES[32:])]
"""6,400 words; the number does not grow with the corpus, and neither does the vocabulary of the encoder."""

_WRONG = 0.2  # of the predicted entities have another type than gold


def write_corpus(folder: Path, size: int, *, seed: int = 1) -> None:
    """Write about `size` sentences as train.txt, dev.txt and test.txt, captions.txt, and each split's predictions.

    Words are about ten a sentence, entities one and a half; names are made of two words, so that new ones keep coming.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    number = 0
    with (folder / "captions.txt").open("w", encoding="utf-8") as captions:
        for split, share in SPLITS.items():
            with (
                (folder / f"{split}.txt").open("w", encoding="utf-8") as text,
                (folder / f"{split}-predictions.jsonl").open("w", encoding="utf-8") as predictions,
            ):
                for _ in range(round(size * share)):
                    rows, predicted = _sentence(rng)
                    text.write(f"IMGID:{number}\n{rows}\n")
                    predictions.write(json.dumps({"id": str(number), "entities": predicted}) + "\n")
                    captions.write(f"{number}.jpg :a photo of {' '.join(rng.choices(WORDS, k=8))}\n")
                    number += 1


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json: a byte-level BPE of at most 2,000 sub-words, learned from the words."""
    from scanner_jax.demo.pretraining import train_tokenizer  # brings in JAX

    folder.mkdir(parents=True)
    train_tokenizer(WORDS, vocab_size=2000).save(str(folder / "tokenizer.json"))


def _sentence(rng: random.Random) -> tuple[str, list[dict[str, Any]]]:
    """A sentence's lines, and what was predicted of it."""
    rows: list[str] = []
    predicted = []
    for _ in range(rng.randint(0, 3)):
        rows += [f"{word}\tO\n" for word in rng.choices(WORDS, k=rng.randint(1, 4))]
        kind = rng.choice(_TYPES)
        guess = rng.choice(_TYPES) if rng.random() < _WRONG else kind
        predicted.append({"start": len(rows), "end": len(rows) + 2, "type": guess})
        first, last = (word.capitalize() for word in rng.choices(WORDS, k=2))
        rows += [f"{first}\tB-{kind}\n", f"{last}\tI-{kind}\n"]
    rows += [f"{word}\tO\n" for word in rng.choices(WORDS, k=rng.randint(2, 8))]
    return "".join(rows), predicted


if __name__ == "__main__":
    write_tokenizer(Path(sys.argv[1]))
