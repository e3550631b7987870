"""A run's predictions to look at: one page, `WORKDIR/report/gallery.html`, that needs no other file and no network.

A tweet is a card: its sentence with the gold and the predicted entities, its image with their boxes, what each
candidate's prompt was told, and what runs with less knowledge made of it (the paper's Figure 6).
"""

from __future__ import annotations

from scanner_jax.gallery.cards import Card, Row, make_cards
from scanner_jax.gallery.reported import GalleryError, Reported, read_report
from scanner_jax.gallery.writing import LIMIT, Summary, write_gallery

__all__ = [
    "LIMIT",
    "Card",
    "GalleryError",
    "Reported",
    "Row",
    "Summary",
    "make_cards",
    "read_report",
    "write_gallery",
]
