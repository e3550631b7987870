"""Corpora: readers of their published formats, checks and fingerprints, and TFDS data sets made from them."""

from scanner_jax.corpora.corpus import Corpus, load_corpus, read_corpus
from scanner_jax.corpora.examples import Examples
from scanner_jax.corpora.images import own_images
from scanner_jax.corpora.problems import CorpusError

__all__ = ["Corpus", "CorpusError", "Examples", "load_corpus", "own_images", "read_corpus"]
