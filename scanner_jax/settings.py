"""The settings of the recipe with their defaults; the files in configs/ change what their corpus needs.

Where the paper is silent or its text does not survive, the value is an **Assumption:** taken from the usual
fine-tuning of XLM-RoBERTa-large by the paper's peers.
"""

from __future__ import annotations

import jax
from ml_collections import ConfigDict, config_dict

from scanner_jax import attention
from scanner_jax.beginning import TrainingSettings
from scanner_jax.encoder_config import COMPUTE_DTYPES, EncoderConfig, Execution
from scanner_jax.optim import OptimizerSettings
from scanner_jax.placement import Placement, place
from scanner_jax.retrieval import CLIP_TEMPLATE


def paper_settings() -> ConfigDict:
    """The paper's recipe for multimodal NER, unlocked; corpus and batch sizes are the config file's."""
    return ConfigDict(
        {
            "corpus": config_dict.placeholder(str),  # folder of the corpus
            # Folder of the corpus's images, for the report's gallery alone; none: images/ in the corpus, if there.
            "images": config_dict.placeholder(str),
            "types": (),  # the entity types it may have, so that a misspelt one is refused; empty: any
            "encoder": "xlm-roberta-large",  # a folder, or a name on the Hugging Face hub
            "start_from": config_dict.placeholder(str),  # workdir of a run whose trained encoders to start from
            "start_despite_overlap": False,  # even if that run has trained on dev or test examples of this corpus
            "seed": 1,  # the paper reports five seeds
            "train_on": ("train",),  # splits to train on; with "dev" among them nothing is selected on dev
            "folds": 4,  # paper, section 3.1: out-of-fold mistakes become non-entities
            "epochs": {
                "detector_teacher": 10,
                "detector_folds": 10,  # Assumption: as the teacher
                "detector_student": 10,  # Assumption: as the teacher
                "recognizer_teacher": 5,
                "recognizer_student": 5,
            },
            # Assumption: stage 1's weight decay is illegible
            "detector": _training(weight_decay=0.01, awp=True, pack_width=96),
            "recognizer": _training(weight_decay=0.01, awp=False, pack_width=512)
            | {
                "max_tokens": 512,  # Assumption: the encoder's limit
                "max_objects": 15,  # Table 15
                "grounding_weight": 0.0,  # the paper's lambda; 0 for NER and MNER
            },
            "tyt": {
                "detector": True,  # both False: Table 3's "- TYT"
                "recognizer": True,  # paper: for MNER and GMNER; not for NER
                "alpha": config_dict.placeholder(float),  # none: adaptive; 0.5 and 0.0: Table 3's Half and Full
            },
            "knowledge": {
                "store": config_dict.placeholder(str),  # folder written by `python -m scanner_jax.store import`
                "wikipedia_index": "prepared/wikipedia.sqlite",
                "use_wikipedia": True,
                # The ways to find a mention's page, "fulltext" being one more. Assumption: without it, as it finds more
                # wrong pages than right ones (docs/knowledge.md); the paper does not say how it searches.
                "wikipedia_lookups": ("exact", "redirect", "normalised", "disambiguation"),
                "wikipedia_fulltext_score": 0.8,  # Assumption: hits by full text below it, on a scale to 1, are none
                "use_captions": True,
                "use_objects": False,  # the paper: True; needs objects in the store
                "use_notes": False,  # a language model's notes, Table 12
                "use_clip_order": False,  # objects by CLIP similarity. The paper: True; needs vectors in the store
                "clip_template": CLIP_TEMPLATE,  # with a span's text for {}. Assumption: the paper names none
                "clip_model": config_dict.placeholder(str),  # none: by the name that the vectors' maker went by
            },
            # Write a trace and a table of every training's steps to WORKDIR/profile; no part of a phase's hash.
            "profile": False,
            # How trainings are computed, in both stages. Dropout's draws stay the same, and results do but for the
            # order of floating-point sums: like the device, these are no part of a phase's hash, except bfloat16.
            "execution": {
                # "float32", "bfloat16", or "auto": bfloat16 on a GPU. Parameters, moments, softmax, norms, logits and
                # losses are float32 either way, and so is all that takes no gradient: dev, tagging, predictions.
                # bfloat16 rounds, so it is part of a hash; name one to go on with a run on another kind of device.
                "compute_dtype": "auto",
                # "xla", "cudnn", or "auto": cuDNN's kernel where it can compute a batch, else XLA's. cuDNN's draws no
                # dropout and takes no shared rows, so the paper's recipe trains on XLA's (docs/performance.md).
                "attention": "auto",
                "scan_layers": False,  # one layer's program in a loop; on a CPU it pays only with remat
                "remat": "none",  # "dots" or "layers": keep less for the backward pass; on a CPU with scan_layers only
                "fused_projections": False,  # query, key and value in one product
                "used_vocabulary": True,  # train the embeddings of tokens that occur, and put the others back
            },
            # How many devices a batch is spread over: data times fsdp, which each batch_size must be a multiple of
            # (docs/scaling.md). No part of a phase's hash either.
            "mesh": {
                "data": 1,  # -1: as many as there are
                "fsdp": 1,  # over these the parameters and the optimizer's moments are spread too
            },
        }
    )


def training_settings(section: ConfigDict, *, epochs: int) -> TrainingSettings:
    """A stage's section of the config as the loop takes it.

    Raises:
        ValueError: values that are not accepted.
    """
    return TrainingSettings(
        optimizer=OptimizerSettings(
            learning_rate=section.learning_rate,
            warmup_fraction=section.warmup_fraction,
            weight_decay=section.weight_decay,
            max_grad_norm=section.max_grad_norm,
            awp_gamma=section.awp_gamma if section.awp else 0.0,
            awp_start=section.awp_start,
            awp_clip_eps=section.awp_clip_eps,
            awp_tensors=tuple(section.awp_tensors),
        ),
        epochs=epochs,
        batch_size=section.batch_size,
        checkpoint_every=section.checkpoint_every,
        log_every=section.log_every,
        steps_per_dispatch=section.steps_per_dispatch,
    )


def execution(config: ConfigDict) -> Execution:
    """How the encoder's layers are computed.

    Raises:
        ValueError: a value that is not accepted.
    """
    chosen = config.execution
    return Execution(
        compute_dtype=_compute_dtype(chosen.compute_dtype),
        attention=chosen.attention,
        scan_layers=chosen.scan_layers,
        remat=chosen.remat,
        fused_projections=chosen.fused_projections,
    )


def check_execution(config: ConfigDict, encoder: EncoderConfig | None) -> None:
    """Find out before anything is trained whether both stages' trainings can be computed as the config says.

    Raises:
        ValueError: a value that is not accepted; or attention is asked of cuDNN's kernel, which an encoder of these
            sizes, a stage's dropout or its shared rows do not allow.
    """
    chosen = execution(config)
    if chosen.attention != "cudnn" or encoder is None:
        return
    for stage in ("detector", "recognizer"):
        shared, dropout = config[stage].pack_width > 0, encoder.attention_dropout > 0
        found = attention.obstacles(
            encoder, chosen, capability=attention.capability_here(), dropout=dropout, shared=shared
        )
        if found:
            hint = f"; {stage}.pack_width=0 gives each sequence a row" if shared else ""
            raise ValueError(f"{stage}: {attention.refusal(found)}{hint}")


def _compute_dtype(name: str) -> str:
    """What a setting means on the device here."""
    if name == "auto":
        return "bfloat16" if jax.default_backend() == "gpu" else "float32"
    if name not in COMPUTE_DTYPES:
        accepted = ", ".join(map(repr, ("auto", *COMPUTE_DTYPES)))
        raise ValueError(f"compute_dtype={name!r}: accepted: {accepted}")
    return name


def placement(config: ConfigDict) -> Placement:
    """The devices that models run on.

    Raises:
        ValueError: there are not so many.
    """
    return place(data=config.mesh.data, fsdp=config.mesh.fsdp)


def _training(*, weight_decay: float, awp: bool, pack_width: int) -> dict[str, object]:
    return {
        "batch_size": 8,
        "eval_batch_size": 32,  # no effect on scores
        # Tokens of a row that short sequences share in training, where that leaves less padding; 0 gives each its own.
        # A batch's examples and its loss stay the same, but dropout falls elsewhere: so it is part of a phase's hash.
        "pack_width": pack_width,
        "learning_rate": 1e-5,  # Assumption: the peers' range is 5e-6 to 1e-5
        "warmup_fraction": 0.1,  # Assumption
        "weight_decay": weight_decay,
        "max_grad_norm": 1.0,  # Assumption
        "awp": awp,  # adversarial weight perturbation. Assumption: all detectors, no recognizer
        # Assumption: small enough to train with. The 0.01 of AWP's authors, for networks trained from scratch, makes
        # training collapse here (docs/results.md).
        "awp_gamma": 1e-4,
        "awp_start": 0.5,  # paper: from the middle of training
        "awp_clip_eps": config_dict.placeholder(float),  # none: not clipped, as AWP's authors
        "awp_tensors": ("kernel",),  # Assumption: Dense kernels alone; embedding needs execution.used_vocabulary=False
        "checkpoint_every": 2000,  # steps; besides one after every epoch
        "log_every": 50,  # steps between two looks at the loss
        "steps_per_dispatch": 1,  # more where the host is the limit: a small encoder on a fast GPU
    }
