"""Set-up: the requirement lists agree with each other and with the imports; launch/setup.sh builds once."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LISTS = ("requirements.txt", "requirements-cpu.txt", "requirements-app.txt", "requirements-dev.txt")
FILES = ("launch/setup.sh", "pyproject.toml", *LISTS)


def requirements(name: str) -> list[str]:
    """The lines of a requirements file without comments."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [line for line in lines if line]


def names_of(list_name: str) -> set[str]:
    """The packages in a requirements file; Gradio brings the server that it runs in."""
    names = {re.split(r"[^\w.-]", line)[0].replace("_", "-").lower() for line in requirements(list_name)}
    return names | {"fastapi", "starlette", "uvicorn"} if "gradio" in names else names


def test_the_two_lists_differ_in_the_build_of_jax_only() -> None:
    cuda = requirements("requirements.txt")
    assert [line for line in cuda if line.startswith("jax[cuda]")]
    assert [line.replace("jax[cuda]", "jax") for line in cuda] == requirements("requirements-cpu.txt")


def test_every_package_that_is_imported_is_required() -> None:
    distributions = importlib.metadata.packages_distributions()
    package = ROOT / "scanner_jax"
    everywhere = names_of("requirements-cpu.txt")
    optional = {"app": names_of("requirements-app.txt"), "spacy_component.py": names_of("requirements-spacy.txt")}
    missing = set()
    for file in package.rglob("*.py"):
        named = everywhere | optional.get(file.relative_to(package).parts[0], set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for root in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"scanner_jax"}:
                providers = {name.replace("_", "-").lower() for name in distributions.get(root, [root])}
                if not providers & named:
                    missing.add(f"{file.relative_to(ROOT)}: {root}")
    assert missing == set()


class Checkout:
    """A copy of what setup.sh reads, with stand-ins for uv and nvidia-smi that install nothing."""

    def __init__(self, folder: Path) -> None:
        self.root, self.tools, self.calls = folder / "check out", folder / "tools", folder / "calls"
        for name in FILES:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.tools.mkdir()
        make_environment = f'mkdir -p .venv/bin && ln -sf "{sys.executable}" .venv/bin/python'
        self.tool("uv", f'echo "$UV_FIND_LINKS $*" >>"{self.calls}"\nif [ "$1" = venv ]; then {make_environment}; fi')
        self.tool("nvidia-smi", "exit 9")

    def tool(self, name: str, script: str) -> None:
        (self.tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.tools / name).chmod(0o755)

    def setup(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run setup.sh from another folder; `calls` then holds what it asked of uv this time."""
        self.calls.write_text("")
        path = f"{self.tools}{os.pathsep}/usr/bin{os.pathsep}/bin"
        inherited = {name: value for name, value in os.environ.items() if not name.endswith("_FIND_LINKS")}
        return subprocess.run(
            ["bash", str(self.root / "launch/setup.sh")],
            cwd="/",
            env={**inherited, "PATH": path, "PYTHON": sys.executable, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def installed(self) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if " pip install " in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    return Checkout(tmp_path)


def test_setup_installs_once_and_again_when_a_list_changes(checkout: Checkout) -> None:
    assert checkout.setup().returncode == 0
    together, project = checkout.installed()
    assert together.endswith("-r requirements-cpu.txt -r requirements-app.txt -r requirements-dev.txt")
    assert project.endswith("--no-deps --editable .")
    again = checkout.setup()
    assert (again.returncode, checkout.installed()) == (0, [])
    assert "up to date" in again.stdout
    with (checkout.root / "requirements-cpu.txt").open("a") as file:
        file.write("another\n")
    assert checkout.setup().returncode == 0
    assert len(checkout.installed()) == 2


def test_setup_does_not_take_an_interrupted_installation_for_a_whole_one(checkout: Checkout) -> None:
    uv = (checkout.tools / "uv").read_text()
    (checkout.tools / "uv").write_text(uv + '[ "$2" != install ]\n')
    assert checkout.setup().returncode != 0
    (checkout.tools / "uv").write_text(uv)
    assert checkout.setup().returncode == 0
    assert len(checkout.installed()) == 2


def test_setup_takes_the_cuda_list_beside_a_gpu(checkout: Checkout) -> None:
    checkout.setup()
    checkout.tool("nvidia-smi", "echo 'GPU 0: some card'")
    assert checkout.setup().returncode == 0
    assert "-r requirements.txt" in checkout.installed()[0]


def test_setup_passes_folders_of_wheels_on(checkout: Checkout) -> None:
    assert checkout.setup(PIP_FIND_LINKS="/one /two").returncode == 0
    assert all(line.startswith("/one,/two ") for line in checkout.installed())


@pytest.mark.parametrize("answer", ["echo 3.10", "exit 1"])
def test_setup_names_the_pythons_it_takes(checkout: Checkout, answer: str) -> None:
    checkout.tool("old-python", answer)
    result = checkout.setup(PYTHON="old-python")
    assert result.returncode == 1
    assert "3.11 or 3.12" in result.stderr
    assert "old-python" in result.stderr
    assert not (checkout.root / ".venv").exists()
