"""Twitter-GMNER, as far as its text goes: spans and types, no boxes yet.

    python -m scanner_jax.train --config=configs/gmner.py

The paper reports F1 68.52 +-0.67 over five seeds with XLM-RoBERTa-large for spans, types and boxes together.
The corpus's boxes are not read yet, so this config scores spans and types, with the grounding loss off; neither
time nor score was measured yet.
"""

from ml_collections import ConfigDict

from scanner_jax.settings import paper_settings


def get_config() -> ConfigDict:
    config = paper_settings()
    config.corpus = "data/twitter_gmner"
    config.types = ("LOC", "ORG", "OTHER", "PER")
    config.knowledge.store = "prepared/knowledge/twitter_gmner"
    config.epochs.update(recognizer_teacher=5, recognizer_student=5)
    config.detector.batch_size = 8
    config.recognizer.batch_size = 8
    config.recognizer.max_objects = 18  # Table 15
    config.recognizer.weight_decay = 0.01  # Assumption: the paper's is illegible here; that of its other corpora
    return config.lock()
