"""docs/using.md: every command and snippet in it runs, in its order, on a tiny model in place of the demo's."""

from __future__ import annotations

import importlib
import io
import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from gradio_client import Client
from PIL import Image

from scanner_jax import export
from scanner_jax.files import read_json
from scanner_jax.store import write_kind

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
    export.export(folder / "runs" / "demo", folder / "exported" / "demo")  # as launch/demo.sh does
    (folder / "models").symlink_to(tiny_experts)
    (folder / "tweets.txt").write_text("saw Ada again\nOslo and Zen Bank\n")
    Image.new("RGB", (60, 40), "teal").save(folder / "photo.jpg")
    (images := folder / "prepared" / "demo" / "tweets" / "images").mkdir()
    Image.new("RGB", (60, 40), "teal").save(images / "101066.png")
    write_kind(folder / "prepared" / "demo" / "knowledge", "captions", [("101066", {"text": "a photo"})], {})
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
        assert words[:2] == ["python", "-m"]
        page = words[2] == "scanner_jax.app"
        main = importlib.import_module(f"{words[2]}.__main__" if page else words[2]).main
        status: int = visit(main, words[3:]) if page else main(words[3:])
        assert status == 0, line


def visit(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run the page's command, which goes on until a signal, while a visitor asks something and then sends one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ended = threading.Event()
    answers: list[str] = []

    def ask() -> None:
        while not ended.wait(0.2):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:  # it does not listen yet
                continue
            try:
                patience = {"timeout": 300}
                client = Client(
                    f"http://127.0.0.1:{port}", verbose=False, analytics_enabled=False, httpx_kwargs=patience
                )
                answers.append(client.predict("saw Ada again", None, api_name="/find"))
            except Exception as error:
                answers.append(repr(error))
            if not ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
            return

    visitor = threading.Thread(target=ask)
    visitor.start()
    try:
        status = main([*arguments, "--port", str(port)])
    finally:
        ended.set()
        visitor.join()
    assert 'class="sentence"' in answers[0], answers
    return status - 128 - signal.SIGTERM


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
    pytest.importorskip("spacy", reason='a section needs spaCy: pip install "scanner_jax[spacy]"')
    import scanner_jax.spacy_component  # noqa: F401 (as its entry point would, where the package is installed)

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
