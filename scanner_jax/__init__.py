"""SCANNER (Ok et al., NAACL 2024) in JAX/Flax: named entities from text, or text with an image."""

__version__ = "0.1.0"
