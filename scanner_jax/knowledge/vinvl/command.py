"""`python -m scanner_jax.knowledge vinvl check|tsv`: test a downloaded checkpoint; write features as VinVL's TSV."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scanner_jax.knowledge.command import PROGRAM, in_words


def main(arguments: Sequence[str] | None = None) -> int:
    """Check or write; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} vinvl", description="VinVL's weights and files.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check",
        help="does a checkpoint find what published npz files hold?",
        description="Run a checkpoint over images of which published npz files are there, with its classes' boxes and "
        "with proposals, and compare boxes, labels, scores and features. Exit status 0 if one way finds them again.",
        epilog=f"example:\n  {PROGRAM} vinvl check vinvl_vg_x152c4.pth VG-SGG-dicts-vgoi6-clipped.json data/vinvl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("weights", type=Path, metavar="WEIGHTS", help="the checkpoint, vinvl_vg_x152c4.pth")
    check.add_argument("labels", type=Path, metavar="LABELS", help="VG-SGG-dicts-vgoi6-clipped.json")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="of npz files, with the images in it or below")
    check.add_argument("--device", help="cpu, cuda, cuda:1; by default a GPU where there is one")
    tsv = commands.add_parser(
        "tsv",
        help="write a folder of npz files as VinVL's own TSV with its .lineidx",
        description="Write the npz files of a folder, as `objects --features` makes them, as one TSV with .lineidx.",
        epilog=f"example:\n  {PROGRAM} vinvl tsv features predictions.tsv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tsv.add_argument("folder", type=Path, metavar="FOLDER", help="of npz files")
    tsv.add_argument("target", type=Path, metavar="FILE.tsv", help="its index is FILE.lineidx")
    options = parser.parse_args(arguments)
    return in_words(lambda: _check(options) if options.command == "check" else _tsv(options))


def _check(options: argparse.Namespace) -> int:
    from scanner_jax.knowledge.loading import choose_device, choose_precision
    from scanner_jax.knowledge.vinvl.checking import ENOUGH, SAME_BOX, compare
    from scanner_jax.knowledge.vinvl.detector import Detector
    from scanner_jax.knowledge.vinvl.labels import read_labels
    from scanner_jax.knowledge.vinvl.weights import load_network

    device = choose_device(options.device)
    choose_precision("fp32", device)
    labels = read_labels(options.labels)
    detector = Detector(load_network(options.weights), device=device)
    totals = {True: [0, 0, 0], False: [0, 0, 0]}
    for found in compare(detector, labels, options.folder):
        counts = found.published, found.boxes, found.objects
        totals[found.regression] = [a + b for a, b in zip(totals[found.regression], counts, strict=True)]
        print(
            f"{found.image}, {_way(found.regression)}: of {found.published} objects {found.boxes} boxes are there (IoU "
            f"{SAME_BOX}), {found.objects} with their class; median difference of scores {found.score:.4f}, cosine of "
            f"features {found.feature:.4f}",
            flush=True,
        )
    for regression, (published, boxes, objects) in totals.items():
        print(f"all, {_way(regression)}: of {published} objects {boxes} boxes are there, {objects} with their class")
    agrees = any(objects >= ENOUGH * published for published, _, objects in totals.values())
    print("the checkpoint agrees" if agrees else f"the checkpoint does not agree: {ENOUGH:.0%} one way is asked for")
    return 0 if agrees else 1


def _way(regression: bool) -> str:
    return "boxes of classes" if regression else "boxes of proposals"


def _tsv(options: argparse.Namespace) -> int:
    from scanner_jax.knowledge.vinvl.formats import write_tsv

    count = write_tsv(options.folder, options.target)
    print(f"{count:,} images -> {options.target} and {options.target.with_suffix('.lineidx')}")
    return 0
