"""docs/using.md: every command and snippet in it runs, in its order, on a tiny model in place of the demo's."""

from __future__ import annotations

import importlib
import io
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scanner_jax.files import read_json

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "using.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(finished_run: Path, tiny_experts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the page names."""
    folder = tmp_path_factory.mktemp("using")
    config = read_json(finished_run / "run.json")["config"]
    shutil.copytree(finished_run, folder / "runs" / "demo")
    (folder / "prepared" / "demo").mkdir(parents=True)
    shutil.copytree(config["corpus"], folder / "prepared" / "demo" / "tweets")
    shutil.copytree(config["knowledge"]["store"], folder / "prepared" / "demo" / "knowledge")
    shutil.copy(config["knowledge"]["wikipedia_index"], folder / "prepared" / "demo" / "wikipedia.sqlite")
    (folder / "models").symlink_to(tiny_experts)
    (folder / "tweets.txt").write_text("saw Ada again\nOslo and Zen Bank\n")
    Image.new("RGB", (60, 40), "teal").save(folder / "photo.jpg")
    return folder


def run_bash(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each `python -m MODULE ...` of a block in this process, after `echo TEXT |` with that text as its input.

    `python FILE` is run in one of its own, without this folder on its path.
    """
    for line in block.replace("\\\n", " ").splitlines():
        *piped, words = [list(part) for _, part in _parts(shlex.split(line))]
        if piped:
            (echo,) = piped
            assert echo[0] == "echo"
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{echo[1]}\n".encode())))
        if words[1] != "-m":
            subprocess.run([sys.executable, "-I", *words[1:]], check=True)
            continue
        assert words[0] == "python"
        status: int = importlib.import_module(words[2]).main(words[3:])
        assert status == 0, line


def _parts(words: list[str]) -> list[tuple[bool, list[str]]]:
    """The commands of a pipe."""
    return [(pipe, list(part)) for pipe, part in itertools.groupby(words, "|".__eq__) if not pipe]


def test_the_page_runs_from_top_to_bottom(
    place: Path,
    experts_process: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(place)
    for kind, block in BLOCKS:
        if kind == "bash":
            run_bash(block, monkeypatch)
        else:
            exec(compile(block, "docs/using.md", "exec"), {})
        assert capfd.readouterr().out, block
    assert len(BLOCKS) >= 8
    assert "pictures are not looked at" not in caplog.text
    made = ("predictions.jsonl", "predictions.conll", "drawn.png", "exported/demo-torch/detector/config.json")
    assert all((place / name).is_file() for name in made)
