"""The whole recipe on an invented corpus, with an encoder of its own: a demo for two CPU cores.

    bash launch/demo.sh

builds what this config reads (python -m scanner_jax.demo build prepared/demo) and runs it twice:

    python -m scanner_jax.train --config=configs/demo.py --phases=runs/demo-phases
    python -m scanner_jax.train --config=configs/demo.py:without-knowledge --phases=runs/demo-phases

All of it took 2 minutes 34 seconds on two CPU cores with nothing beside it; F1 on test 78.96 with knowledge and 54.52
without, on names that training never showed 68.65 and 32.51. With knowledge entities are grounded as well: F1
55.99 for span, type and box together, 26.21 had every answer been None. Another machine may move them by some points.

Variants: `:without-knowledge`, where the recognizer has the sentence alone. The two share the detector's phases.
"""

from ml_collections import ConfigDict

from scanner_jax.settings import paper_settings


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "without-knowledge"):
        raise ValueError(f"configs/demo.py has no variant {variant!r}: it has without-knowledge")
    config = paper_settings()
    config.corpus = "prepared/demo/tweets"
    config.types = ("LOC", "ORG", "OTHER", "PER")
    config.encoder = "prepared/demo/encoder"
    config.epochs.update(
        detector_teacher=4, detector_folds=4, detector_student=4, recognizer_teacher=6, recognizer_student=6
    )
    for stage in (config.detector, config.recognizer):
        stage.batch_size = 16
        stage.eval_batch_size = 64
        stage.pack_width = 0  # each sentence in a row of its own: all batches have one shape, which is compiled once
        stage.learning_rate = 1e-3  # two layers, trained for a minute, want far more than XLM-R-large
    config.recognizer.max_tokens = 80  # region captions of the last objects go first
    config.recognizer.max_objects = 5
    config.recognizer.grounding_weight = 1.0
    config.knowledge.update(
        store="prepared/demo/knowledge", wikipedia_index="prepared/demo/wikipedia.sqlite", use_objects=True
    )
    if variant == "without-knowledge":
        config.knowledge.update(use_wikipedia=False, use_captions=False, use_objects=False)
        config.recognizer.grounding_weight = 0.0  # without objects there is no box to choose
    return config.lock()
