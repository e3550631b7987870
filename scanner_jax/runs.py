"""A run: what all phases of a recipe have at hand, and both stages as its config has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from scanner_jax import convert
from scanner_jax.candidates import Candidate, Prompted
from scanner_jax.costs import ModelSizes
from scanner_jax.detection import Detection, detector_vocabulary
from scanner_jax.encoder import Params
from scanner_jax.inputs import Inputs
from scanner_jax.phases import Phase
from scanner_jax.recognition import Recognition, recognizer_vocabulary, write_prompts
from scanner_jax.retrieval import Orders, retrieve
from scanner_jax.settings import execution, placement
from scanner_jax.vocabulary import Vocabulary
from scanner_jax.watching import Watching


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What all phases of a run have at hand.

    Attributes:
        config: the recipe's.
        inputs: corpus, encoder and knowledge.
        root: the folder of phases.
        profile: the folder of profiles; None profiles nothing.
    """

    config: ConfigDict
    inputs: Inputs
    root: Path
    profile: Path | None = None

    def parent(self, phase: Phase, name: str) -> Path | None:
        """The folder of the parent of this name, None where the phase has no such parent."""
        return {parent.name: parent.folder(self.root) for parent in phase.parents}.get(name)

    def encoder_params(self, stage: str) -> Params:
        """Where the encoder of a stage, "detector" or "recognizer" (which has a row for `<obj>`), starts."""
        if self.inputs.warm_start:
            return self.inputs.warm_start.encoder_params(stage)
        params = convert.load_encoder(self.inputs.encoder.folder)[1]
        return convert.add_token_row(params) if stage == "recognizer" else params

    def watch(self, phase: Phase, model: ModelSizes) -> Watching | None:
        """What looks on at a phase's training, None where nothing is profiled."""
        if self.profile is None:
            return None
        return Watching(name=phase.name, model=model, folder=self.profile / phase.name)


def detection_of(run: Run) -> Detection:
    """What the run's detectors share."""
    encoder = run.inputs.encoder
    return Detection(
        encoder=encoder.config,
        tokenizer=encoder.tokenizer,
        max_tokens=encoder.config.max_tokens,
        eval_batch_size=run.config.detector.eval_batch_size,
        pack_width=run.config.detector.pack_width,
        execution=execution(run.config),
        placement=placement(run.config),
    )


def recognition_of(run: Run) -> Recognition:
    """What the run's recognizers share."""
    encoder, settings = run.inputs.encoder, run.config.recognizer
    return Recognition(
        encoder=dataclasses.replace(encoder.config, vocab_size=encoder.config.vocab_size + 1),  # the row of <obj>
        tokenizer=encoder.tokenizer,
        types=run.inputs.corpus.types,
        max_tokens=min(settings.max_tokens, encoder.config.max_tokens),
        max_objects=settings.max_objects,
        eval_batch_size=settings.eval_batch_size,
        pack_width=settings.pack_width,
        execution=execution(run.config),
        placement=placement(run.config),
    )


def detector_vocabulary_of(run: Run, detection: Detection) -> Vocabulary | None:
    """The word embeddings that the run's detectors train; None for all."""
    if not run.config.execution.used_vocabulary:
        return None
    return detector_vocabulary(detection, run.inputs.corpus.splits.values())


def recognizer_vocabulary_of(run: Run, recognition: Recognition, prompted: Iterable[Prompted]) -> Vocabulary | None:
    """The word embeddings that the run's recognizers train, given the prompts of all splits; None for all."""
    return recognizer_vocabulary(recognition, prompted) if run.config.execution.used_vocabulary else None


def prompted_with_knowledge(
    run: Run, recognition: Recognition, candidates: list[Candidate], orders: Orders | None = None
) -> Prompted:
    """The prompts of a split's candidates, with what the run's sources know about them."""
    return write_prompts(recognition, candidates, retrieve(run.inputs.sources, candidates, orders))
