"""What computing in bfloat16 costs in F1: the detector's teacher on dev, against float32, over some seeds.

    python benchmarks/precision.py
    python benchmarks/precision.py --config configs/demo.py -- --config.epochs.detector_teacher=2

Runs the train command up to its first phase for every seed in both dtypes, each in a temporary folder of its own; what
stands behind `--` is passed on to it. By default that is Twitter-2015 with the small encoder (stage 1 is the same with
and without knowledge). The last line is JSON: `difference` is bfloat16's mean F1 less float32's, in percent, beside
the standard deviation over seeds of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import describe

from scanner_jax.encoder_config import COMPUTE_DTYPES
from scanner_jax.files import read_json

PHASE = "detector-teacher"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/mner15.py:small-without-knowledge")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("passed_on", nargs="*", metavar="-- OPTION", help="of scanner_jax.train")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {dtype: [] for dtype in COMPUTE_DTYPES}
    for seed in options.seeds:
        for dtype in COMPUTE_DTYPES:
            one = trained(options.config, seed=seed, dtype=dtype, passed_on=options.passed_on)
            found[dtype].append(one)
            print(f"seed {seed}, {dtype:<8}: span F1 on dev {one['f1']:.2f}, {one['seconds']:.0f} s", flush=True)
    print("\n" + table(options.seeds, found))
    print(json.dumps(summary(found) | {"config": options.config, "seeds": options.seeds, "machine": describe()}))


def trained(config: str, *, seed: int, dtype: str, passed_on: Sequence[str]) -> dict[str, float]:
    """Dev's span F1 in percent of a teacher, and how long the command took."""
    with tempfile.TemporaryDirectory() as folder:
        own = [f"--config={config}", f"--workdir={folder}", f"--until={PHASE}", f"--config.seed={seed}"]
        command = [sys.executable, "-m", "scanner_jax.train", *own, f"--config.execution.compute_dtype={dtype}"]
        started = time.perf_counter()
        done = subprocess.run([*command, *passed_on], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(done.args)} failed:\n{done.stderr}")
        (result,) = Path(folder, "phases").glob(f"{PHASE}-*/result.json")
        return {"f1": read_json(result)["dev"]["f1"], "seconds": time.perf_counter() - started}


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Means, deviations over seeds, and the difference."""
    scores = {dtype: [one["f1"] for one in runs] for dtype, runs in found.items()}
    means = {dtype: statistics.mean(values) for dtype, values in scores.items()}
    return {
        "benchmark": "precision",
        "difference": round(means["bfloat16"] - means["float32"], 3),
        "f1": scores,
        "mean": {dtype: round(mean, 3) for dtype, mean in means.items()},
        "deviation": {
            dtype: round(statistics.stdev(values), 3) if len(values) > 1 else None for dtype, values in scores.items()
        },
        "seconds": {dtype: round(sum(one["seconds"] for one in runs), 1) for dtype, runs in found.items()},
    }


def table(seeds: Sequence[int], found: dict[str, list[dict[str, float]]]) -> str:
    """In Markdown."""
    lines = [f"| span F1 on dev | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |"]
    lines.append("|---" * (len(seeds) + 2) + "|")
    for dtype, runs in found.items():
        scores = [one["f1"] for one in runs]
        lines.append(f"| {dtype} | {' | '.join(f'{score:.2f}' for score in scores)} | {statistics.mean(scores):.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
