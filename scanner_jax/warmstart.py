"""Start a run's encoders from those of a finished run, unless that one trained on what this one is tested on.

Twitter-GMNER shares tweets with Twitter-2015 and -2017: 886 of its 1,500 test tweets are in their training sets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanner_jax import checkpoint
from scanner_jax.corpora import Corpus, read_corpus
from scanner_jax.encoder import Params
from scanner_jax.files import damaged_files, read_json
from scanner_jax.types import Example

logger = logging.getLogger(__name__)

_STAGES = {"detector": "detector-student", "recognizer": "recognizer-student"}


class WarmStartError(ValueError):
    """A run that cannot be started from; the message says why and what would do."""


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The finished students of another run.

    Attributes:
        folders: each stage's phase folder.
        encoder: fingerprint of the pretrained encoder that it began with.
    """

    folders: dict[str, Path]
    encoder: str

    def encoder_params(self, stage: str) -> Params:
        """The trained encoder of a stage, "detector" or "recognizer" (with its row for `<obj>`)."""
        return checkpoint.restore_params(self.folders[stage] / "params")["encoder"]

    def fingerprint(self, stage: str) -> str:
        """What decides these parameters: the name and hash of the phase that trained them."""
        return self.folders[stage].name


def open_warm_start(workdir: str | Path, corpus: Corpus, *, despite_overlap: bool) -> WarmStart:
    """Open a finished run to start from.

    Args:
        workdir: that run's, with its `run.json`.
        corpus: of the run that is to start.
        despite_overlap: start even where that run has trained on dev or test examples of `corpus`.

    Raises:
        WarmStartError: the run is not finished, or what it has trained on overlaps with dev or test.
    """
    record = _run_record(Path(workdir))
    folders = {stage: Path(record["phases"][phase]) for stage, phase in _STAGES.items() if phase in record["phases"]}
    missing = [str(folder) for folder in folders.values() if not (folder / "params").is_dir()]
    if missing or len(folders) < len(_STAGES):
        raise WarmStartError(f"{workdir}: its phases {', '.join(missing) or 'do not reach the recognizer'} are missing")
    for folder in folders.values():
        _refuse_damage(folder)
    if despite_overlap:
        logger.warning("%s: whether it was trained on examples of %s is not checked", workdir, corpus.name)
    else:
        _refuse_overlap(Path(workdir), record, corpus)
    return WarmStart(folders, read_json(folders["detector"] / "phase.json")["inputs"]["encoder"])


def overlap(examples: Sequence[Example], trained_on: Sequence[Example]) -> int:
    """How many examples have the image or the very words of one that was trained on."""
    images = {example.image_id for example in trained_on} - {None}
    sentences = {example.words for example in trained_on}
    return sum(example.image_id in images or example.words in sentences for example in examples)


def _refuse_damage(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # a version that recorded no checksums wrote it
        if damaged := damaged_files(folder):
            raise WarmStartError(f"{folder}: {', '.join(damaged[:3])} changed since that run finished; train it again")


def _refuse_overlap(workdir: Path, record: dict[str, Any], corpus: Corpus) -> None:
    trained_on = _trained_on(workdir, record)
    shared = {split: overlap(corpus.splits[split], trained_on) for split in ("dev", "test") if split in corpus.splits}
    if any(shared.values()):
        found = " and ".join(
            f"{count:,} of {len(corpus.splits[split]):,} {split} examples" for split, count in shared.items()
        )
        raise WarmStartError(
            f"{workdir} was trained on {found} of {corpus.name}: scores would not be those of unseen examples. Start "
            "from the pretrained encoder, or say --config.start_despite_overlap=True and report it with the scores"
        )


def _trained_on(workdir: Path, record: dict[str, Any]) -> list[Example]:
    """The examples that a run, and the runs that it started from, were trained on."""
    source, config = record["corpus"], record["config"]
    hint = "or pass --config.start_despite_overlap=True to go without this check"
    try:
        corpus = read_corpus(source["folder"])
    except (OSError, ValueError) as error:
        raise WarmStartError(
            f"{workdir} was trained on {source['folder']}, which cannot be read; {hint}: {error}"
        ) from None
    if corpus.fingerprint != source["sha256"]:
        raise WarmStartError(
            f"{workdir} was trained on {source['folder']} as it was before an edit; restore it, {hint}"
        )
    examples = [example for split in config["train_on"] for example in corpus.splits[split]]
    before = config.get("start_from")
    return examples + (_trained_on(Path(before), _run_record(Path(before))) if before else [])


def _run_record(workdir: Path) -> dict[str, Any]:
    try:
        record = read_json(workdir / "run.json")
        return {key: record[key] for key in ("phases", "corpus", "config")}
    except (OSError, KeyError, ValueError):
        raise WarmStartError(
            f"{workdir}: no run.json of a finished run; give the folder that --workdir named, such as runs/mner15"
        ) from None
