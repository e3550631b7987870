"""The knowledge store: captions, notes and objects in a folder, each kind in a sub-folder of its own."""

from __future__ import annotations

from scanner_jax.store.layout import StoreError, box_digest, import_command
from scanner_jax.store.reader import Store
from scanner_jax.store.writer import objects_value, write_kind

__all__ = ["Store", "StoreError", "box_digest", "import_command", "objects_value", "write_kind"]
