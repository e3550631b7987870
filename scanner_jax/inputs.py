"""Open everything that a recipe reads, or say at once what is missing and what to put where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ml_collections import ConfigDict

from scanner_jax.convert import fingerprint_encoder, load_config, resolve_encoder
from scanner_jax.corpora import Corpus, load_corpus
from scanner_jax.encoder import EncoderConfig
from scanner_jax.retrieval import KnowledgeSources
from scanner_jax.store import Store
from scanner_jax.tokens import Tokenizer, load_tokenizer
from scanner_jax.types import Example
from scanner_jax.wikipedia import WikipediaIndex

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
    """What a recipe reads, opened and fingerprinted."""

    corpus: Corpus
    encoder: PretrainedEncoder
    sources: KnowledgeSources
    training: tuple[Example, ...]
    dev: tuple[Example, ...] | None
    test: tuple[Example, ...]

    @property
    def evaluated(self) -> dict[str, tuple[Example, ...]]:
        """The splits that are predicted and scored."""
        return {"test": self.test} if self.dev is None else {"dev": self.dev, "test": self.test}


def open_inputs(config: ConfigDict, *, prepared: Path) -> Inputs:
    """Open corpus, encoder and knowledge.

    Args:
        config: the recipe's.
        prepared: folder for data derived from the corpus.

    Raises:
        InputError: one list of all that is missing or does not fit.
    """
    problems: list[str] = []
    corpus = _attempt(problems, "corpus", lambda: _corpus(config, prepared))
    encoder = _attempt(problems, "encoder", lambda: _encoder(config.encoder))
    sources = _attempt(problems, "knowledge", lambda: _sources(config.knowledge))
    problems += _config_problems(config, corpus)
    if problems or corpus is None or encoder is None or sources is None:
        raise InputError("\n".join(f"- {problem}" for problem in problems))
    dev = None if "dev" in config.train_on else tuple(corpus.splits["dev"])
    return Inputs(
        corpus=corpus,
        encoder=encoder,
        sources=sources,
        training=tuple(example for split in config.train_on for example in corpus.splits[split]),
        dev=dev,
        test=tuple(corpus.splits["test"]),
    )


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


def _encoder(name: str) -> PretrainedEncoder:
    folder = resolve_encoder(name)
    return PretrainedEncoder(
        folder=folder,
        fingerprint=fingerprint_encoder(folder),
        config=load_config(folder),
        tokenizer=load_tokenizer(folder),
    )


def _sources(knowledge: ConfigDict) -> KnowledgeSources:
    """Open the store and the index as far as they are switched on; all problems in one error."""
    problems: list[str] = []
    sources = KnowledgeSources(
        use_captions=knowledge.use_captions, use_objects=knowledge.use_objects, use_notes=knowledge.use_notes
    )
    if sources.kinds:
        store = _attempt(problems, "store", lambda: _store(knowledge.store, sources.kinds))
        sources = dataclasses.replace(sources, store=store)
    if knowledge.use_wikipedia:
        index = _attempt(problems, "Wikipedia", lambda: WikipediaIndex.open(knowledge.wikipedia_index))
        sources = dataclasses.replace(sources, index=index)
    if problems:
        raise ValueError("\n    ".join(problems) + "\n    or switch a kind off with --config.knowledge.use_KIND=False")
    return sources


def _store(folder: str | None, kinds: tuple[str, ...]) -> Store:
    if not folder:
        raise ValueError(f"no store for {', '.join(kinds)}; pass --config.knowledge.store=FOLDER")
    store = Store.open(folder)
    store.fingerprint(kinds)  # raises if the store lacks one of them
    return store


def _config_problems(config: ConfigDict, corpus: Corpus | None) -> list[str]:
    problems = []
    if corpus is not None and config.recognizer.grounding_weight and not _has_boxes(corpus):
        problems.append(
            f"recognizer.grounding_weight={config.recognizer.grounding_weight}: no gold entity of {config.corpus} has "
            "a box to learn from; set it to 0"
        )
    if not config.train_on or not set(config.train_on) <= {"train", "dev"}:
        problems.append(f'train_on={config.train_on}: expected ("train",) or ("train", "dev")')
    if config.folds < 2:
        problems.append(f"folds={config.folds}: expected at least 2 (the paper: 4)")
    if config.knowledge.use_clip_order:
        problems.append(
            "knowledge.use_clip_order=True: no importer writes CLIP vectors yet; objects stand in the detector's order"
        )
    return problems


def _has_boxes(corpus: Corpus) -> bool:
    return any(
        entity.boxes for examples in corpus.splits.values() for example in examples for entity in example.entities
    )
