"""What is wrong with a corpus, in a user's words: all of it, raised once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

_PROBLEMS_SHOWN = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a corpus: where, what was found, and what would be right."""

    file: str
    line: int | None
    found: str
    expected: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.found}; expected {self.expected}"


class CorpusError(ValueError):
    """A corpus that can't be read: every problem found in it, raised once.

    Args:
        folder: the folder as the user gave it.
        problems: all of them, in file order; the message shows the first 50 and counts the rest.
    """

    def __init__(self, folder: Path, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        plural = "problem" if len(problems) == 1 else "problems"
        lines = [f"{folder}: {len(problems)} {plural}", *(f"  {problem}" for problem in problems[:_PROBLEMS_SHOWN])]
        if len(problems) > _PROBLEMS_SHOWN:
            lines.append(f"  ... and {len(problems) - _PROBLEMS_SHOWN} more")
        super().__init__("\n".join(lines))
