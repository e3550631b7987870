"""The train command's answers to wrong command lines: an exit code and a sentence, never a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

CONFIG = "--config=configs/mner15.py"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--config must have a value"),
        (["--config=configs/nope.py"], "the recipes are in configs/"),
        (["--config=configs"], "Is a directory"),
        ([f"{CONFIG}:big"], "it has small and small-without-knowledge"),
        ([CONFIG, "--config.detector.lr=1"], "'lr'"),
        ([CONFIG, "--config.seed=one"], "--config.seed=one"),
        ([CONFIG, "--wordkir=x"], "wordkir"),
    ],
)
def test_wrong_command_lines(arguments, said):
    command = [sys.executable, "-m", "scanner_jax.train", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 1
    assert said in run.stderr
    assert "Traceback" not in run.stderr
