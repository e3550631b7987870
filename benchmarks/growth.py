"""How time and memory grow with the corpus, from 1,000 to 1,000,000 sentences.

    python benchmarks/growth.py --out docs/growth.png

The sentences are made up. Measured are reading a corpus (through TFDS), writing and reading the knowledge store,
evaluation, tokenising the training split, 200 training steps, and prediction, with a random encoder of 2 layers, 32
wide; beyond `--model-up-to` sentences only the first four. Every measurement is a process of its own, so that its
highest memory is its own. Each size's stages run in turn, from the smallest size to the largest.

The last line is JSON; for each stage:
  seconds, cpu_seconds  at each size, by the clock and of all threads together
  slope                 of log seconds over log sentences, all sizes; 1 is linear, less where a fixed cost shows
  last_slope            the same between the two largest sizes, where a fixed cost shows least
  last_cpu_slope        the same of cpu_seconds, which other processes on the machine disturb less
  peak_mb, base_mb      the process's highest memory during the stage, and its memory before: imports, inputs, programs
  memory_ratio          peak_mb of the largest size to that of the smallest
  bytes_per_sentence    that the stage itself adds, between smallest and largest size
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

from growth_stages import FOR_ALL_SIZES, STAGES
from invented import write_corpus
from machine import describe

SIZES = (1_000, 10_000, 100_000, 1_000_000)

Taken = Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    sizes = sorted(set(options.sizes))
    if sizes[0] < 10:
        _parser().error("--sizes: each at least 10 sentences, so that every split has one")
    if options.out is not None and not importlib.util.find_spec("matplotlib"):
        _parser().error("--out needs matplotlib: pip install -r requirements-dev.txt")
    with tempfile.TemporaryDirectory() as folder:
        taken = measure(Path(folder), sizes, model_up_to=options.model_up_to)
    stages = {stage: summary(found) for stage, found in taken.items() if found}
    # Last, since both bring libraries into this process, and a child's highest memory begins at its parent's.
    if options.out is not None:
        plot(options.out, stages)
    print(json.dumps({"benchmark": "growth", "machine": describe(), "sizes": sizes, "stages": stages}))
    return 0


def measure(folder: Path, sizes: Sequence[int], *, model_up_to: int) -> dict[str, dict[int, Taken]]:
    """Measure every stage at every size; the model's only up to a size."""
    _run("invented", folder / "tokenizer")
    taken: dict[str, dict[int, Taken]] = {stage: {} for stage in STAGES}
    for size in sizes:
        here = folder / str(size)
        write_corpus(here / "corpus", size)
        (here / "tokenizer").symlink_to(folder / "tokenizer")
        for stage in STAGES:
            if stage in FOR_ALL_SIZES or size <= model_up_to:
                found = json.loads(_run("growth_stages", stage, here).splitlines()[-1])
                taken[stage][size] = found
                print(f"{size:>9,} {stage:12}{found['seconds']:9.2f} s{found['peak_mb']:8.0f} MB", flush=True)
        shutil.rmtree(here)
    return taken


def summary(found: Mapping[int, Taken]) -> dict[str, Any]:
    """One stage's numbers and how they grow."""
    sizes = sorted(found)
    smallest, largest = found[sizes[0]], found[sizes[-1]]
    added = (largest["peak_mb"] - largest["base_mb"]) - (smallest["peak_mb"] - smallest["base_mb"])
    return {
        "seconds": {size: round(found[size]["seconds"], 3) for size in sizes},
        "slope": slope({size: found[size]["seconds"] for size in sizes}),
        "last_slope": slope({size: found[size]["seconds"] for size in sizes[-2:]}),
        "cpu_seconds": {size: round(found[size]["cpu_seconds"], 3) for size in sizes},
        "last_cpu_slope": slope({size: found[size]["cpu_seconds"] for size in sizes[-2:]}),
        "peak_mb": {size: round(found[size]["peak_mb"]) for size in sizes},
        "base_mb": {size: round(found[size]["base_mb"]) for size in sizes},
        "memory_ratio": round(largest["peak_mb"] / smallest["peak_mb"], 2),
        "bytes_per_sentence": round(added * 2**20 / max(1, sizes[-1] - sizes[0])),
    }


def slope(values: Mapping[int, float]) -> float | None:
    """Least-squares slope of log value over log size, None where there is one size alone."""
    if len(values) < 2:
        return None
    fit = statistics.linear_regression([log(size) for size in values], [log(value) for value in values.values()])
    return round(fit.slope, 3)


def plot(path: Path, stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw seconds and highest memory over sentences."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, value, label in zip(axes, ("seconds", "peak_mb"), ("seconds", "highest memory, MB"), strict=True):
        for stage, found in stages.items():
            axis.loglog(list(found[value]), list(found[value].values()), marker="o", markersize=3, label=stage)
        axis.set(xlabel="sentences", ylabel=label)
        axis.grid(alpha=0.3)
    sizes = list(stages["read"]["seconds"])
    start = min(found["seconds"][sizes[0]] for found in stages.values())
    axes[0].loglog(sizes, [start * size / sizes[0] for size in sizes], "k:", linewidth=1, label="linear")
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=80)


def _run(script: str, *arguments: str | Path) -> str:
    """Run a file of this folder in a process of its own; returns what it printed.

    Raises:
        SystemExit: it failed.
    """
    environment = {"JAX_PLATFORMS": "cpu", **os.environ}
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {done.returncode}")
    return done.stdout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/growth.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="N", help="numbers of sentences")
    parser.add_argument(
        "--model-up-to", type=int, default=100_000, metavar="N", help="largest size to train and predict on"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="draw the plot there; needs matplotlib")
    return parser


if __name__ == "__main__":
    sys.exit(main())
