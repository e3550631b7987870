"""The layout: each room imports only from rooms above it, torch and Gradio stay in one each, files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "scanner_jax"

# From top to bottom; a room is a module of scanner_jax or a package in it.
ROOMS = """
    types files spill noted lock interrupt processes throughput boxes images tags tokens metrics grounding protocols
    predictions alignment devices encoder_config costs layers attention encoder convert models losses awp optim
    corpora store images wikipedia retrieval prompts packing pipeline vocabulary placement stepping forward
    metering watching
    scoring evaluate checkpoint progress beginning loop detection candidates decoding recognition analysis
    settings warmstart config_problems inputs phases runs stages ranking recipe gallery report command_line train
    profiling
    torch_folders stablehlo stablehlo_example exported model_card words export
    compilation_cache warming experts gathering questions scanner sentences drawing model_options predict app
    spacy_component knowledge demo __main__
""".split()
ONLY_IN = {
    "knowledge": ("torch", "torchvision", "open_clip", "timm"),
    "app": ("gradio", "fastapi", "starlette", "uvicorn"),
}
"""Packages that one room alone may import."""
LINES = 320
"""About 300 is the aim; this much is never needed."""


class Import(NamedTuple):
    """One name that a file imports, dotted in full; `lazy` where only a function's body does."""

    line: int
    name: str
    lazy: bool


def imports(file: Path, package: Path) -> Iterator[Import]:
    """Every import of a file, wherever in the file it stands."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lazy = {inner for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, node in lazy)
        elif isinstance(node, ast.ImportFrom):
            folders = file.relative_to(package.parent).parts[:-1]
            base = [*folders[: len(folders) - node.level + 1]] if node.level else []
            for alias in node.names:
                yield Import(node.lineno, ".".join([*base, *filter(None, [node.module]), alias.name]), node in lazy)


def room_of(file: Path, package: Path) -> str:
    """The room that a file is or lies in; the package's own `__init__` is above them all."""
    return file.relative_to(package).with_suffix("").parts[0]


def layout_problems(package: Path, rooms: list[str]) -> list[str]:
    """Everything about a package that breaks the layout, one line each."""
    problems = []
    for file in sorted(package.rglob("*.py")):
        room, place = room_of(file, package), file.relative_to(package.parent)
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LINES:
            problems.append(f"{place}: {lines} lines; {LINES} are the most: split it")
        if "utils" in file.relative_to(package).with_suffix("").parts:
            problems.append(f"{place}: name it after what it does")
        if room not in [*rooms, "__init__"]:
            problems.append(f"{place}: add {room!r} to ROOMS in tests/test_rooms.py, below all that it imports from")
            continue
        above = rooms[: rooms.index(room) + 1] if room in rooms else []
        for line, name, lazy in imports(file, package):
            root, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if owner := next((own for own, names in ONLY_IN.items() if root in names and own != room), None):
                problems.append(f"{place}:{line}: imports {root}, which only {owner}/ may")
            if root != package.name or target in ["", "__version__", *above]:
                continue
            if not (lazy and file.name == "__main__.py"):  # a command may reach for what it needs
                problems.append(f"{place}:{line}: imports {target}, which is not above {room}")
    return problems


def test_scanner_jax_keeps_its_layout() -> None:
    assert "\n".join(layout_problems(PACKAGE, ROOMS)) == ""


def test_the_walk_sees_the_package() -> None:
    found = {
        (room_of(file, PACKAGE), found.name.split(".")[1])
        for file in PACKAGE.rglob("*.py")
        for found in imports(file, PACKAGE)
        if found.name.startswith("scanner_jax.")
    }
    assert {("tags", "types"), ("metrics", "types")} <= found


@pytest.mark.parametrize(
    ("file", "source", "problem"),
    [
        ("types.py", "from house.tags import f", "types.py:1: imports tags, which is not above types"),
        ("types.py", "import house.tags", "types.py:1: imports tags"),
        ("types.py", "from house import tags", "types.py:1: imports tags"),
        ("types.py", "from . import tags", "types.py:1: imports tags"),
        ("types.py", "from .tags import f", "types.py:1: imports tags"),
        ("types.py", "def f():\n    from house.tags import g", "types.py:2: imports tags"),
        ("__init__.py", "from house.types import Box", "imports types, which is not above __init__"),
        ("knowledge/__main__.py", "from house.demo import f", "imports demo"),
        ("knowledge/images.py", "from ..demo import f", "imports demo"),
        ("tags.py", "import torch.nn as nn", "tags.py:1: imports torch, which only knowledge/ may"),
        ("tags.py", "def f():\n    from torchvision import ops", "tags.py:2: imports torchvision"),
        ("knowledge/page.py", "import gradio as gr", "page.py:1: imports gradio, which only app/ may"),
        ("extra.py", "", "add 'extra' to ROOMS"),
        ("utils.py", "", "name it after what it does"),
        ("knowledge/utils.py", "", "name it after what it does"),
        ("tags.py", "#\n" * (LINES + 1), f"{LINES + 1} lines"),
    ],
)
def test_each_breach_is_found(tmp_path: Path, file: str, source: str, problem: str) -> None:
    path = tmp_path / "house" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    problems = layout_problems(tmp_path / "house", ["types", "tags", "knowledge", "demo"])
    assert any(problem in found for found in problems)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("tags.py", "from house import __version__\nfrom house.types import Box\nimport house.types, numpy"),
        ("knowledge/clip.py", "import torch, open_clip\nfrom .image import f\nfrom house.knowledge import image"),
        ("knowledge/__main__.py", "def main():\n    from house.demo import draw"),
        ("tags.py", "#\n" * LINES),
    ],
)
def test_what_is_allowed_passes(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / "house" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert layout_problems(tmp_path / "house", ["types", "tags", "knowledge", "demo"]) == []
