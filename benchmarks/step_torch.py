"""PyTorch's side of `train_step.py`: a plain loop over Hugging Face's model, eager or compiled."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from epoch import import_transformers, padded
from step_cases import CLASSES, SEED, Case, Data, Timed, optimizer, timed

from scanner_jax.types import BIO

MULTIPLE = 8
"""Batches are padded to a multiple of it, as Hugging Face's collators can, for tensor cores."""

Batch = dict[str, torch.Tensor]


def device_here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def torch_side(case: Case, encoder: Path, data: Data, *, precision: str, compiled: bool, rounds: int) -> Timed:
    """Time steps of AdamW with the recipe's clipping and schedule, and with AWP where the case has it.

    Args:
        case: what is trained.
        encoder: its folder; weights are random.
        data: the batches.
        precision: "bfloat16" computes under autocast with float32 parameters; "float32" on a GPU in tf32, as JAX does.
        compiled: `torch.compile` and scaled dot-product attention, else neither.
        rounds: as for `timed`.
    """
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = device_here()
    model = _model(case, encoder, attention="sdpa" if compiled else "eager").to(device).train()
    # Real lengths differ from batch to batch: one program for all of them, as a user would want it.
    called = torch.compile(model, dynamic=case.tokens is None) if compiled else model
    settings = optimizer(case)
    adamw = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=device.type == "cuda",
    )
    milestones = settings.milestones(len(data.chosen))
    schedule = import_transformers().get_linear_schedule_with_warmup(adamw, milestones.warmed_up, milestones.end)
    kernels = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]

    def backward(batch: Batch) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = called(**batch)
        loss.backward()

    def steps(batches: Sequence[Batch]) -> None:
        for batch in batches:
            backward(batch)
            if case.awp:
                _adversarial(backward, batch, adamw, kernels, gamma=settings.awp_gamma)
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            adamw.step()
            schedule.step()
            adamw.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batches = [{name: part.to(device) for name, part in _padded(case, some).items()} for some in data.chosen]
    try:
        return timed(
            steps,
            batches,
            rounds=rounds,
            peak=lambda: torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        )
    finally:
        del model, called, adamw, schedule, kernels, batches
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()


def _adversarial(
    backward: Callable[[Batch], None], batch: Batch, adamw: Any, kernels: list[torch.nn.Parameter], *, gamma: float
) -> None:
    """AWP's second gradient: at kernels moved along their own gradient, by a part of their own norm."""
    with torch.no_grad():
        grads = [kernel.grad for kernel in kernels]
        norms = zip(torch._foreach_norm(kernels), torch._foreach_norm(grads), strict=True)
        moves = torch._foreach_mul(grads, [gamma * weight / grad for weight, grad in norms])
        torch._foreach_add_(kernels, moves)
    adamw.zero_grad()
    backward(batch)
    with torch.no_grad():
        torch._foreach_sub_(kernels, moves)


class _Recognizer(torch.nn.Module):
    """An encoder with a linear head at the place of `<mask>`."""

    def __init__(self, encoder: torch.nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = torch.nn.Dropout(dropout)
        self.types = torch.nn.Linear(width, CLASSES)

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 1]
        return torch.nn.functional.cross_entropy(self.types(self.dropout(hidden)).float(), labels)


class _Detector(torch.nn.Module):
    """Hugging Face's token classifier, giving its loss alone."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> Any:
        return self.classifier(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss


def _model(case: Case, encoder: Path, *, attention: str) -> torch.nn.Module:
    transformers = import_transformers()
    config = transformers.AutoConfig.from_pretrained(encoder)
    config.num_labels = len(BIO)
    if not case.dropout:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    made = {"attn_implementation": attention, "dtype": torch.float32}
    if case.tokens is None:
        return _Detector(transformers.AutoModelForTokenClassification.from_config(config, **made))
    encoded = transformers.AutoModel.from_config(config, add_pooling_layer=False, **made)
    return _Recognizer(encoded, config.hidden_size, config.hidden_dropout_prob)


def _padded(case: Case, features: Sequence[Any]) -> Batch:
    """A batch as Hugging Face's collators make it."""
    if case.tokens is None:
        return padded(features, pad=1, multiple=MULTIPLE)
    ids = torch.tensor([item.prompt.token_ids for item in features])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([item.label for item in features]),
    }
