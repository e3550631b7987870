"""The model card of an exported model: what it was trained on, how good it is, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scanner_jax import stablehlo, torch_folders
from scanner_jax.metrics import metrics_table

TO_CHOOSE = "other"

_CARD = """\
---
license: {licence}
library_name: scanner_jax
pipeline_tag: token-classification
---

# Named entities: {types}

Two stages after SCANNER (Ok et al., NAACL 2024, https://arxiv.org/abs/2404.01914), trained with scanner_jax
{version}: a detector of spans, and a recognizer that reads each span in a prompt with what is known about it.

{licence_note}

## Training

- Data: {corpus}, variant: {variant} (sha256 {sha256}), splits {train_on}, seed {seed}
- Encoder: {encoder}
- Told in prompts: {told}
{experts}

## Scores, in percent

```text
{scores}
```

## Limits

- A prompt has at most {max_tokens} tokens and {max_objects} objects; of what is longer, region captions are cut first,
  then Wikipedia and notes, then the caption, and last the sentence around the entity. Longer texts are read in windows.
- It was trained on sentences that are split into words; `scanner_jax.words` says how text is split here.
- {grounding}
- Types and language are those of its training data. What it says of people may be wrong: it is no basis for decisions
  about them.

## Use

```python
from scanner_jax.scanner import Scanner

scanner = Scanner.from_pretrained("FOLDER")
for entity in scanner.predict("Ada Okafor plays in Lake Tamsin tonight"):
    print(entity)
```
{alone}"""

_TORCH = """
With transformers alone; `<obj>` is token {object_token}, the last row of the recognizer's embeddings, and the types
are {classes}:

```python
{example}```
"""


_STABLEHLO = """
Without scanner_jax, with jax, flatbuffers, numpy, safetensors and tokenizers, `python predict.py "a text"`, which is

```python
{example}```

`detector.stablehlo` takes weights, token_ids (b, t) int32 and mask (b, t) bool, and gives the logits of O, B and I;
`recognizer.stablehlo` also takes mask_position (b) int32 and object_positions (b, o) int32, and gives the types' logits
(in their order: {classes}) and that of each object's overlap with the entity. b, t and o may be
anything, t up to the encoder's limit. They run on {platforms}. JAX reads such programs for at least six months after
the version that wrote them, {jax}; scanner_jax takes the weights alone.
"""


def model_card(description: Mapping[str, Any], *, licence: str | None) -> str:
    """Write the card of a model, from what its scanner.json says.

    Args:
        description: the content of scanner.json.
        licence: its name; None leaves it to be chosen.
    """
    told = [kind for kind in ("captions", "objects", "notes", "wikipedia") if description["knowledge"][kind]]
    note = f"Licence: {licence}." if licence else "Licence: not chosen; it depends on those of corpus and encoder."
    corpus, config = description["corpus"], description["config"]
    classes = ", ".join([*description["types"], "non-entity"])
    alone = ""
    if description["weights"] == "torch":
        alone = _TORCH.format(object_token="vocab_size - 1", classes=classes, example=torch_folders.EXAMPLE)
    if description["weights"] == "stablehlo":
        alone = _STABLEHLO.format(
            classes=classes,
            example=stablehlo.EXAMPLE,
            platforms=" and ".join(stablehlo.PLATFORMS),
            jax=description["versions"]["jax"],
        )
    return _CARD.format(
        licence=licence or TO_CHOOSE,
        licence_note=note,
        types=", ".join(description["types"]),
        version=description["versions"]["scanner_jax"],
        corpus=corpus["name"],
        variant=corpus["variant"],
        sha256=corpus["sha256"],
        train_on=", ".join(config["train_on"]),
        seed=config["seed"],
        encoder=description["encoder"],
        told=", ".join(told) or "the sentence alone",
        experts="\n".join(_expert(kind, found) for kind, found in description["experts"].items()),
        scores=metrics_table(description["scores"]).rstrip(),
        max_tokens=description["max_tokens"],
        max_objects=description["max_objects"],
        grounding=_grounding(description),
        alone=alone,
    )


def _expert(kind: str, found: Mapping[str, Any]) -> str:
    made = [str(found[name]) for name in ("expert", "model", "revision", "importer", "label") if found.get(name)]
    return f"- {kind[0].upper()}{kind[1:]} by: {', '.join(made) or 'not noted'}"


def _grounding(description: Mapping[str, Any]) -> str:
    if not description["grounded"]:
        return "It gives no boxes."
    threshold = description["box_threshold"]
    return f"An entity has the box of an object detected in the image, if its overlap score is above {threshold:.3g}."
