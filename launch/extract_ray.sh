#!/usr/bin/env bash
# Runs an expert over images on the workers of Ray, each with the model loaded once (and a GPU, where there are any).
#
#   bash launch/extract_ray.sh captions IMAGES STORE --ray-workers 8
#   bash launch/extract_ray.sh objects IMAGES STORE --ray-workers 2 --ray-task 16     any options of the command
#
# On one machine nothing else is needed. For several, start Ray on each (`ray start --head` on the first, `ray start
# --address=FIRST:6379` on the others) and run this with RAY_ADDRESS=auto on one that has a GPU like the rest; images,
# store, models and this folder need the same paths on all. A worker that dies is started again; a run that is stopped
# goes on with the same command, with Ray or without. Without --ray-workers there are as many as this machine has GPUs,
# or else two.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# < 3)) || [[ $1 == -* ]]; then
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
bash launch/setup.sh
python=.venv/bin/python
if ! "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("ray") is None)'; then
    echo "Ray is not installed: .venv/bin/pip install -r requirements-ray.txt" >&2
    exit 1
fi
workers=()
if [[ " $* " != *" --ray-workers"* ]]; then
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
    workers=(--ray-workers "$((gpus > 0 ? gpus : 2))")
fi
exec "$python" -m scanner_jax.knowledge "$@" ${workers[@]+"${workers[@]}"}
