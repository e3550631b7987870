"""Settings that do not fit each other, the corpus or the devices, and would else only fail after hours of training."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from scanner_jax.corpora import Corpus
from scanner_jax.optim import make_optimizer
from scanner_jax.placement import PlacementError
from scanner_jax.settings import placement, training_settings
from scanner_jax.wikipedia import lookup_problem


def config_problems(config: ConfigDict, corpus: Corpus | None) -> list[str]:
    """A line for each.

    Args:
        config: the recipe's.
        corpus: what it is to be trained on; None where it cannot be read.
    """
    problems: list[str] = []
    if corpus is not None:
        problems += _corpus_problems(config, corpus)
    if not config.train_on or not set(config.train_on) <= {"train", "dev"}:
        problems.append(f'train_on={config.train_on}: expected ("train",) or ("train", "dev")')
    if config.images is not None and not Path(config.images).is_dir():
        problems.append(f"images={config.images}: no such folder; None takes images/ in the corpus, if it is there")
    problems += _mesh_problems(config)
    if problem := lookup_problem(config.knowledge.wikipedia_lookups):
        problems.append(f"knowledge.wikipedia_lookups={tuple(config.knowledge.wikipedia_lookups)}: {problem}")
    if not 0 <= config.knowledge.wikipedia_fulltext_score <= 1:
        given = config.knowledge.wikipedia_fulltext_score
        problems.append(f"knowledge.wikipedia_fulltext_score={given}: expected a number from 0 to 1")
    if config.knowledge.clip_template.count("{}") != 1:
        given = config.knowledge.clip_template
        problems.append(f"knowledge.clip_template={given!r}: expected {{}} once, where the span's text goes")
    if config.recognizer.grounding_weight and not config.knowledge.use_objects:
        problems.append(
            f"recognizer.grounding_weight={config.recognizer.grounding_weight}: without objects in the prompt there is "
            "no box to choose; set knowledge.use_objects=True, or the weight to 0"
        )
    if config.tyt.alpha is not None and not 0 <= config.tyt.alpha <= 1:
        problems.append(f"tyt.alpha={config.tyt.alpha}: expected a number from 0 to 1, or None for the adaptive one")
    least = {"folds": (config.folds, 2), "recognizer.max_tokens": (config.recognizer.max_tokens, 40)}
    least |= {f"epochs.{name}": (epochs, 1) for name, epochs in config.epochs.items()}
    for stage in ("detector", "recognizer"):
        for name in ("batch_size", "eval_batch_size", "checkpoint_every", "log_every", "steps_per_dispatch"):
            least[f"{stage}.{name}"] = (config[stage][name], 1)
        problems += _optimizer_problems(stage, config[stage], used_vocabulary=config.execution.used_vocabulary)
    return problems + [
        f"{name}={given}: expected at least {low}" for name, (given, low) in least.items() if given < low
    ]


def _mesh_problems(config: ConfigDict) -> list[str]:
    """Devices that are not there, or that do not divide what is to be spread over them."""
    try:
        devices = placement(config).devices
    except PlacementError as error:
        return [str(error)]
    problems = [
        f"{stage}.batch_size={config[stage].batch_size}: expected a multiple of {devices}, the devices that mesh.data="
        f"{config.mesh.data} and mesh.fsdp={config.mesh.fsdp} spread a batch over"
        for stage in ("detector", "recognizer")
        if config[stage].batch_size % devices
    ]
    if config.profile and devices > 1:
        problems.append(f"profile=True: steps are measured against one device's limits, but the mesh has {devices}")
    return problems


def _corpus_problems(config: ConfigDict, corpus: Corpus) -> list[str]:
    """Settings that do not fit what the corpus holds."""
    problems = []
    if config.recognizer.grounding_weight and not corpus.has_boxes:
        problems.append(
            f"recognizer.grounding_weight={config.recognizer.grounding_weight}: no gold entity of {config.corpus} has "
            "a box to learn from; set it to 0"
        )
    for split in ("train", "dev"):
        if split in config.train_on and not corpus.has_gold(split):
            lacks = f"{split} has words alone, no gold" if split in corpus.splits else f"there is no {split} split"
            problems.append(f"train_on={config.train_on}: {lacks} in {config.corpus}; leave {split} out")
    if not any(example.entities for split in config.train_on for example in corpus.splits.get(split, ())):
        problems.append(f"corpus: no entity to learn from in {', '.join(config.train_on)} of {config.corpus}")
    others = [kind for kind in corpus.types if config.types and kind not in config.types]
    if others:
        counts = (
            f"{kind} {sum((split.entities or {}).get(kind, 0) for split in corpus.split_fingerprints.values()):,}"
            for kind in others
        )
        problems.append(
            f"types={tuple(config.types)}: {config.corpus} has others as well ({', '.join(counts)}); correct the "
            "corpus if they are misspelt, else name them here, or set types=() to take any"
        )
    if not any(example.image_id for examples in corpus.splits.values() for example in examples):
        problems += [
            f"knowledge.use_{kind}=True: no sentence of {config.corpus} has an image (a line IMGID:<image id> before "
            "it); set it to False"
            for kind in ("captions", "objects")
            if config.knowledge[f"use_{kind}"]
        ]
    return problems


def _optimizer_problems(stage: str, section: ConfigDict, *, used_vocabulary: bool) -> list[str]:
    try:
        settings = training_settings(section, epochs=1).optimizer
        make_optimizer(settings, settings.milestones(1))
    except ValueError as error:
        return [f"{stage}: {error}"]
    if used_vocabulary and settings.awp_gamma and "embedding" in settings.awp_tensors:
        return [
            f"{stage}.awp_tensors={settings.awp_tensors}: AWP moves a table by a part of the norm of all its rows, and "
            "only those in use are trained; set execution.used_vocabulary=False, or leave embedding out"
        ]
    return []
