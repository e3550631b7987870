"""Score any system's predictions: `python -m scanner_jax.evaluate --gold FOLDER --predictions FILE.jsonl`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.alignment import EvaluationError, Noticed
from scanner_jax.corpora import CorpusError, read_corpus
from scanner_jax.files import write_json, write_json_lines
from scanner_jax.metrics import metrics_table
from scanner_jax.predictions import PredictionsError, gold_record, read_candidates, read_predictions
from scanner_jax.protocols import PROTOCOLS
from scanner_jax.scoring import evaluate, gold_of

SHOWN_PLACES = 5

DESCRIPTION = """Score predicted entities, from whatever system, against the gold entities of a corpus.

Printed are precision, recall and F1 in percent: micro (span and type right), per type, of the spans alone, and apart
for entities whose surface is, or is not, gold in the training split; where the corpus has boxes, also with the box
right (gmner), and more of that kind. Recall is over every gold entity of the split; support is the number of gold
entities."""

EPILOG = """the predictions format: one JSON object a line,
  {"id": "4711", "entities": [{"start": 0, "end": 2, "type": "PER", "box": [10, 20, 60, 80]}]}
  id      the example's, as --write-gold writes it: a tweet's image id; a later tweet with the same image
          has #2, #3, ... behind it; train-0, test-0, ... where the corpus gives no ids
  start   the entity's first word, counted from 0; end: the word after its last
  type    as the corpus spells it
  box     x1, y1, x2, y2 in pixels of the image; null or missing: not in the image
Other fields are not read.

counted and reported, and scored like this:
  an id of the split without a line     nothing was predicted there: its gold entities are missed
  an id that is not the split's         left out
  a span given more than once           counts once, the last one stands
  a span out of range                   a wrong prediction, of an unseen surface;
                                        in range is 0 <= start < end <= number of words
  a type that the corpus does not have  a wrong prediction, though its span may be right
Spans that overlap are scored each for itself.

scores where the corpus has boxes (docs/evaluation.md), with --protocol paper:
  gmner, mner, eeg, span   right in span, type and region; span and type; span and region; span
  always_none              gmner, had no entity been given a box
  groundable, ungroundable gmner of entities with a box, and of those without
A region is right where its IoU with one of the gold boxes is above 0.5; that of an entity without a gold box is None.
The other protocols are other projects' and give gmner and always_none alone. hindex and mqspn know a region by its
index among candidate boxes, one line an id in --candidates: {"id": "4711", "boxes": [[10, 20, 60, 80]]}

errors, after which nothing is scored (exit code 1, each with its line):
  a line that is no JSON (NaN and Infinity are none) or not UTF-8; id, entities, start, end or type missing or of
  another kind (true is no number, 1.0 no whole one); a box that is not four numbers; a second line for an id; not one
  id of the split in the file

examples:
  python -m scanner_jax.evaluate --gold data/twitter2015 --predictions runs/mner15/report/predictions.jsonl
  python -m scanner_jax.evaluate --gold data/twitter2015 --split dev --write-gold gold-dev.jsonl
  python -m scanner_jax.evaluate --gold data/twitter_gmner --predictions predictions.jsonl --protocol riveg"""


def report(result: Mapping[str, Any], noticed: Noticed) -> str:
    """The scores as text, with a warning for whatever did not fit."""
    gold, given = result["gold"], result["predictions"]
    names = ("micro", "span", "seen", "unseen", "per_type")
    grounded = ("gmner", "mner", "eeg", "always_none", "groundable", "ungroundable", "gmner_per_type")
    scores = {name: result[name] for name in (*names, *grounded, "candidate_boxes") if name in result}
    lines = [
        f"{result['corpus']['name']} ({result['corpus']['variant']}), {result['split']}",
        f"gold: {gold['entities']:,} entities in {gold['sentences']:,} sentences",
        f"predictions: {given['entities']:,} entities; {given['sentences']:,} sentences have a line",
        "",
        metrics_table(scores).rstrip("\n"),
    ]
    if "protocol" in result:
        lines.append(f"boxes are scored by the protocol: {result['protocol']}")
    if result.get("candidates") == "gold boxes":
        lines.append("no --candidates were given: the gold boxes serve as candidates")
    unknown_types = [f"{name} {count:,}" for name, count in sorted(noticed.unknown_types.items())]
    remarks = {
        "sentences without a line; nothing was predicted there": noticed.missing_ids,
        "lines left out, for their ids are not the split's": noticed.unknown_ids,
        "predictions replaced by a later one of the same span": noticed.duplicate_spans,
        "spans out of range, counted as wrong predictions": noticed.spans_out_of_range,
    }
    for remark, places in remarks.items():
        if places:
            shown = ", ".join(map(repr, places[:SHOWN_PLACES])) + (", ..." if len(places) > SHOWN_PLACES else "")
            lines.append(f"warning: {len(places):,} {remark} ({shown})")
    if unknown_types:
        lines.append(f"warning: types that the corpus does not have, counted as wrong: {', '.join(unknown_types)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 with every problem on standard error (argparse exits with 2)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.predictions is None and options.write_gold is None:
        parser.error("give --predictions FILE to score, or --write-gold FILE, or both")
    if options.json is not None and options.predictions is None:
        parser.error("--json writes the scores of --predictions FILE")
    try:
        _run(options)
    except (CorpusError, EvaluationError, PredictionsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    predictions = None if options.predictions is None else read_predictions(options.predictions)
    candidates = None if options.candidates is None else read_candidates(options.candidates)
    corpus = read_corpus(options.gold)
    examples = gold_of(corpus, options.split)
    if options.write_gold is not None:
        write_json_lines(options.write_gold, map(gold_record, examples))
        print(f"gold of {len(examples):,} sentences -> {options.write_gold}")
    if predictions is not None:
        result, noticed = evaluate(
            corpus,
            options.split,
            predictions,
            trained_on=options.trained_on,
            protocol=options.protocol,
            candidates=candidates,
        )
        print(report(result, noticed))
        if options.json is not None:
            write_json(options.json, result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scanner_jax.evaluate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gold", type=Path, required=True, metavar="FOLDER", help="the corpus: data/twitter2015")
    parser.add_argument("--split", default="test", choices=("train", "dev", "test"), help="default: test")
    parser.add_argument("--predictions", type=Path, metavar="FILE.jsonl", help="what to score, in the format below")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the scores and all counts there, as JSON")
    parser.add_argument(
        "--write-gold", type=Path, metavar="FILE.jsonl", help="write the split's gold in the format; it scores 100"
    )
    parser.add_argument(
        "--trained-on",
        nargs="+",
        default=["train"],
        choices=("train", "dev"),
        metavar="SPLIT",
        help="splits (train, dev) whose gold surfaces count as seen; default: train",
    )
    parser.add_argument(
        "--protocol", default="paper", choices=tuple(PROTOCOLS), help="how boxes are scored; default: paper"
    )
    parser.add_argument("--candidates", type=Path, metavar="FILE.jsonl", help="the boxes that were chosen from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
