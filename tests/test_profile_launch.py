"""launch/profile.sh gives commands that exist, and fewer steps on a CPU; a stand-in for Python writes them down."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from absl import flags
from test_configs import load

from scanner_jax import profiling

ROOT = Path(__file__).parent.parent


def commands(checkout: Path, backend: str, *arguments: str) -> list[list[str]]:
    """The words of each command that the script gives where JAX has this backend."""
    shutil.copytree(ROOT / "launch", checkout / "launch")
    (checkout / "launch" / "setup.sh").write_text("")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then echo {backend}; else echo "$@" >>calls; fi\n')
    python.chmod(0o755)
    subprocess.run(["bash", "launch/profile.sh", *arguments], cwd=checkout, check=True, capture_output=True)
    return [line.split() for line in (checkout / "calls").read_text().splitlines()]


@pytest.mark.parametrize(("backend", "lengths"), [("gpu", [128, 256, 512]), ("cpu", [128])])
def test_the_papers_shapes(tmp_path: Path, backend: str, lengths: list[int]) -> None:
    given = commands(tmp_path, backend, "--peak_tflops=1", "--bandwidth_gbs=2")
    assert sum("scanner_jax.store" in words for words in given) == 1  # captions, which were not there
    assert sum("scanner_jax.knowledge" in words for words in given) == 1  # nor was Wikipedia
    runs = [words[2:] for words in given if words[1] == profiling.__spec__.name]
    assert [next(word for word in run if word.startswith("--stage=")) for run in runs] == [
        "--stage=detector",
        *["--stage=recognizer"] * len(lengths),
    ]
    config = load("mner15")
    for run in runs:
        names = {word.removeprefix("--").partition("=")[0] for word in run}
        assert {name for name in names if not name.startswith("config.") and name not in flags.FLAGS} == set()
        for name in names - {"config"}:
            section = config
            for part in name.split(".")[1:]:
                section = section[part]  # a setting that is none is a KeyError
        assert "--peak_tflops=1" in run and ("--steps=1" in run) == (backend == "cpu")
    given_lengths = [
        int(word.split("=")[1]) for run in runs for word in run if word.startswith("--config.recognizer.max")
    ]
    assert given_lengths == lengths
    assert len({word for run in runs for word in run if word.startswith("--out=")}) == len(runs)
