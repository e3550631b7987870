"""The demo's closing table: two or more runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanner_jax.files import read_json

COLUMNS = {
    "spans": ("detector", "test", "f1"),
    "all": ("recognizer", "test", "micro", "f1"),
    "seen": ("recognizer", "test", "seen", "f1"),
    "unseen": ("recognizer", "test", "unseen", "f1"),
}
"""Column -> where its score stands in metrics.json."""

GROUNDED = {
    "gmner": ("recognizer", "test", "gmner", "f1"),
    "no boxes": ("recognizer", "test", "always_none", "f1"),
    "mner": ("recognizer", "test", "mner", "f1"),
    "eeg": ("recognizer", "test", "eeg", "f1"),
}
"""The same for runs whose entities have boxes; `no boxes` is gmner, had every answer been None."""


class CompareError(ValueError):
    """Runs that can't be compared; the message lists every problem."""


def comparison(runs: Sequence[Path]) -> str:
    """Write the runs' F1 on test as a table, and what the first has over each other one; then those of boxes, if any.

    Args:
        runs: folders with `report/metrics.json`, scored to the recognizer.

    Returns:
        The text, each line ended by a newline.

    Raises:
        CompareError: a run without a report, or not finished.
    """
    problems: list[str] = []
    reports = [_metrics(run, problems) for run in runs]
    if problems:
        raise CompareError("\n".join(problems))
    names = [str(run) for run in runs]
    rows = [[_at(metrics, place) for place in COLUMNS.values()] for metrics in reports]
    differences = [
        (f"{names[0]} - {name}", [f"{a - b:+.2f}" for a, b in zip(rows[0], row, strict=True)])
        for name, row in zip(names[1:], rows[1:], strict=True)
    ]
    cells = [(name, [f"{value:.2f}" for value in row]) for name, row in zip(names, rows, strict=True)]
    width = max(len(name) for name, _ in [*cells, *differences])
    lines = [_line("F1 on test, in percent", list(COLUMNS), width)]
    lines += [_line(name, values, width) for name, values in [*cells, *differences]]
    grounded = [
        (name, [f"{_at(metrics, place):.2f}" for place in GROUNDED.values()])
        for name, metrics in zip(names, reports, strict=True)
        if "gmner" in metrics["recognizer"]["test"]
    ]
    if grounded:
        lines += ["\n", _line("with boxes", list(GROUNDED), width)]
        lines += [_line(name, values, width) for name, values in grounded]
    return "".join(lines)


def _line(name: str, values: Sequence[str], width: int) -> str:
    return name.ljust(width) + "".join(f"{value:>9}" for value in values) + "\n"


def _metrics(run: Path, problems: list[str]) -> Any:
    """A run's metrics.json, in which every score of `COLUMNS` stands."""
    path = run / "report" / "metrics.json"
    try:
        metrics = read_json(path)
        for place in COLUMNS.values():
            _at(metrics, place)
        return metrics
    except FileNotFoundError:
        problems.append(f"{path} is missing: give the folder of a run that `python -m scanner_jax.train` has finished")
    except (TypeError, KeyError):
        problems.append(f"{path} has no recognizer's scores yet: give the run's command again without --until")
    except (OSError, json.JSONDecodeError) as error:
        problems.append(f"{path} can't be read ({error})")
    return None


def _at(metrics: Any, place: Sequence[str]) -> float:
    for key in place:
        metrics = metrics[key]
    return float(metrics)
