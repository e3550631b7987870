"""Open everything that a recipe reads, or say at once what is missing and what to put where."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ml_collections import ConfigDict

from scanner_jax.config_problems import config_problems
from scanner_jax.convert import fingerprint_encoder, load_config, resolve_encoder
from scanner_jax.corpora import Corpus, Examples, load_corpus
from scanner_jax.encoder import EncoderConfig
from scanner_jax.retrieval import KnowledgeSources
from scanner_jax.settings import check_execution
from scanner_jax.store import Store, StoreError, import_command
from scanner_jax.tokens import Tokenizer, load_tokenizer
from scanner_jax.types import Example
from scanner_jax.warmstart import WarmStart, open_warm_start
from scanner_jax.wikipedia import WikipediaIndex

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened")


class InputError(ValueError):
    """Inputs that are missing or unusable; the message lists all of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedEncoder:
    """An encoder's folder; the weights are read by each phase that trains."""

    folder: Path
    fingerprint: str
    config: EncoderConfig
    tokenizer: Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a recipe reads, opened and fingerprinted.

    Attributes:
        corpus: with all its splits.
        encoder: the pretrained one.
        sources: of knowledge, as far as it is switched on.
        training: what is trained on; it may hold dev too.
        evaluated: the splits that are predicted, and scored where they have gold: dev, unless it is trained on or
            missing, and test.
        warm_start: the run whose encoders training starts from; None starts from the pretrained one.
    """

    corpus: Corpus
    encoder: PretrainedEncoder
    sources: KnowledgeSources
    training: Sequence[Example]
    evaluated: Mapping[str, Sequence[Example]]
    warm_start: WarmStart | None = None

    @property
    def dev(self) -> Sequence[Example] | None:
        """What the best epoch is selected on, None where the last one counts."""
        return self.evaluated["dev"] if "dev" in self.scored else None

    @property
    def test(self) -> Sequence[Example]:
        return self.evaluated["test"]

    @property
    def scored(self) -> tuple[str, ...]:
        """The evaluated splits that have gold."""
        return tuple(split for split in self.evaluated if self.corpus.has_gold(split))

    @property
    def by_use(self) -> dict[str, Sequence[Example]]:
        """What is trained on (which may hold dev too), as `train`, and what is evaluated."""
        return {"train": self.training, **self.evaluated}


def open_inputs(config: ConfigDict, *, prepared: Path, weights: bool = True) -> Inputs:
    """Open corpus, encoder and knowledge.

    Args:
        config: the recipe's.
        prepared: folder for data derived from the corpus.
        weights: False does without the encoder's weights, and without their fingerprint.

    Raises:
        InputError: one list of all that is missing or does not fit.
    """
    problems: list[str] = []
    corpus = _attempt(problems, "corpus", lambda: _corpus(config, prepared))
    encoder = _attempt(problems, "encoder", lambda: _encoder(config.encoder, weights=weights))
    sources = _attempt(problems, "knowledge", lambda: _sources(config.knowledge))
    problems += config_problems(config, corpus)
    _attempt(problems, "execution", lambda: check_execution(config, encoder.config if encoder else None))
    start = None
    if config.start_from and corpus is not None and encoder is not None:
        start = _attempt(problems, "start_from", lambda: _warm_start(config, corpus, encoder))
    longest = config.recognizer.max_tokens
    if encoder is not None and longest > encoder.config.max_tokens:
        problems.append(f"recognizer.max_tokens={longest}: the encoder takes at most {encoder.config.max_tokens}")
    if problems or corpus is None or encoder is None or sources is None:
        raise InputError("\n".join(f"- {problem}" for problem in problems))
    evaluated = {split: examples for split, examples in corpus.splits.items() if split not in config.train_on}
    inputs = Inputs(
        corpus=corpus,
        encoder=encoder,
        sources=sources,
        training=Examples(example for split in config.train_on for example in corpus.splits[split]),
        evaluated={split: evaluated[split] for split in ("dev", "test") if split in evaluated},
        warm_start=start,
    )
    if inputs.dev is None:
        logger.info("nothing is selected on dev: every training keeps its last epoch")
    return inputs


def _attempt(problems: list[str], what: str, opening: Callable[[], Opened]) -> Opened | None:
    try:
        return opening()
    except (OSError, ValueError) as error:
        problems.append(f"{what}: {error}")
        return None


def _corpus(config: ConfigDict, prepared: Path) -> Corpus:
    if not config.corpus:
        raise ValueError("no folder given; pass --config.corpus=FOLDER")
    return load_corpus(config.corpus, prepared_dir=prepared / "corpora")


def _encoder(name: str, *, weights: bool) -> PretrainedEncoder:
    folder = resolve_encoder(name)
    problems: list[str] = []
    config = _attempt(problems, "config", lambda: load_config(folder))
    tokenizer = _attempt(problems, "tokenizer", lambda: load_tokenizer(folder))
    fingerprint = _attempt(problems, "weights", lambda: fingerprint_encoder(folder)) if weights else "none"
    if config and tokenizer and tokenizer.largest_id >= config.vocab_size:
        problems.append(
            f"{folder}: tokenizer.json has ids up to {tokenizer.largest_id}, but config.json a vocab_size of "
            f"{config.vocab_size}; take both from one checkpoint"
        )
    if problems or config is None or tokenizer is None or fingerprint is None:
        raise ValueError("\n    ".join(problems))
    return PretrainedEncoder(folder=folder, fingerprint=fingerprint, config=config, tokenizer=tokenizer)


def _warm_start(config: ConfigDict, corpus: Corpus, encoder: PretrainedEncoder) -> WarmStart:
    start = open_warm_start(config.start_from, corpus, despite_overlap=config.start_despite_overlap)
    if start.encoder != encoder.fingerprint:
        raise ValueError(f"{config.start_from} began with another encoder than {config.encoder}; name the same one")
    return start


def _sources(knowledge: ConfigDict) -> KnowledgeSources:
    """Open the store and the index as far as they are switched on; all problems in one error."""
    problems: list[str] = []
    sources = KnowledgeSources(
        use_captions=knowledge.use_captions,
        use_objects=knowledge.use_objects,
        use_notes=knowledge.use_notes,
        use_clip_order=knowledge.use_clip_order,
    )
    if sources.kinds:
        store = _attempt(problems, "store", lambda: _store(knowledge.store, sources))
        sources = dataclasses.replace(sources, store=store)
    if knowledge.use_wikipedia:
        index = _attempt(problems, "Wikipedia", lambda: WikipediaIndex.open(knowledge.wikipedia_index))
        lookups, score = tuple(knowledge.wikipedia_lookups), knowledge.wikipedia_fulltext_score
        sources = dataclasses.replace(sources, index=index, lookups=lookups, fulltext_score=score)
    if problems:
        raise ValueError("\n    ".join(problems) + "\n    or switch a kind off with --config.knowledge.use_KIND=False")
    return sources


def _store(folder: str | None, sources: KnowledgeSources) -> Store:
    kinds = (*sources.kinds, "clip") if sources.orders_by_clip else sources.kinds
    if not folder:
        raise ValueError(f"no store for {', '.join(kinds)}; pass --config.knowledge.store=FOLDER")
    absent = [kind for kind in kinds if not (Path(folder) / kind).is_dir()]
    if absent:
        commands = "".join(f"\n      {import_command(kind, Path(folder))}" for kind in absent)
        without = "; knowledge.use_clip_order=False takes the detector's order" if "clip" in absent else ""
        raise ValueError(f"{folder} lacks {', '.join(absent)}; make them{without}:{commands}")
    store = Store.open(folder)
    if sources.orders_by_clip:
        _check_vectors(store)
    return store


def _check_vectors(store: Store) -> None:
    """Find out now what would else stop the phase `rank`, after all detectors.

    Raises:
        StoreError: vectors are damaged, those of other boxes, or of unknown origin; the message has the command.
    """
    for image in store.keys("clip"):
        store.vectors(image)
    if "text_tower" not in store.provenance("clip"):
        raise StoreError(
            f"{store.folder / 'clip'}: its provenance does not say which text tower belongs to the vectors; make them "
            f"again: {import_command('clip', store.folder)}"
        )
