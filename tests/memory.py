"""How much memory a function takes for each of its inputs, so that what holds them all is found out."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable


def held(function: Callable[[int], object], few: int, many: int) -> float:
    """Bytes of Python's memory at its highest that each input beyond the first `few` adds.

    Args:
        function: works on so many inputs; called once before it is measured, since first calls fill caches.
        few: inputs; more than are held at once.
        many: inputs.
    """
    function(few)
    gc.collect()
    gc.disable()  # it would empty what `_fill` fills
    try:
        return (_highest(function, many) - _highest(function, few)) / (many - few)
    finally:
        gc.enable()


def _highest(function: Callable[[int], object], count: int) -> int:
    _fill()
    tracemalloc.start()
    try:
        function(count)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _fill() -> None:
    """Free so many tuples that Python keeps no more of them for later, which would look as if they were held."""
    del [tuple(range(size)) for size in range(21) for _ in range(2000)][:]
