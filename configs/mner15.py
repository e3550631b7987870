"""Multimodal NER on Twitter-2015: text, captions, Wikipedia.

    python -m scanner_jax.train --config=configs/mner15.py

The paper reports F1 79.38 +-0.14 over five seeds with XLM-RoBERTa-large. What this project measured, with
which encoder, stands in docs/results.md; neither time nor score of this config with the large encoder was
measured yet.

Variants: `:small`, the whole recipe with the small encoder models/granite-30m-english, for a CPU, with
ChatGPT's notes; `:small-without-knowledge`, the same without any knowledge. They share the detector's phases
when they share a folder (--phases).
"""

from ml_collections import ConfigDict

from scanner_jax.settings import paper_settings


def get_config(variant: str = "") -> ConfigDict:
    config = paper_settings()
    config.corpus = "data/twitter2015"
    config.types = ("LOC", "ORG", "OTHER", "PER")
    config.knowledge.store = "prepared/knowledge/twitter2015"
    config.detector.batch_size = 4
    config.recognizer.batch_size = 8
    if variant.startswith("small"):
        config.encoder = "models/granite-30m-english"
        config.epochs.update(
            detector_teacher=4, detector_folds=2, detector_student=2, recognizer_teacher=1, recognizer_student=1
        )
        config.detector.batch_size = 8
        config.detector.learning_rate = 1e-4  # a small encoder wants more than XLM-R-large
        config.recognizer.learning_rate = 1e-4
        config.recognizer.max_tokens = 160
        config.knowledge.use_notes = True
    if variant == "small-without-knowledge":
        config.epochs.update(recognizer_teacher=2, recognizer_student=2)
        config.knowledge.update(use_wikipedia=False, use_captions=False, use_notes=False)
    if variant not in ("", "small", "small-without-knowledge"):
        raise ValueError(f"configs/mner15.py has no variant {variant!r}: it has small and small-without-knowledge")
    return config.lock()
