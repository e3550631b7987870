#!/usr/bin/env bash
# Sets up, then lints, checks types and runs the tests, offline and on the CPU.
#
#   bash launch/test.sh                          all but the slow tests
#   bash launch/test.sh -m slow                  the slow ones; any pytest arguments go here
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh

export HF_HUB_OFFLINE=1 JAX_PLATFORMS=cpu
python=.venv/bin/python
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy scanner_jax
"$python" -m pytest -n auto --maxprocesses=4 --dist=worksteal "$@"
