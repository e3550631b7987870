#!/usr/bin/env bash
# Builds .venv in the repository's root, or reuses it: what the project runs on, its tools, and the project itself.
#
#   bash launch/setup.sh                     JAX for CUDA where an NVIDIA GPU is present, else for the CPU
#   PYTHON=python3.12 bash launch/setup.sh   with another Python (3.11 or 3.12)
#
# Installs with uv where there is one, else with pip. PIP_FIND_LINKS (a folder of wheels) serves both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv_python=.venv/bin/python

# A Python that was asked for, else the environment's own, else the system's.
if [[ -n "${PYTHON:-}" ]]; then
    python=$PYTHON
elif "$venv_python" -c "" 2>/dev/null; then
    python=$venv_python
else
    python=python3
fi
if ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
    echo "setup: cannot run $python; install Python 3.11 or 3.12, or name one: PYTHON=python3.12 bash launch/setup.sh" >&2
    exit 1
fi
case $version in
    3.11 | 3.12) ;;
    *)
        echo "setup: $python is Python $version, needed is 3.11 or 3.12; name one: PYTHON=python3.12 bash launch/setup.sh" >&2
        exit 1
        ;;
esac

if [[ "$(nvidia-smi -L 2>/dev/null || true)" == *GPU* ]]; then
    requirements=requirements.txt
else
    requirements=requirements-cpu.txt
fi

# Written last, so that an interrupted installation is never taken for a whole one. The folder is in it
# because an environment does not survive being moved.
stamp=.venv/scanner_jax.stamp
wanted=$({ echo "$version $requirements $PWD"; cat "$requirements" requirements-app.txt requirements-dev.txt pyproject.toml; } | cksum)
if [[ -x "$venv_python" && "$(cat "$stamp" 2>/dev/null)" == "$wanted" ]]; then
    echo "setup: .venv is up to date (Python $version, $requirements)"
    exit 0
fi
rm -f "$stamp"
echo "setup: building .venv (Python $version, $requirements)"

current=$("$venv_python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
if uv --version >/dev/null 2>&1; then
    [[ "$current" == "$version" ]] || uv venv --quiet --clear --python "$python" .venv
    if [[ -n "${PIP_FIND_LINKS:-}" ]]; then
        export UV_FIND_LINKS="${PIP_FIND_LINKS// /,}" # pip separates by blanks, uv by commas
    fi
    install=(uv pip install --quiet --python "$venv_python")
else
    [[ "$current" == "$version" ]] || "$python" -m venv --clear .venv
    "$venv_python" -m pip --version >/dev/null 2>&1 || "$venv_python" -m ensurepip >/dev/null
    install=("$venv_python" -m pip install --quiet)
fi

# All requirements in one call: a second one could replace torch by a build that torchvision does not match.
"${install[@]}" -r "$requirements" -r requirements-app.txt -r requirements-dev.txt
"${install[@]}" --no-deps --editable .
echo "$wanted" >"$stamp"
echo "setup: done; activate it with: source .venv/bin/activate"
