"""Your own data: named entities of any types, in text, or in text with images.

    python -m scanner_jax.corpora check FOLDER
    python -m scanner_jax.train --config=configs/own.py --config.corpus=FOLDER

FOLDER holds `train`, `dev` (or `valid`) and `test`, each with .txt, .conll, .bio, .iob or .tsv: a line a word, the word
first and its tag last, a blank line after each sentence. Tags may be IOB1, IOB2, BIOES or BILOU, of any types. Without
`dev`, or where it has words alone, the last epoch counts; a `test` of words alone is predicted and not scored.
docs/data.md has the details. The report lies in runs/own/report; another --workdir keeps those of two corpora apart.

It runs without any knowledge. Each kind is imported and switched on by itself:

    python -m scanner_jax.knowledge wikipedia build PAGES.jsonl prepared/wikipedia.sqlite
        and train with --config.knowledge.use_wikipedia=True
    python -m scanner_jax.store import notes-jsonl NOTES.jsonl STORE --corpus FOLDER
        and train with --config.knowledge.use_notes=True --config.knowledge.store=STORE
    python -m scanner_jax.store import captions CAPTIONS.txt STORE
        and train with --config.knowledge.use_captions=True --config.knowledge.store=STORE
    python -m scanner_jax.store import vinvl FEATURES STORE
        and train with --config.knowledge.use_objects=True --config.knowledge.store=STORE

Entities with boxes, in FOLDER/xml (docs/data.md), are grounded with --config.recognizer.grounding_weight=1 and objects:
each gets one of the prompt's objects as its box, or None.

Captions and objects go by the image that an `IMGID:<image id>` line gives a sentence. So that a misspelt type is
refused, name them: --config.types='("PER","LOC")'.

XLM-RoBERTa-large, which it takes by default, wants a GPU. On a CPU, or to try things out, take a small encoder:
--config.encoder=FOLDER --config.detector.learning_rate=1e-4 --config.recognizer.learning_rate=1e-4. Neither time nor
score of this config with the large encoder was measured.
"""

from ml_collections import ConfigDict

from scanner_jax.settings import paper_settings


def get_config() -> ConfigDict:
    config = paper_settings()
    config.detector.batch_size = 8
    config.recognizer.batch_size = 8
    config.knowledge.use_wikipedia = False
    config.knowledge.use_captions = False
    return config.lock()
