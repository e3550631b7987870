"""Score any system's predictions: `python -m scanner_jax.evaluate --gold FOLDER --predictions FILE.jsonl`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.corpora import Corpus, CorpusError, read_corpus
from scanner_jax.files import write_json, write_json_lines
from scanner_jax.metrics import metrics_table, recognizer_scores, span_counts, surfaces
from scanner_jax.predictions import PredictionsError, prediction_record, read_predictions
from scanner_jax.types import Entity, Example

SHOWN_PLACES = 5

DESCRIPTION = """Score predicted entities, from whatever system, against the gold entities of a corpus.

Printed are precision, recall and F1 in percent: micro (span and type right), per type, of the spans alone, and apart
for entities whose surface is, or is not, gold in the training split. Recall is over every gold entity of the split;
support is the number of gold entities."""

EPILOG = """the predictions format: one JSON object a line,
  {"id": "4711", "entities": [{"start": 0, "end": 2, "type": "PER"}]}
  id      the example's, as --write-gold writes it: a tweet's image id; a later tweet with the same image
          has #2, #3, ... behind it; train-0, test-0, ... where the corpus gives no ids
  start   the entity's first word, counted from 0; end: the word after its last
  type    as the corpus spells it
Other fields are not read.

counted and reported, and scored like this:
  an id of the split without a line     nothing was predicted there: its gold entities are missed
  an id that is not the split's         left out
  a span given more than once           counts once, the last one stands
  a span out of range                   a wrong prediction, of an unseen surface;
                                        in range is 0 <= start < end <= number of words
  a type that the corpus does not have  a wrong prediction, though its span may be right
Spans that overlap are scored each for itself.

errors, after which nothing is scored (exit code 1, each with its line):
  a line that is no JSON (NaN and Infinity are none) or not UTF-8; id, entities, start, end or type missing or of
  another kind (true is no number, 1.0 no whole one); a second line for an id; not one id of the split in the file

examples:
  python -m scanner_jax.evaluate --gold data/twitter2015 --predictions runs/mner15/report/predictions.jsonl
  python -m scanner_jax.evaluate --gold data/twitter2015 --split dev --write-gold gold-dev.jsonl"""


class EvaluationError(ValueError):
    """A split that cannot be scored with these predictions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Aligned:
    """Predictions in the order of a split's examples, and what was noticed on the way.

    Attributes:
        entities: those of each example, one for each span, out-of-range ones included.
        with_line: how many examples have a line.
        missing_ids: ids of examples without a line.
        unknown_ids: ids of lines that are no example's.
        duplicate_spans: `id start-end` of each prediction that a later one replaced.
        spans_out_of_range: `id start-end` of each.
        unknown_types: how many entities have each type that is not the corpus's.
    """

    entities: list[Sequence[Entity]]
    with_line: int
    missing_ids: list[str]
    unknown_ids: list[str]
    duplicate_spans: list[str]
    spans_out_of_range: list[str]
    unknown_types: dict[str, int]

    def counts(self) -> dict[str, Any]:
        """What was predicted and noticed, as numbers."""
        return {
            "sentences": self.with_line,
            "entities": sum(map(len, self.entities)),
            "missing_ids": len(self.missing_ids),
            "unknown_ids": len(self.unknown_ids),
            "duplicate_spans": len(self.duplicate_spans),
            "spans_out_of_range": len(self.spans_out_of_range),
            "unknown_types": self.unknown_types,
        }


def align(examples: Sequence[Example], predictions: Mapping[str, Sequence[Entity]], *, types: Sequence[str]) -> Aligned:
    """Put predictions in the order of a split's examples; what does not fit is counted, as the command's help defines.

    Args:
        examples: the split.
        predictions: each id's entities, as they were given.
        types: the corpus's entity types.

    Raises:
        EvaluationError: no id of the split is among the predictions.
    """
    missing = [example.id for example in examples if example.id not in predictions]
    with_line = len(examples) - len(missing)
    if not with_line:
        shown = ", ".join(repr(example.id) for example in examples[:3])
        raise EvaluationError(
            f"not one of the {len(predictions):,} ids of the predictions is one of the split's ({shown}, ...); "
            "another split's file? --write-gold writes all ids"
        )
    known = {example.id for example in examples} if with_line < len(predictions) else predictions.keys()
    entities: list[Sequence[Entity]] = []
    duplicates, outside = [], []
    for example in examples:
        last: dict[tuple[int, int], Entity] = {}
        given = predictions.get(example.id, ())
        for entity in given:
            span = (entity.start, entity.end)
            duplicates += [_place(example, entity)] if span in last else []
            last[span] = entity
        entities.append(given if len(given) == len(last) else list(last.values()))
        words = len(example.words)
        outside += [_place(example, entity) for entity in last.values() if not 0 <= entity.start < entity.end <= words]
    unknown_types = Counter(entity.type for found in entities for entity in found if entity.type not in types)
    return Aligned(
        entities=entities,
        with_line=with_line,
        missing_ids=missing,
        unknown_ids=[identity for identity in predictions if identity not in known],
        duplicate_spans=duplicates,
        spans_out_of_range=outside,
        unknown_types=dict(sorted(unknown_types.items())),
    )


def evaluate(
    corpus: Corpus, split: str, predictions: Mapping[str, Sequence[Entity]], *, trained_on: Sequence[str]
) -> tuple[dict[str, Any], Aligned]:
    """Score predictions of one split.

    Args:
        corpus: with gold entities.
        split: the one that was predicted.
        predictions: each id's entities.
        trained_on: the splits whose surfaces are the seen ones.

    Returns:
        Scores and counts as `--json` writes them, without paths; and what was noticed.

    Raises:
        EvaluationError: no id of the split is among the predictions.
    """
    examples = gold_of(corpus, split)
    aligned = align(examples, predictions, types=corpus.types)
    gold = [example.entities for example in examples]
    training = (example for name in trained_on for example in gold_of(corpus, name))
    result = {
        "corpus": {"name": corpus.name, "variant": corpus.variant, "sha256": corpus.fingerprint},
        "split": split,
        "trained_on": list(trained_on),
        "gold": {"sentences": len(examples), "entities": sum(map(len, gold))},
        "predictions": aligned.counts(),
        **recognizer_scores(examples, aligned.entities, training_surfaces=surfaces(training)),
        "span": span_counts(gold, aligned.entities).prf(),
    }
    return result, aligned


def gold_of(corpus: Corpus, split: str) -> Sequence[Example]:
    """A split's examples.

    Raises:
        EvaluationError: there is no such split, or it has words alone.
    """
    if split not in corpus.splits or not corpus.has_gold(split):
        found = "no gold entities, words alone" if split in corpus.splits else "no such split"
        scored = ", ".join(name for name in corpus.splits if corpus.has_gold(name))
        raise EvaluationError(f"{corpus.name}, {split}: {found}; splits with gold: {scored}")
    return corpus.splits[split]


def report(result: Mapping[str, Any], aligned: Aligned) -> str:
    """The scores as text, with a warning for whatever did not fit."""
    gold, given = result["gold"], result["predictions"]
    scores = {name: result[name] for name in ("micro", "span", "seen", "unseen", "per_type")}
    lines = [
        f"{result['corpus']['name']} ({result['corpus']['variant']}), {result['split']}",
        f"gold: {gold['entities']:,} entities in {gold['sentences']:,} sentences",
        f"predictions: {given['entities']:,} entities; {given['sentences']:,} sentences have a line",
        "",
        metrics_table(scores).rstrip("\n"),
    ]
    unknown_types = [f"{name} {count:,}" for name, count in aligned.unknown_types.items()]
    remarks = {
        "sentences without a line; nothing was predicted there": aligned.missing_ids,
        "lines left out, for their ids are not the split's": aligned.unknown_ids,
        "predictions replaced by a later one of the same span": aligned.duplicate_spans,
        "spans out of range, counted as wrong predictions": aligned.spans_out_of_range,
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
    corpus = read_corpus(options.gold)
    examples = gold_of(corpus, options.split)
    if options.write_gold is not None:
        records = (prediction_record(example, [(entity, 1.0) for entity in example.entities]) for example in examples)
        write_json_lines(options.write_gold, records)
        print(f"gold of {len(examples):,} sentences -> {options.write_gold}")
    if predictions is not None:
        result, aligned = evaluate(corpus, options.split, predictions, trained_on=options.trained_on)
        print(report(result, aligned))
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
    return parser


def _place(example: Example, entity: Entity) -> str:
    return f"{example.id} {entity.start}-{entity.end}"


if __name__ == "__main__":
    sys.exit(main())
