"""Grounded multimodal NER on Twitter-GMNER: each entity with its type and its box in the image, or None.

    python -m scanner_jax.train --config=configs/gmner.py

The paper reports F1 68.52 +-0.67 over five seeds with XLM-RoBERTa-large for spans, types and boxes together, on v1 of
the corpus; docs/evaluation.md says how that is counted. Neither time nor score of this config with the large encoder
was measured yet; what was measured, with which encoder, stands in docs/results.md.

Table 15 varies how many objects stand in a prompt: --config.recognizer.max_objects=9 (12, 15, 18, 21).

Objects stand in CLIP's order, as in the paper, so the store needs objects and CLIP vectors; without vectors add
--config.knowledge.use_clip_order=False.

Variants: `:small`, the whole recipe with the small encoder models/granite-30m-english, for a CPU (2 hours 20 minutes on
two cores), with ChatGPT's notes and objects in the order of the detector's score.
"""

from ml_collections import ConfigDict

from scanner_jax.settings import paper_settings


def get_config(variant: str = "") -> ConfigDict:
    if variant not in ("", "small"):
        raise ValueError(f"configs/gmner.py has no variant {variant!r}: it has small")
    config = paper_settings()
    config.corpus = "data/twitter_gmner"
    config.types = ("LOC", "ORG", "OTHER", "PER")
    config.knowledge.store = "prepared/knowledge/twitter_gmner"
    config.knowledge.update(use_objects=True, use_clip_order=True)
    config.epochs.update(recognizer_teacher=5, recognizer_student=5)
    config.detector.batch_size = 8
    config.recognizer.batch_size = 8
    config.recognizer.grounding_weight = 1.0
    config.recognizer.max_objects = 18  # Table 15
    config.recognizer.weight_decay = 0.01  # Assumption: the paper's is illegible here; that of its other corpora
    if variant == "small":
        config.encoder = "models/granite-30m-english"
        # about as many steps as mner15.py:small takes on a corpus 1.75 times smaller
        config.epochs.update(
            detector_teacher=2, detector_folds=1, detector_student=1, recognizer_teacher=1, recognizer_student=1
        )
        config.detector.learning_rate = 1e-4  # a small encoder wants more than XLM-R-large
        config.recognizer.learning_rate = 1e-4
        config.recognizer.max_tokens = 128  # 18 of VinVL's labels take some 55, a tweet 41
        config.knowledge.update(use_notes=True, use_clip_order=False)  # in the order of the detector's score
    return config.lock()
