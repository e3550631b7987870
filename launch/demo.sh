#!/usr/bin/env bash
# From nothing to a table: sets up, generates a corpus with pictures and knowledge, pretrains a small encoder on invented
# text, and trains the paper's recipe with and without knowledge. What is finished is not run again.
#
#   bash launch/demo.sh
#
# Leaves prepared/demo (what is read), runs/demo and runs/demo-without-knowledge (the reports), runs/demo-phases (what
# both runs trained; the detectors are shared), and exported/demo (the model with knowledge, ready to be used).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# On the CPU even beside a GPU, for which models this small are no work; nothing is fetched.
export JAX_PLATFORMS=cpu HF_HUB_OFFLINE=1
python=.venv/bin/python
started=$SECONDS

heading() {
    printf '\n== %s (%d s)\n\n' "$1" "$((SECONDS - started))"
}

# Shows the progress, which goes to standard error; the table of all scores is in report/metrics.txt as well.
train() {
    "$python" -m scanner_jax.train --config="$1" --workdir="$2" --phases=runs/demo-phases >/dev/null
}

heading "1/5 Environment"
bash launch/setup.sh
started=$SECONDS # installing depends on the network, the rest does not

heading "2/5 Corpus, knowledge and encoder"
"$python" -m scanner_jax.demo build prepared/demo

heading "3/5 Both stages, with knowledge"
train configs/demo.py runs/demo

heading "4/5 The recognizer again, without knowledge"
train configs/demo.py:without-knowledge runs/demo-without-knowledge

"$python" -m scanner_jax.gallery runs/demo --without knowledge=runs/demo-without-knowledge
rm -rf exported/demo # it is made of the run, in seconds
"$python" -m scanner_jax.export runs/demo exported/demo

heading "5/5 What knowledge is worth, and which entities were found in the pictures"
"$python" -m scanner_jax.demo compare runs/demo runs/demo-without-knowledge
cat <<'END'

"spans" is the detector's F1, the others are the recognizer's; "unseen" are names that training never showed and whose
type the sentence mostly leaves open. "gmner" are entities with the right type and the right box, or none where the picture
does not show them; "no boxes" is what it would be without any box; "mner" is the type alone, "eeg" the box alone. Look
next at

  runs/demo/report/gallery.html          for a browser: every tweet with its picture and boxes, right and wrong
  runs/demo/report/metrics.txt           all scores, by type and by what was seen
  runs/demo/report/predictions.jsonl     what was found in the test split
  prepared/demo/tweets/                  the tweets, and their pictures in images/
  prepared/demo/noise.jsonl              the training labels that were made wrong on purpose
  configs/demo.py                        the settings; configs/mner15.py runs the same recipe on real tweets

Try the model on sentences and pictures, on a page on this machine:

  source .venv/bin/activate
  python -m scanner_jax.app --model exported/demo --wikipedia prepared/demo/wikipedia.sqlite \
      --store prepared/demo/knowledge --examples prepared/demo/tweets
END
