"""Stage 2 as the recipe uses it: candidates and their knowledge become prompts; train, judge, choose the best epoch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from scanner_jax.beginning import Training, TrainingSettings
from scanner_jax.candidates import Candidate, Prompted, gold_class, object_overlaps
from scanner_jax.costs import ModelSizes
from scanner_jax.decoding import Judgement, TypeLogits, above, best_threshold, decode, entities_of
from scanner_jax.encoder import EncoderConfig, Execution, Params, in_float32
from scanner_jax.forward import Forward, Passes, fitting
from scanner_jax.grounding import grounded_counts
from scanner_jax.loop import train
from scanner_jax.losses import cross_entropy, grounding_loss, trust_your_teacher
from scanner_jax.metrics import entity_counts
from scanner_jax.models import EntityRecognizer, init_recognizer
from scanner_jax.pipeline import Batch, RecognizerFeatures, collate_recognizer, length_buckets
from scanner_jax.placement import ONE_DEVICE, Placement
from scanner_jax.predictions import Predicted
from scanner_jax.prompts import build_prompt
from scanner_jax.stepping import LossFn, Watch
from scanner_jax.tokens import Tokenizer
from scanner_jax.types import NON_ENTITY, Example, Knowledge
from scanner_jax.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognition:
    """What both recognizers of a recipe share.

    Attributes:
        encoder: sizes of the encoder, the row of `<obj>` included.
        tokenizer: its tokenizer.
        types: the entity types, in logit order; *non-entity* comes after them.
        max_tokens: a prompt's budget.
        max_objects: objects beyond this many are left out of the prompt.
        eval_batch_size: prompts a batch where no gradient is taken.
        fitted: whether such a batch has no more rows than it takes, as `packing.fit_batches` has it.
        pack_width: tokens of the rows that short prompts share in training; 0 gives each its own.
        execution: how the encoder's layers are computed in training.
        placement: the devices that all of it runs on.
    """

    encoder: EncoderConfig
    tokenizer: Tokenizer
    types: tuple[str, ...]
    max_tokens: int
    max_objects: int
    eval_batch_size: int
    fitted: bool = False
    pack_width: int = 0
    execution: Execution = dataclasses.field(default_factory=Execution)
    placement: Placement = ONE_DEVICE

    @property
    def classes(self) -> tuple[str, ...]:
        return (*self.types, NON_ENTITY)

    @property
    def model(self) -> EntityRecognizer:
        """What is trained."""
        return EntityRecognizer(self.encoder, len(self.classes), self.execution)

    @property
    def reader(self) -> EntityRecognizer:
        """What judges: the same in float32, whatever it was trained in, as an exported model does."""
        return EntityRecognizer(self.encoder, len(self.classes), in_float32(self.execution))

    @property
    def sizes(self) -> ModelSizes:
        """What a recognizer's steps cost."""
        outputs = len(self.classes) + self.max_objects
        return ModelSizes(encoder=self.encoder, execution=self.execution, example_outputs=outputs)

    @property
    def object_token(self) -> int:
        """The id of `<obj>`: the row behind the pretrained vocabulary."""
        return self.encoder.vocab_size - 1


def write_prompts(
    recognition: Recognition, candidates: Sequence[Candidate], knowledge: Sequence[Knowledge]
) -> Prompted:
    """Build the prompt of every candidate from its knowledge.

    Raises:
        PromptError: the token budget is too small.
    """
    prompts = [
        build_prompt(
            recognition.tokenizer,
            example,
            span,
            known,
            max_tokens=recognition.max_tokens,
            max_objects=recognition.max_objects,
            object_token=recognition.object_token,
        )
        for (example, span), known in zip(candidates, knowledge, strict=True)
    ]
    return Prompted(list(candidates), list(knowledge), prompts)


def train_recognizer(
    recognition: Recognition,
    *,
    name: str,
    encoder_params: Params,
    training: Prompted,
    dev: tuple[Sequence[Example], Prompted] | None,
    settings: TrainingSettings,
    grounding_weight: float,
    seed: int,
    folder: Path,
    teacher_logits: TypeLogits | None = None,
    alpha: float | None = None,
    vocabulary: Vocabulary | None = None,
    watch: Watch | None = None,
) -> Params:
    """Train one recognizer from the pretrained encoder and return its best parameters on dev.

    Args:
        recognition: encoder, tokenizer, types and limits.
        name: the phase's.
        encoder_params: the pretrained encoder's, with a row for `<obj>`.
        training: candidates that are gold or non-entities.
        dev: dev's examples and candidates; select the best epoch, by micro F1, or by GMNER F1 at its best threshold
            where the grounding loss is on. None keeps the last.
        settings: how to train.
        grounding_weight: lambda, the weight of the grounding loss; 0 leaves boxes alone.
        seed: of heads, order and dropout.
        folder: the phase's.
        teacher_logits: the teacher's over `training`, for Trust Your Teacher. **Assumption:** TYT covers the
            mined non-entities too. None trains with plain cross entropy.
        alpha: a fixed trust in the gold label, None for the teacher's own.
        vocabulary: the word embeddings to train, as `recognizer_vocabulary` has them; None trains all.
        watch: looks on while steps are made.
    """
    made = recognizer_training(
        recognition,
        encoder_params,
        training,
        grounding_weight=grounding_weight,
        seed=seed,
        teacher_logits=teacher_logits,
        alpha=alpha,
    )
    return train(
        name=name,
        params=made.params,
        loss_fn=made.loss_fn,
        features=made.features,
        collate=made.collate,
        settings=settings,
        evaluate=None if dev is None else functools.partial(_dev_scores, recognition, *dev, bool(grounding_weight)),
        seed=seed,
        folder=folder,
        vocabulary=vocabulary,
        watch=watch,
        placement=recognition.placement,
        ahead=() if dev is None else _judging(recognition, made.params, dev[1]).missing(),
    )


def recognizer_training(
    recognition: Recognition,
    encoder_params: Params,
    training: Prompted,
    *,
    grounding_weight: float,
    seed: int,
    teacher_logits: TypeLogits | None = None,
    alpha: float | None = None,
) -> Training:
    """What `train_recognizer` trains; the arguments are its own."""
    return Training(
        params=init_recognizer(
            recognition.encoder, encoder_params, jax.random.key(seed), num_types=len(recognition.classes)
        ),
        loss_fn=recognizer_loss(recognition.model, alpha=alpha, grounding_weight=grounding_weight),
        features=_features(recognition, training, teacher_logits),
        collate=functools.partial(_collate(recognition), pack_width=recognition.pack_width),
    )


def recognizer_vocabulary(recognition: Recognition, prompted: Iterable[Prompted]) -> Vocabulary:
    """The word embeddings that prompts touch: those of all splits, `<obj>` included where any has objects."""
    token_ids = (prompt.token_ids for split in prompted for prompt in split.prompts)
    return Vocabulary.of(token_ids, size=recognition.encoder.vocab_size)


@functools.cache  # so that recognizers share what is compiled for it
def recognizer_loss(model: EntityRecognizer, *, alpha: float | None, grounding_weight: float) -> LossFn:
    """The type's loss at `<mask>` plus lambda times the objects' grounding loss.

    The type's is cross entropy, or TYT where the batch carries the teacher's logits; TYT leaves boxes alone.
    """

    def loss_fn(params: Params, batch: Batch, rng: jax.Array) -> Float[Array, ""]:
        types, overlaps = _logits(model, params, batch, rng)
        if "teacher_logits" in batch:
            loss = trust_your_teacher(types, batch["labels"], batch["mask"], batch["teacher_logits"], alpha=alpha)
        else:
            loss = cross_entropy(types, batch["labels"], batch["mask"])
        if grounding_weight:
            loss += grounding_weight * grounding_loss(overlaps, batch["overlaps"], batch["object_mask"])
        return loss

    return loss_fn


def judge(recognition: Recognition, params: Params, prompted: Prompted) -> Judgement:
    """The recognizer's logits for every candidate, in the candidates' order."""
    count = len(prompted.candidates)
    types = np.zeros((count, len(recognition.classes)), np.float32)
    overlaps = np.full((count, recognition.max_objects), -np.inf, np.float32)
    for item, (own_types, own_overlaps) in _judging(recognition, params, prompted).rows():
        objects = len(item.prompt.object_positions)
        types[item.index] = own_types
        overlaps[item.index, :objects] = own_overlaps[:objects]
    return Judgement(types, overlaps)


def predicted_entities(
    recognition: Recognition, examples: Sequence[Example], prompted: Prompted, judgement: Judgement, *, grounded: bool
) -> list[list[Predicted]]:
    """Each example's entities, as `decoding.decode` makes them of the prompts' objects; boxes only where grounded."""
    boxes = prompted.boxes if grounded else None
    return decode(recognition.classes, examples, prompted.candidates, judgement, boxes=boxes)


def _dev_scores(
    recognition: Recognition, examples: Sequence[Example], prompted: Prompted, grounded: bool, params: Params
) -> dict[str, Any]:
    gold = [example.entities for example in examples]
    judgement = judge(recognition, params, prompted)
    decoded = predicted_entities(recognition, examples, prompted, judgement, grounded=grounded)
    if not grounded:
        scores = entity_counts(gold, entities_of(decoded)).prf()
        return {"score": scores["f1"], **scores}
    threshold = best_threshold(gold, decoded)
    scores = grounded_counts(gold, entities_of(above(decoded, threshold))).prf()
    return {"score": scores["f1"], **scores, "box_threshold": threshold}


def _features(
    recognition: Recognition, prompted: Prompted, teacher_logits: TypeLogits | None
) -> list[RecognizerFeatures]:
    rows = zip(prompted.candidates, prompted.knowledge, prompted.prompts, strict=True)
    return [
        RecognizerFeatures(
            index=index,
            prompt=prompt,
            label=recognition.classes.index(gold_class(*candidate)),
            overlaps=object_overlaps(candidate, known.objects[: recognition.max_objects]),
            teacher_logits=None if teacher_logits is None else teacher_logits[index],
        )
        for index, (candidate, known, prompt) in enumerate(rows)
    ]


def _collate(recognition: Recognition) -> Any:
    buckets = length_buckets(recognition.max_tokens)
    return functools.partial(collate_recognizer, buckets=buckets, max_objects=recognition.max_objects)


def _logits(
    model: EntityRecognizer, params: Params, batch: Batch, rng: jax.Array | None
) -> tuple[Float[Array, "b c"], Float[Array, "b o"]]:
    """Run the model with dropout drawn from `rng`, without dropout if there is none."""
    logits: Any = model.apply(
        {"params": params},
        batch["token_ids"],
        batch["segments"],
        batch["mask_position"],
        batch["object_positions"],
        batch.get("prompt_rows"),
        deterministic=rng is None,
        rngs=None if rng is None else {"dropout": rng},
    )
    return logits


def _judging(recognition: Recognition, params: Params, prompted: Prompted) -> Passes[RecognizerFeatures]:
    return judging(recognition, params, _features(recognition, prompted, None))


def judging(
    recognition: Recognition, params: Params, features: Sequence[RecognizerFeatures]
) -> Passes[RecognizerFeatures]:
    """The forward pass of `judge` over features."""
    forward = _forward(recognition.reader, recognition.placement)
    fit = fitting(length_buckets(recognition.max_tokens)) if recognition.fitted else None
    collate = recognition.placement.spread(_collate(recognition))
    return Passes(forward, params, features, collate, recognition.eval_batch_size, fit)


@functools.cache  # so that recognizers share what is compiled for it
def _forward(model: EntityRecognizer, placement: Placement) -> Forward:
    return Forward(functools.partial(_logits, model, rng=None), placement)
