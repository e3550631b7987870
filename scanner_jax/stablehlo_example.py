"""Entities of a text, by this folder alone: python predict.py "Ada Okafor plays in Lake Tamsin tonight" [KNOWN ...]

It needs jax, flatbuffers, numpy, safetensors and tokenizers. KNOWN are texts that the prompts shall tell too: the
entities' Wikipedia text, notes, the picture's caption, in this order.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax.export
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

FOLDER = Path(__file__).parent
TOLD = json.loads((FOLDER / "scanner.json").read_text(encoding="utf-8"))
IDS = TOLD["tokens"]  # of start, end, mask, unknown, object (<obj>), pad
PROGRAMS = {
    stage: jax.export.deserialize(bytearray((FOLDER / f"{stage}.stablehlo").read_bytes()))
    for stage in ("detector", "recognizer")
}
WEIGHTS = {stage: jax.device_put(load_file(FOLDER / f"{stage}.safetensors")) for stage in PROGRAMS}
TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
TOKENIZER.no_truncation()
TOKENIZER.no_padding()
TOKENIZER.encode_special_tokens = True  # text that spells <mask> is text
if hasattr(TOKENIZER.pre_tokenizer, "add_prefix_space"):  # RoBERTa: the first word of a text like any other
    TOKENIZER.pre_tokenizer.add_prefix_space = True


def tokens(*texts: str) -> list[int]:
    ids = [token for text in texts for token in TOKENIZER.encode(text, add_special_tokens=False).ids]
    return [IDS["unknown"] if token in IDS.values() else token for token in ids]


def logits(stage: str, rows: list[list[int]], *positions: np.ndarray) -> Any:
    """Run a program over sequences of any number and length."""
    if (longest := max(map(len, rows))) > TOLD["max_tokens"]:
        raise ValueError(f"{longest} tokens, and at most {TOLD['max_tokens']} are read: give shorter texts")
    mask = np.array([[place < len(row) for place in range(longest)] for row in rows])
    token_ids = np.zeros(mask.shape, np.int32)
    token_ids[mask] = np.concatenate(rows)
    return jax.device_get(PROGRAMS[stage].call(WEIGHTS[stage], token_ids, mask, *positions))


def predict(text: str, *known: str) -> list[tuple[int, int, str, float]]:
    """Each entity's first character, the one after its last, its type, and the type's probability."""
    found = list(re.finditer(TOLD["words"], text, re.VERBOSE))
    words = [word.group() for word in found]
    pieces = [tokens(word) or [IDS["unknown"]] for word in words]
    firsts = np.cumsum([1, *map(len, pieces)])[:-1]  # of a word its first token is read
    sentence = [IDS["start"], *(token for piece in pieces for token in piece), IDS["end"]]
    tags = "".join("OBI"[tag] for tag in logits("detector", [sentence])[0, firsts].argmax(-1))
    spans = [match.span() for match in re.finditer("BI*|I+", tags)]
    if not spans:
        return []
    head = [IDS["start"], *tokens("The entity is"), IDS["mask"]]
    asked = [(f"for {' '.join(words[start:end])}", "in this sentence.", " ".join(words)) for start, end in spans]
    prompts = [[*head, *tokens(*texts, *known), IDS["end"]] for texts in asked]
    masks = np.full(len(prompts), len(head) - 1, np.int32)
    objects = np.zeros((len(prompts), 1), np.int32)  # no <obj> in these prompts: what is read there means nothing
    types, _overlaps = logits("recognizer", prompts, masks, objects)
    entities = []
    for (start, end), scores in zip(spans, np.asarray(jax.nn.softmax(types)), strict=True):
        if (best := int(scores.argmax())) < len(TOLD["types"]):  # behind the types comes non-entity
            place = found[start].start(), found[end - 1].end()
            entities.append((*place, TOLD["types"][best], float(scores[best])))
    return entities


if __name__ == "__main__":
    for start, end, label, score in predict(*sys.argv[1:]):
        print(f"{sys.argv[1][start:end]}[{start}:{end}] {label} {score:.2f}")
