"""Multimodal NER on Twitter-2017: text, captions, Wikipedia.

    python -m scanner_jax.train --config=configs/mner17.py

The paper reports F1 90.54 +-0.32 over five seeds with XLM-RoBERTa-large. Neither time nor score of this config
was measured yet.
"""

from ml_collections import ConfigDict

from scanner_jax.settings import paper_settings


def get_config() -> ConfigDict:
    config = paper_settings()
    config.corpus = "data/twitter2017"
    config.types = ("LOC", "MISC", "ORG", "OTHER", "PER")  # copies circulate with MISC and with OTHER
    config.knowledge.store = "prepared/knowledge/twitter2017"
    config.epochs.update(recognizer_teacher=7, recognizer_student=7)
    config.detector.batch_size = 8
    config.recognizer.batch_size = 8
    return config.lock()
