#!/usr/bin/env bash
# Times training on a GPU within 8 minutes and prints one table for docs/performance.md. Downloads and installs nothing:
# it wants an environment as launch/setup.sh makes it, data/ and models/.
#
#   bash launch/bench_gpu.sh           our step against PyTorch's; the whole Twitter-2015 recipe, estimated
#   bash launch/bench_gpu.sh --f1      then also bfloat16's F1 against float32's, and configs/mner15.py:small with longer
#                                      training and three seeds; that takes as long as it takes
#   bash launch/bench_gpu.sh --quick   the same commands with tiny sizes, to try them on a CPU
#
# BUDGET (seconds, 480), ENCODER (models/xlm-roberta-large-shape) and PYTHON (.venv/bin/python) can be set. All that is
# printed lies in runs/bench-gpu/ as well. A part that fails, or for which no time is left, leaves its rows unmeasured.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

quick=false f1=false
for option in "$@"; do
    case $option in
        --quick) quick=true ;;
        --f1) f1=true ;;
        *)
            echo "bench_gpu: unknown option $option; it has --quick and --f1" >&2
            exit 2
            ;;
    esac
done
python=${PYTHON:-.venv/bin/python}
budget=${BUDGET:-480}
out=${OUT:-runs/bench-gpu}
mkdir -p "$out"
export HF_HUB_OFFLINE=1 XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}.

if $quick; then
    encoder=${ENCODER:-models/granite-30m-english}
    step_options=(--cases detector 32 --sides ours eager --steps 1)
    recipe_options=(--config configs/mner15.py:small-without-knowledge --steps 1 --shapes 1 --sentences 8)
else
    encoder=${ENCODER:-models/xlm-roberta-large-shape}
    step_options=(--without-dropout --awp --seconds $((budget * 55 / 100)))
    recipe_options=()
fi

# Run a part for as long as the budget has left, beside a file with what it prints.
part() {
    local name=$1 left=$((budget - SECONDS))
    shift
    printf '\n== %s (%d s left)\n' "$name" "$left" >&2
    rm -f "$out/$name.txt"
    ((left > 0)) || return
    timeout "$left" "$@" | tee "$out/$name.txt" >&2 || echo "bench_gpu: $name did not end well" >&2
}

part train_step "$python" benchmarks/train_step.py --encoder "$encoder" "${step_options[@]}"

store=prepared/knowledge/twitter2015
if ! $quick && [[ ! -d $store/captions ]]; then
    part captions "$python" -m scanner_jax.store import captions data/captions/BLIP2_15.txt "$store"
fi
if ! $quick && [[ ! -f prepared/wikipedia.sqlite ]]; then
    part wikipedia "$python" -m scanner_jax.knowledge wikipedia build data/wikipedia/abstracts.jsonl prepared/wikipedia.sqlite
fi
part whole_recipe "$python" benchmarks/whole_recipe.py --encoder "$encoder" "${recipe_options[@]}"

"$python" benchmarks/gpu_table.py "$out" | tee "$out/table.md"
printf '\ntook %d s\n' "$SECONDS" >&2

if $f1; then
    "$python" benchmarks/precision.py
    [[ -d $store/notes ]] ||
        "$python" -m scanner_jax.store import notes data/chatgpt/twitter2015 "$store" --corpus data/twitter2015
    longer=(--config.epochs.detector_teacher=10 --config.epochs.detector_folds=4 --config.epochs.detector_student=10
        --config.epochs.recognizer_teacher=5 --config.epochs.recognizer_student=5)
    for seed in 1 2 3; do
        "$python" -m scanner_jax.train --config=configs/mner15.py:small --workdir="runs/mner15-small-long-$seed" \
            --config.seed="$seed" "${longer[@]}"
    done
fi
