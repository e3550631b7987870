"""Our training step against PyTorch and Hugging Face: same shape, batch, precision and dropout.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --cases detector 512 --without-dropout --awp --seconds 240

Cases are stage 1 ("detector"), the paper's batches of 4 tweets of Twitter-2015 at their own lengths, and stage 2,
batches of 8 prompts of so many tokens. PyTorch's side is Hugging Face's model in a plain loop, eager and as
`torch.compile` makes it with scaled dot-product attention; batches are padded to their longest tweet. Ours is the
recipe's: tweets share rows, and of the word embeddings those in use are trained. Both sides have AdamW, clipping, the
schedule, and the encoder's dropout; rows without dropout stand beside where they are asked for. Weights are random:
they decide no time.

By default on a GPU: models/xlm-roberta-large-shape, bfloat16 over float32 parameters, all cases. Elsewhere:
models/granite-30m-english, float32, stage 1 and prompts of 128 tokens.

One side runs at a time and is freed before the next. Times are the median of rounds. MFU is of the operations that real
tokens need, the same for all sides. Memory is XLA's plan of a step for us (its arguments included), and the most that
PyTorch's allocator has held for PyTorch. The last line is JSON: `ratio` is eager PyTorch's time over ours in stage 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both sides share a GPU's memory

import jax
import torch
from machine import describe
from step_cases import CORPUS, Case, Data, Timed, model_flops, our_side, read_data
from step_torch import device_here, torch_side

from scanner_jax.convert import load_config
from scanner_jax.devices import this_device
from scanner_jax.encoder import EncoderConfig, Execution

LARGE, SMALL = Path("models/xlm-roberta-large-shape"), Path("models/granite-30m-english")
OURS, EAGER, COMPILED = "scanner_jax", "PyTorch, eager", "PyTorch, compiled"
SIDES = {"ours": OURS, "eager": EAGER, "compiled": COMPILED}


class Row(NamedTuple):
    """One side of a case; `why` it was not measured, or what it took."""

    case: Case
    side: str
    timed: Timed | None
    tokens: float
    flops: float
    why: str = ""


def main() -> None:
    options = _options()
    deadline = time.perf_counter() + options.seconds if options.seconds else float("inf")
    config = load_config(options.encoder)
    execution = Execution(compute_dtype=options.precision, attention=options.attention, scan_layers=options.scan_layers)
    peak = this_device().peak(this_device().usual(options.precision))[1]
    rows: list[Row] = []
    print(HEAD)
    for case in _cases(options):
        own = config if case.dropout else dataclasses.replace(config, hidden_dropout=0.0, attention_dropout=0.0)
        data = read_data(case, options.encoder, own, options.steps)
        for side in options.sides:
            row = _measured(case, SIDES[side], own, data, execution, options, deadline)
            rows.append(row)
            print(shown(row, rows, peak), flush=True)
    print()
    found = targets(rows, peak, real=jax.devices()[0].device_kind == "NVIDIA H200" and options.encoder == LARGE)
    for target in found:
        print(f"{target['what']}: {target['found']} (target: {target['target']})")
    print(json.dumps(_record(rows, found, peak, options)))


def _measured(
    case: Case,
    side: str,
    config: EncoderConfig,
    data: Data,
    execution: Execution,
    options: argparse.Namespace,
    deadline: float,
) -> Row:
    timed_lengths = data.lengths[-options.steps :]
    tokens = sum(map(sum, timed_lengths)) / len(timed_lengths)
    row = Row(case, side, None, tokens, model_flops(case, config, data))
    if time.perf_counter() > deadline:
        return row._replace(why="no time left")
    if side != OURS and jax.default_backend() != "cpu" and device_here().type == "cpu":
        return row._replace(why="this PyTorch has no CUDA")
    try:
        if side == OURS:
            whole = options.whole_vocabulary
            found = our_side(case, config, data, execution, rounds=options.rounds, whole_vocabulary=whole)
        else:
            found = torch_side(
                case,
                options.encoder,
                data,
                precision=options.precision,
                compiled=side == COMPILED,
                rounds=options.rounds,
            )
    except (RuntimeError, ValueError, OSError) as error:  # of memory, a compiler, an attention that cannot be
        print(f"{case}, {side}: {error}", file=sys.stderr)
        return row._replace(why=str(error).strip().partition("\n")[0][:60])
    return row._replace(timed=found)


HEAD = """\
| | | ms a step | tokens/s | MFU % | peak GB | compiling s | its time over ours |
|---|---|---|---|---|---|---|---|"""


def shown(row: Row, rows: Sequence[Row], peak: float) -> str:
    """A line of the table."""
    if row.timed is None:
        return f"| {row.case} | {row.side} | not measured: {row.why} | | | | | |"
    seconds, memory = row.timed.seconds, row.timed.peak_bytes
    over = ratio(rows, row.case, row.side)
    cells = (
        f"{1e3 * seconds:,.1f}",
        f"{row.tokens / seconds:,.0f}",
        f"{100 * utilization(row, peak):.1f}",
        "" if memory is None else f"{memory / 1e9:.1f}",
        f"{row.timed.compile_seconds:.1f}",
        "" if over is None else f"{over:.2f}",
    )
    return f"| {row.case} | {row.side} | {' | '.join(cells)} |"


def utilization(row: Row, peak: float) -> float:
    """Model FLOPs utilisation, from 0 to 1."""
    assert row.timed is not None
    return row.flops / row.timed.seconds / peak


def ratio(rows: Sequence[Row], case: Case, side: str) -> float | None:
    """A side's time over ours."""
    found = {row.side: row.timed.seconds for row in rows if row.case == case and row.timed is not None}
    return found[side] / found[OURS] if {side, OURS} <= found.keys() else None


def targets(rows: Sequence[Row], peak: float, *, real: bool) -> list[dict[str, Any]]:
    """What the project aims at on an H200 with XLM-RoBERTa-large, beside what was found; else nothing was."""
    stage1, longest = Case(None), Case(512)
    ours = next((row for row in rows if (row.case, row.side) == (longest, OURS) and row.timed), None)
    memory = ours.timed.peak_bytes if ours is not None and ours.timed is not None else None
    aims: dict[str, tuple[str, float | None, str]] = {
        "stage 1, eager PyTorch's time over ours": (">= 3", ratio(rows, stage1, EAGER), "{:.2f}"),
        "stage 1, compiled PyTorch's time over ours": (">= 1.5", ratio(rows, stage1, COMPILED), "{:.2f}"),
        "stage 2 at 512 tokens, MFU in %": (">= 55", ours and 100 * utilization(ours, peak), "{:.1f}"),
        "stage 2 at 512 tokens, compiled PyTorch's time over ours": (
            ">= 1.2",
            ratio(rows, longest, COMPILED),
            "{:.2f}",
        ),
        "stage 2, 8 x 512, memory in GB": ("<= 24", memory and memory / 1e9, "{:.1f}"),
    }
    return [
        {
            "what": what,
            "target": f"{aim}, on an H200",
            "found": form.format(value) if real and value else "not measured",
        }
        for what, (aim, value, form) in aims.items()
    ]


def _record(
    rows: Sequence[Row], found: Sequence[Mapping[str, Any]], peak: float, options: argparse.Namespace
) -> dict[str, Any]:
    headline = ratio(rows, Case(None), EAGER)
    return {
        "benchmark": "train_step",
        "ratio": None if headline is None else round(headline, 3),
        "encoder": str(options.encoder),
        "precision": options.precision,
        "attention": options.attention,
        "steps": options.steps,
        "rows": [
            {
                "case": str(row.case),
                "side": row.side,
                "tokens": round(row.tokens, 1),
                **({"not_measured": row.why} if row.timed is None else row.timed._asdict()),
                "mfu": None if row.timed is None else round(utilization(row, peak), 4),
                "over_ours": ratio(rows, row.case, row.side),
            }
            for row in rows
        ],
        "targets": list(found),
        "torch": torch.__version__,
        "machine": describe(),
    }


def _cases(options: argparse.Namespace) -> list[Case]:
    """The recipe's own first: where time runs out, the others are left."""
    plain = [Case(None if name == "detector" else int(name)) for name in options.cases]
    cases = plain + ([Case(None, awp=True)] if options.awp and Case(None) in plain else [])
    return cases + ([case._replace(dropout=False) for case in plain] if options.without_dropout else [])


def _options() -> argparse.Namespace:
    gpu = jax.default_backend() == "gpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--encoder", type=Path, default=LARGE if gpu else SMALL, help="a folder with config.json and tokenizer.json")
    add("--cases", nargs="+", default=["detector", "512", "256", "128"] if gpu else ["detector", "128"],
        metavar="CASE", help="detector, or tokens of stage 2's prompts")  # fmt: skip
    add("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    add("--precision", choices=("bfloat16", "float32"), default="bfloat16" if gpu else "float32")
    add("--attention", choices=("auto", "xla", "cudnn"), default="auto", help="ours")
    add("--scan-layers", action="store_true", help="ours: one layer's program in a loop, which compiles sooner")
    add("--whole-vocabulary", action="store_true", help="ours: train all word embeddings, as PyTorch does")
    add("--without-dropout", action="store_true", help="each case without dropout as well")
    add("--awp", action="store_true", help="stage 1 with adversarial weight perturbation as well")
    add("--steps", type=int, default=50 if gpu else 10, help="timed steps a side (default: %(default)s)")
    add("--rounds", type=int, default=5, help="that these are timed in (default: %(default)s)")
    add("--seconds", type=float, help="begin no side after so many seconds")
    options = parser.parse_args()
    options.rounds = min(options.rounds, options.steps)
    if options.steps < 1:
        parser.error("--steps: expected at least 1")
    if wrong := [name for name in options.cases if name != "detector" and not name.isdecimal()]:
        parser.error(f"--cases {' '.join(wrong)}: expected detector, or numbers of tokens")
    needed = [options.encoder, *([CORPUS] if "detector" in options.cases else [])]
    for path in needed:
        if not path.is_dir():
            parser.exit(1, f"error: {path} is missing; docs/data.md says where it is published\n")
    return options


if __name__ == "__main__":
    main()
