"""The knowledge command: its subcommands are imported one at a time, and Wikipedia's without torch or JAX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scanner_jax.knowledge.__main__ import SUBCOMMANDS, main

PAGES = '{"title": "Lake Tamsin", "text": "A lake of the north."}\n{"title": "Mira Okafor", "text": "A player."}\n'


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    (tmp_path / "pages.jsonl").write_text(PAGES + '{"title": "Lake Tamsin", "text": "Again."}\n')
    return tmp_path / "pages.jsonl"


def test_build_and_lookup(pages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = str(tmp_path / "new" / "index.sqlite")
    assert main(["wikipedia", "build", str(pages), index]) == 0
    captured = capsys.readouterr()
    assert "2 pages -> " in captured.out
    assert "title seen before: 1" in captured.out
    assert "failed: 0" in captured.out
    assert "3 read" in captured.err
    assert main(["wikipedia", "lookup", index, "Mira Okafor", "#LakeTamsin", "nobody"]) == 0
    assert capsys.readouterr().out == (
        "Mira Okafor: Mira Okafor (exact)\nA player.\n\n#LakeTamsin: Lake Tamsin (normalised)\nA lake of the north.\n\n"
        "nobody: not found (tried: exact, redirect, normalised, disambiguation, fulltext)\n"
    )
    assert main(["wikipedia", "lookup", index, "#LakeTamsin", "--lookups=exact"]) == 1
    assert capsys.readouterr().out == "#LakeTamsin: not found (tried: exact)\n"
    assert main(["wikipedia", "lookup", index, "north", "--score=0.1", "--lookups=fulltext"]) == 0
    assert "north: Lake Tamsin (fulltext)" in capsys.readouterr().out


def test_what_failed_and_where_redirects_lead_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = "<page><title>{}</title><ns>{}</ns>{}<revision><text>{}</text></revision></page>"
    dump = [
        page.format("Ulm", 0, "", "A [[town]]."),
        page.format("Ulm, Town", 0, '<redirect title="Ulm" />', ""),
        page.format("Gone", 0, '<redirect title="Nowhere" />', ""),
        page.format("Talk:Ulm", 1, "", "Is it?"),
        page.format("Bare", 0, "", "{{stub}}"),
    ]
    (tmp_path / "dump.xml").write_text(f"<mediawiki>{''.join(dump)}</mediawiki>")
    index = str(tmp_path / "index.sqlite")
    assert main(["wikipedia", "build", str(tmp_path / "dump.xml"), index, "--workers=1"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "1 pages -> ",
        "redirects: 1, and 1 that lead to no page",
        "other namespaces: 1",
        "no text: 1",
        "failed: 0",
    ):
        assert line in printed
    assert main(["wikipedia", "lookup", index, "Ulm, Town"]) == 0
    assert capsys.readouterr().out == "Ulm, Town: Ulm (redirect of 'Ulm, Town')\nA town.\n\n"


def test_wrong_command_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (([], "no subcommand given"), (["wikipaedia"], "no subcommand 'wikipaedia'")):
        assert main(arguments) == 2
        answer = capsys.readouterr().err
        assert said in answer
        assert "build the index of Wikipedia's texts" in answer
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in SUBCOMMANDS)


def test_wikipedia_needs_neither_torch_nor_jax(pages: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom scanner_jax.knowledge.__main__ import main\n"
        f"assert main(['wikipedia', 'build', {str(pages)!r}, {str(tmp_path / 'i.sqlite')!r}]) == 0\n"
        "heavy = {'torch', 'jax', 'transformers', 'torchvision'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
