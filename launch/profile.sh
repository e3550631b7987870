#!/usr/bin/env bash
# Times the steps of the paper's shapes, with floors, and writes traces: XLM-RoBERTa-large on Twitter-2015, stage 1 at
# batch 4, stage 2 at batch 8 with prompts of up to 128, 256 and 512 tokens.
#
#   bash launch/profile.sh                          on a GPU: all of it; on a CPU: a step or two of what 24 GB hold
#   bash launch/profile.sh --device="NVIDIA H100"   any flags of scanner_jax.profiling: here, another device's floors
#   ENCODER=xlm-roberta-large bash launch/profile.sh
#
# Weights are random, so the encoder's folder needs a config.json and a tokenizer.json alone. Leaves runs/profile-paper/:
# profile.json and a trace for each: .venv/bin/xprof --logdir=runs/profile-paper
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash launch/setup.sh
export XLA_PYTHON_CLIENT_PREALLOCATE=false # so that the most memory in use is what the steps need

python=.venv/bin/python
out=runs/profile-paper
common=(--config=configs/mner15.py --config.encoder="${ENCODER:-models/xlm-roberta-large-shape}" --random_weights)
if [[ "$("$python" -c 'import jax; print(jax.default_backend())')" == cpu ]]; then
    common+=(--steps=1 --shapes=1 --traced_steps=1)
    lengths=(128)
else
    common+=(--steps=20)
    lengths=(128 256 512)
fi

profile() {
    printf '\n== %s\n' "$1"
    "$python" -m scanner_jax.profiling "${common[@]}" --out="$out/$1" "${@:2}"
}

profile detector --stage=detector "$@"

store=prepared/knowledge/twitter2015
[[ -d $store/captions ]] || "$python" -m scanner_jax.store import captions data/captions/BLIP2_15.txt "$store"
[[ -f prepared/wikipedia.sqlite ]] ||
    "$python" -m scanner_jax.knowledge wikipedia build data/wikipedia/abstracts.jsonl prepared/wikipedia.sqlite
for tokens in "${lengths[@]}"; do
    profile "recognizer-$tokens" --stage=recognizer \
        --config.recognizer.max_tokens="$tokens" --config.recognizer.pack_width="$tokens" "$@"
done
