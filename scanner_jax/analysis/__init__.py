"""What a person looks at after a run: errors, training labels that the teachers doubt, what prompts were told."""

from __future__ import annotations

from scanner_jax.analysis.errors import BOX_KINDS, KINDS, Pair, box_error, error_kind, errors_of, errors_table, pairs_of
from scanner_jax.analysis.prompts import prompt_record, prompt_records
from scanner_jax.analysis.suspects import Judged, judged_candidates, judged_words, lowest_alpha, probabilities

__all__ = [
    "BOX_KINDS",
    "KINDS",
    "Judged",
    "Pair",
    "box_error",
    "error_kind",
    "errors_of",
    "errors_table",
    "judged_candidates",
    "judged_words",
    "lowest_alpha",
    "pairs_of",
    "probabilities",
    "prompt_record",
    "prompt_records",
]
