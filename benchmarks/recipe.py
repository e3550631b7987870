"""Where the recipe's time goes, phase by phase, and how soon the first step comes.

    python benchmarks/recipe.py [--tweets N] [--config FILE:VARIANT]

Runs the train command on the first tweets of each split of Twitter-2015 in a temporary folder, twice: first with
nothing compiled, then in a fresh folder with the first run's cache of compiled steps. For each phase it prints the
seconds that went into compiling, reading (waiting for batches), stepping, evaluating on dev, saving (waiting for
checkpoints), and all else (reading weights, tokenising, tagging the splits), as the loop's own `seconds.json` has them.
The last line is JSON: `first_step_seconds` is from the command's start to the end of the first training step, for both
runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import describe

from scanner_jax.files import read_json, read_json_lines
from scanner_jax.progress import METRICS, SECONDS

CORPUS = Path("data/twitter2015")
CONFIG = "configs/mner15.py:small-without-knowledge"
SPLITS = ("train", "valid", "test")
KINDS = ("compiling", "reading", "stepping", "evaluating", "saving", "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tweets", type=int, default=200, help="of each split (default: 200)")
    parser.add_argument("--config", default=CONFIG, help=f"the recipe (default: {CONFIG})")
    options = parser.parse_args()
    if not CORPUS.is_dir():
        parser.exit(1, f"error: {CORPUS} is missing; docs/data.md says where it is published\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cut_corpus(folder / "tweets", options.tweets)
        runs = {name: run(options.config, folder, name) for name in ("cold", "warm")}
    for name, found in runs.items():
        print(f"\n{name} cache: {found['seconds']:.1f} s, the first step after {found['first_step_seconds']:.1f} s")
        print(f"{'seconds':<20}" + "".join(f"{kind:>12}" for kind in (*KINDS, "all")))
        for phase, spent in found["phases"].items():
            columns = [spent.get(kind, 0.0) for kind in KINDS]
            print(f"{phase:<20}" + "".join(f"{value:12.1f}" for value in (*columns, sum(columns))))
    result = {
        "benchmark": "recipe",
        "tweets": options.tweets,
        "first_step_seconds": {name: found["first_step_seconds"] for name, found in runs.items()},
        "seconds": {name: found["seconds"] for name, found in runs.items()},
        "phases": {name: found["phases"] for name, found in runs.items()},
        "machine": describe(),
    }
    print(json.dumps(result))


def cut_corpus(folder: Path, tweets: int) -> None:
    """Write the first tweets of every split."""
    folder.mkdir()
    for split in SPLITS:
        blocks = (CORPUS / f"{split}.txt").read_text(encoding="utf-8").split("\n\n")
        (folder / f"{split}.txt").write_text("\n\n".join(blocks[:tweets]) + "\n", encoding="utf-8")


def run(config: str, folder: Path, name: str) -> dict[str, Any]:
    """Run the train command to its end and read what its phases say of their time."""
    paths = [f"--workdir={folder / name}", f"--prepared={folder / 'prepared'}", f"--config.corpus={folder / 'tweets'}"]
    habits = [f"--config.{stage}.log_every=1" for stage in ("detector", "recognizer")]
    started = time.time()
    subprocess.run([sys.executable, "-m", "scanner_jax.train", f"--config={config}", *paths, *habits], check=True)
    seconds = time.time() - started
    phases = {phase.name.rpartition("-")[0]: phase for phase in order(folder / name / "phases")}
    first = min(record["time"] for phase in phases.values() for record in records(phase))
    return {
        "seconds": round(seconds, 1),
        "first_step_seconds": round(first - started, 1),
        "phases": {phase: spent(path) for phase, path in phases.items()},
    }


def order(root: Path) -> list[Path]:
    """The folders of phases, the first begun first."""
    return sorted(root.iterdir(), key=lambda folder: (folder / "phase.json").stat().st_mtime)


def records(phase: Path) -> Iterator[dict[str, Any]]:
    path = phase / METRICS
    return itertools.islice(read_json_lines(path), 1) if path.exists() else iter(())


def spent(phase: Path) -> dict[str, float]:
    """Seconds by what they went into."""
    whole = (phase / "result.json").stat().st_mtime - (phase / "phase.json").stat().st_mtime
    seconds = read_json(phase / SECONDS) if (phase / SECONDS).exists() else {}
    return {**seconds, "other": round(whole - sum(seconds.values()), 3)}


if __name__ == "__main__":
    main()
