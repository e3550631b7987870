"""One Markdown table of what `launch/bench_gpu.sh` has measured: `python benchmarks/gpu_table.py runs/bench-gpu`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECIPE_TARGET = 480
"""Seconds of the whole Twitter-2015 recipe that the project aims at."""


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/gpu_table.py FOLDER")
    folder = Path(sys.argv[1])
    steps, recipe = (last_line(folder / f"{name}.txt") for name in ("train_step", "whole_recipe"))
    print("\n".join(table(steps, recipe)))


def last_line(path: Path) -> dict[str, Any] | None:
    """What a benchmark's last line says; None where it did not come to one."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, IndexError, ValueError):
        return None
    return found


def table(steps: Mapping[str, Any] | None, recipe: Mapping[str, Any] | None) -> list[str]:
    """The lines: a row for every side of every case, the targets, and the whole recipe."""
    lines = ["| | | ms a step | tokens/s | MFU % | peak GB | its time over ours |", "|---|---|---|---|---|---|---|"]
    if steps is None:
        lines.append("| training steps | | not measured | | | | |")
    else:
        lines += [_row(row) for row in steps["rows"]]
        lines += [f"| {one['what']} ({one['target']}) | | {one['found']} | | | | |" for one in steps["targets"]]
    name = f"the whole recipe, estimated (target: {RECIPE_TARGET} s, on an H200)"
    if recipe is None:
        return [*lines, f"| {name} | scanner_jax | not measured | | | | |"]
    lines += [f"| {part} | scanner_jax | {seconds:.1f} s | | | | |" for part, seconds in recipe["parts"].items()]
    lines.append(f"| {name} | scanner_jax | {recipe['seconds']:.1f} s | | | | |")
    machine = recipe["machine"]
    return [*lines, "", f"On {machine['device']}, {machine['processor']}, JAX {machine['jax']}."]


def _row(row: Mapping[str, Any]) -> str:
    if "not_measured" in row:
        return f"| {row['case']} | {row['side']} | not measured: {row['not_measured']} | | | | |"
    memory, over = row["peak_bytes"], row["over_ours"]
    cells = (
        f"{1e3 * row['seconds']:,.1f}",
        f"{row['tokens'] / row['seconds']:,.0f}",
        f"{100 * row['mfu']:.1f}",
        "" if memory is None else f"{memory / 1e9:.1f}",
        "" if over is None else f"{over:.2f}",
    )
    return f"| {row['case']} | {row['side']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
