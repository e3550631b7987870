"""Make a folder of a finished run that predicts anywhere: `python -m scanner_jax.export WORKDIR FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import logging
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from scanner_jax import __version__, checkpoint
from scanner_jax.checkpoint import CheckpointError
from scanner_jax.command_line import quieten
from scanner_jax.convert import fingerprint_encoder, load_config, resolve_encoder
from scanner_jax.exported import (
    DESCRIPTION,
    FORMAT,
    STAGES,
    WEIGHTS,
    ExportError,
    shape_problems,
    stages_of,
    write_params,
)
from scanner_jax.files import damaged_files, explain, read_json, write_checksums, write_json, write_text
from scanner_jax.interrupt import Interrupted, leaving_at_signals
from scanner_jax.model_card import model_card
from scanner_jax.recognition import Recognition
from scanner_jax.words import WORD

logger = logging.getLogger(__name__)

_STUDENTS = {"detector": "detector-student", "recognizer": "recognizer-student"}

_EXPERT_FIELDS = (
    "expert", "model", "revision", "precision", "prompt", "max_new_tokens", "beams", "score", "fewest", "most",
    "text_tower", "image_tower", "importer", "label", "regression", "proposals", "weights_sha256", "labels_sha256",
    "fingerprint",
)  # fmt: skip
"""What is kept of a kind's provenance: neither paths nor what became of single images."""

_PATHS = frozenset({"corpus", "images", "start_from", "store", "wikipedia_index"})
_MODELS = frozenset({"encoder", "model", "clip_model"})
"""Settings that are paths, and those that may be; in scanner.json they say nothing of the machine."""

DESCRIPTION_TEXT = """Make a self-contained folder of a finished run: both stages' weights, tokenizer, limits,
config, threshold, scores, a model card and checksums. It loads without network, corpus or run, on a CPU or a GPU."""

EPILOG = """formats
  orbax        JAX's checkpoints, for scanner_jax
  safetensors  the same arrays, one file a stage, names joined by slashes
  torch        folders that transformers opens: AutoModelForTokenClassification, and AutoModel with heads.safetensors;
               the model card shows how. scanner_jax reads them as well
  stablehlo    safetensors, and programs of jax.export for any batch and length, on CPU and CUDA, with predict.py,
               which finds a text's entities with jax, flatbuffers, numpy, safetensors and tokenizers alone

example
  python -m scanner_jax.export runs/mner15 exported/mner15
  python -m scanner_jax.predict --model exported/mner15 --text "Ada Okafor plays in Lake Tamsin tonight\""""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a training left: its run.json, its metrics.json, and the folders of both students."""

    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    students: Mapping[str, Path]


def export(workdir: str | Path, out: str | Path, *, weights: str = "orbax", licence: str | None = None) -> Path:
    """Export a finished run.

    Args:
        workdir: the run's, as `--workdir` named it.
        out: the folder to make; written aside, then renamed.
        weights: one of `exported.WEIGHTS`.
        licence: for the model card; None says that it is to be chosen.

    Returns:
        `out`.

    Raises:
        ExportError: the run is not finished or was changed, its encoder is not the one that it began with, or `out`
            is there already.
        CheckpointError, OSError: the disk is full, or the folder cannot be written.
    """
    workdir, out = Path(workdir), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} is there already; delete it, or choose another folder")
    run = read_run(workdir)
    encoder = _encoder_folder(run)
    description = describe(run, encoder, weights=weights)
    _, recognition = stages_of(description, load_config(encoder), encoder)
    description |= {"words": WORD.pattern, "tokens": token_ids(recognition)}
    params = {stage: checkpoint.restore_params(run.students[stage] / "params") for stage in STAGES}
    if problems := shape_problems(params, recognition):
        raise ExportError(f"{workdir}: its weights do not fit its encoder:\n  " + "\n  ".join(problems))
    aside = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    aside.mkdir(parents=True)
    try:
        write_json(aside / "config.json", load_config(encoder).to_dict())
        shutil.copy(encoder / "tokenizer.json", aside)
        write_params(aside, params, weights=weights, recognition=recognition)
        write_json(aside / DESCRIPTION, description)
        write_text(aside / "README.md", [model_card(description, licence=licence)])
        write_checksums(aside)
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def token_ids(recognition: Recognition) -> dict[str, int]:
    """The ids that go into sequences beside those of text, for programs that are not ours."""
    tokenizer = recognition.tokenizer
    ids = {name: getattr(tokenizer, name) for name in ("start", "end", "pad", "mask", "unknown")}
    return {**ids, "object": recognition.object_token}


def read_run(workdir: Path) -> FinishedRun:
    """Find what a finished run left, and check that its students are whole.

    Raises:
        ExportError: there is none, or it is not what it was.
    """
    try:
        record, metrics = read_json(workdir / "run.json"), read_json(workdir / "report" / "metrics.json")
        phases, corpus = record["phases"], record["corpus"]
        described = all(key in corpus for key in ("name", "types", "variant")) and "knowledge" in record
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{workdir}: no run.json and report/metrics.json of a finished run; give the folder that --workdir named, "
            "such as runs/mner15"
        ) from error
    if not described:
        raise ExportError(
            f"{workdir / 'run.json'} is an older version's; give the training's command again, which writes it anew "
            "and trains nothing that is finished"
        )
    students = {}
    for stage, name in _STUDENTS.items():
        folder = Path(phases.get(name, ""))
        # The run may have been moved, or trained from another folder.
        places = [folder, workdir / "phases" / folder.name]
        found = next((place for place in places if folder.name and (place / "result.json").is_file()), None)
        if found is None or not (found / "params").is_dir():
            raise ExportError(
                f"{workdir}: its phase {name} is not finished, or is not at {folder}; train to the end first"
            )
        students[stage] = found
        with contextlib.suppress(FileNotFoundError):  # a version that recorded no checksums trained it
            if damaged := damaged_files(found):
                raise ExportError(f"{found}: {', '.join(damaged[:3])} changed since the run finished; train it again")
    return FinishedRun(record, metrics, students)


def describe(run: FinishedRun, encoder: Path, *, weights: str) -> dict[str, Any]:
    """The content of scanner.json."""
    config, corpus = run.record["config"], run.record["corpus"]
    knowledge, metrics = config["knowledge"], run.metrics["recognizer"]
    objects = knowledge["use_objects"]
    return {
        "format": FORMAT,
        "weights": weights,
        "types": list(corpus["types"]),
        "max_tokens": min(config["recognizer"]["max_tokens"], load_config(encoder).max_tokens),
        "max_objects": config["recognizer"]["max_objects"],
        "grounded": bool(config["recognizer"]["grounding_weight"]),
        "box_threshold": metrics.get("box_threshold"),
        "knowledge": {
            "captions": knowledge["use_captions"],
            "objects": objects,
            "notes": knowledge["use_notes"],
            "wikipedia": knowledge["use_wikipedia"],
            "wikipedia_lookups": list(knowledge["wikipedia_lookups"]),
            "wikipedia_fulltext_score": knowledge["wikipedia_fulltext_score"],
            "clip_order": objects and knowledge["use_clip_order"],
            "clip_template": knowledge["clip_template"],
        },
        "experts": {
            kind: _without_paths({name: found[name] for name in _EXPERT_FIELDS if name in found})
            for kind, found in run.record["knowledge"].items()
        },
        "tokenizer_sha256": hashlib.sha256((encoder / "tokenizer.json").read_bytes()).hexdigest(),
        "encoder": _model_name(config["encoder"]),
        "corpus": {name: corpus[name] for name in ("name", "variant", "sha256")},
        "scores": run.metrics,
        "config": _without_paths(config | {"knowledge": _without_paths(knowledge)}),
        "versions": {"scanner_jax": __version__, "jax": jax.__version__, "python": platform.python_version()},
        "trained_with": run.record.get("versions"),
        "trained_on_devices": run.record.get("devices"),
    }


def _without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for others to read: of folders and files on this machine the last name alone."""
    found = dict(settings)
    for name in found.keys() & _PATHS:
        found[name] = found[name] and Path(os.path.abspath(found[name])).name
    for name in found.keys() & _MODELS:
        found[name] = found[name] and _model_name(found[name])
    return found


def _model_name(given: str) -> str:
    """A hub's name or open_clip's as it is; a folder or file, after a colon too, by its last name."""
    before, colon, last = given.rpartition(":")
    on_hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", last) and not last.startswith(("models/", "."))
    if on_hub and not Path(last).exists():
        return given
    return before + colon + Path(os.path.abspath(os.path.expanduser(last))).name


def _encoder_folder(run: FinishedRun) -> Path:
    """The pretrained encoder's folder, of which tokenizer and sizes are taken."""
    name = run.record["config"]["encoder"]
    try:
        folder = resolve_encoder(name)
        fingerprint = fingerprint_encoder(folder)
    except OSError as error:
        raise ExportError(f"the encoder that the run began with: {error}") from error
    if fingerprint != read_json(run.students["detector"] / "phase.json")["inputs"]["encoder"]:
        raise ExportError(f"{folder}: the encoder has changed since the run began with it; put that one back")
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scanner_jax.export",
        description=DESCRIPTION_TEXT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="of a finished run: runs/mner15")
    parser.add_argument("out", type=Path, metavar="FOLDER", help="to make")
    parser.add_argument("--format", choices=WEIGHTS, default="orbax", help="of the weights (%(default)s)")
    parser.add_argument("--license", metavar="NAME", help="for the model card, such as cc-by-nc-4.0")
    options = parser.parse_args(arguments)
    quieten()
    try:
        with leaving_at_signals():
            export(options.workdir, options.out, weights=options.format, licence=options.license)
    except (CheckpointError, ExportError) as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
    except Interrupted as error:
        print(f"stopped by {error.signal.name}; nothing was written", file=sys.stderr)
        return error.exit_code
    else:
        size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
        print(f"{options.out}: {size / 1e6:,.1f} MB; README.md in it is the model card")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
