#!/usr/bin/env bash
# Train with several processes, on one host or many, which see the same folders: the same command in each of them.
#
#   srun bash launch/train_multihost.sh --config=configs/mner15.py        # SLURM tells each process who it is
#
#   COORDINATOR=host0:6006 PROCESSES=2 PROCESS=0 bash launch/train_multihost.sh --config=configs/mner15.py    # on host0
#   COORDINATOR=host0:6006 PROCESSES=2 PROCESS=1 bash launch/train_multihost.sh --config=configs/mner15.py    # on host1
#
# All devices of all processes take part; --config.mesh.data and --config.mesh.fsdp arrange them. A process may be
# killed: the others end too, and the same commands go on from the last checkpoint. docs/scaling.md says more.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -n "${COORDINATOR:-}" ]]; then
    joining=(--coordinator="$COORDINATOR" --processes="${PROCESSES:?how many processes}" --process="${PROCESS:?which one, from 0}")
elif [[ -n "${SLURM_PROCID:-}${OMPI_COMM_WORLD_RANK:-}" ]]; then
    joining=(--coordinator=auto)
else
    echo "Say who takes part, with COORDINATOR=HOST:PORT PROCESSES=N PROCESS=I, or start this with srun or mpirun." >&2
    exit 2
fi
[[ -f .venv/bin/activate ]] && source .venv/bin/activate
# Each process tunes its kernels by itself: together, one would wait for others that have left out a shape.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_shard_autotuning=false"

[[ "$*" == *--config.mesh.data=* ]] || set -- "$@" --config.mesh.data=-1

python -u -m scanner_jax.train "${joining[@]}" "$@"
code=$?
if ((code != 0)); then
    echo "This process ended with status $code. If nothing above says why, another one has ended first, and its output" \
        "says why. The same commands, given to all of them, go on from the last checkpoint." >&2
fi
exit "$code"
