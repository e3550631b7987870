"""Plain NER on CoNLL-2003: text and Wikipedia, with RoBERTa-large.

    python -m scanner_jax.train --config=configs/conll03.py

Trains on train and dev together (17,291 sentences), so nothing is selected on dev: the last checkpoint counts
and `dev` is null in the report. Neither time nor score of this config was measured yet.

Variant: `:tune` trains on train and selects on dev.
"""

from ml_collections import ConfigDict

from scanner_jax.settings import paper_settings


def get_config(variant: str = "") -> ConfigDict:
    config = paper_settings()
    config.corpus = "data/conll2003"
    config.types = ("LOC", "MISC", "ORG", "PER")
    config.encoder = "roberta-large"
    config.train_on = ("train", "dev")
    config.epochs.update(
        detector_teacher=5, detector_folds=5, detector_student=5, recognizer_teacher=20, recognizer_student=20
    )
    config.detector.batch_size = 8
    config.recognizer.batch_size = 8
    config.tyt.recognizer = False  # the paper: stage 1 only
    config.knowledge.use_captions = False  # there are no images
    if variant == "tune":
        config.train_on = ("train",)
    elif variant:
        raise ValueError(f"configs/conll03.py has no variant {variant!r}: it has tune")
    return config.lock()
