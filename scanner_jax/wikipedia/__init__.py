"""The Wikipedia index: names -> text in one SQLite file; build it from pages or a dump, look it up."""

from scanner_jax.wikipedia.building import BuildCounts, build, build_entries
from scanner_jax.wikipedia.entries import Disambiguation, Entry, Page, Redirect
from scanner_jax.wikipedia.forms import normalise, split_camel_case
from scanner_jax.wikipedia.layout import FORMAT, LOOKUPS, Lookup, WikipediaError
from scanner_jax.wikipedia.lookup import DEFAULT_LOOKUPS, FULLTEXT_SCORE, Hit, WikipediaIndex, lookup_problem

__all__ = [
    "DEFAULT_LOOKUPS",
    "FORMAT",
    "FULLTEXT_SCORE",
    "LOOKUPS",
    "BuildCounts",
    "Disambiguation",
    "Entry",
    "Hit",
    "Lookup",
    "Page",
    "Redirect",
    "WikipediaError",
    "WikipediaIndex",
    "build",
    "build_entries",
    "lookup_problem",
    "normalise",
    "split_camel_case",
]
