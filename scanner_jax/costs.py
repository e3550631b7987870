"""What a training step costs, counted by hand: floating-point operations, and bytes that memory must move.

XLA's own count (`cost_analysis`) is no substitute: it takes a scan's body once, and both branches of AWP's condition.

Operations are those of products of matrices, a multiplication and an addition being two. LayerNorm, softmax, GELU,
dropout and the optimizer are left out: of XLA's count for a forward pass 1 % at XLM-RoBERTa-large's width, 3 % at 384.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from scanner_jax.encoder_config import EncoderConfig, Execution

FLOAT_BYTES = 4
"""Parameters, gradients and moments are float32."""

ACTIVATION_BYTES = {"float32": 4, "bfloat16": 2}
"""Activations are of the dtype that layers compute in."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """A model as far as its costs go.

    Attributes:
        encoder: its sizes.
        execution: how its layers are computed.
        token_outputs: numbers that its heads give for every token.
        example_outputs: numbers that its heads give for every example.
    """

    encoder: EncoderConfig
    execution: Execution = dataclasses.field(default_factory=Execution)
    token_outputs: int = 0
    example_outputs: int = 0


def forward_flops(model: ModelSizes, lengths: Sequence[int], *, examples: int) -> int:
    """Operations of a forward pass.

    Per token and layer 8 d^2 for query, key, value and output, 4 d f for the feed-forward network, and 4 t d for the
    scores and the mixing of values, where each token meets the t of its sequence.

    Args:
        model: of width d and feed-forward width f.
        lengths: tokens of each sequence that attends to itself: of the rows, for what a padded batch executes; of the
            examples, for what the method needs.
        examples: of the batch.
    """
    width = model.encoder.hidden_size
    heads = 2 * width * (model.token_outputs * sum(lengths) + model.example_outputs * examples)
    return model.encoder.num_layers * (_dense_flops(model, lengths) + _attention_flops(model, lengths)) + heads


def step_flops(model: ModelSizes, lengths: Sequence[int], *, examples: int, gradients: int, recomputing: bool) -> int:
    """Operations of a training step: a gradient is a forward pass and twice as much backward.

    Args:
        model: the model's sizes.
        lengths: as for `forward_flops`.
        examples: of the batch.
        gradients: taken in the step: 2 once AWP has begun, else 1.
        recomputing: count what `execution.remat` has computed once more; an utilisation of model FLOPs does not, as
            Chowdhery et al., PaLM, 2022, appendix B define it. (XLA's compiler for CPUs undoes it unless layers are
            scanned.)
    """
    again = {
        "none": 0,
        "dots": _attention_flops(model, lengths),
        "layers": _dense_flops(model, lengths) + _attention_flops(model, lengths),
    }[model.execution.remat]
    extra = model.encoder.num_layers * again if recomputing else 0
    return gradients * (3 * forward_flops(model, lengths, examples=examples) + extra)


def step_bytes(model: ModelSizes, *, parameters: int, rows: int, tokens: int, gradients: int) -> int:
    """Bytes that a training step moves at least, each array between passes going through memory once each way.

    Of every parameter 8 floats: weight, two moments and gradient are read, and the same are written. AWP adds 4: the
    first gradient is read, perturbed weights are written and read, the second gradient is written. What the backward
    pass needs of each layer is written and read once a gradient: per token 6 d + f numbers and a row of every head's
    attention probabilities, but for `attention="cudnn"`; with `remat="dots"` 6 d + f; with `remat="layers"` d.

    A lower bound: caches save nothing of it where parameters are larger than they are, and a real step moves more.

    Args:
        model: of width d and feed-forward width f.
        parameters: how many numbers are trained.
        rows: of the batch.
        tokens: of each row.
        gradients: taken in the step: 2 once AWP has begun, else 1.
    """
    encoder = model.encoder
    probabilities = 0 if model.execution.attention == "cudnn" else encoder.num_heads * tokens
    kept = {
        "none": 6 * encoder.hidden_size + encoder.intermediate_size + probabilities,
        "dots": 6 * encoder.hidden_size + encoder.intermediate_size,
        "layers": encoder.hidden_size,
    }[model.execution.remat]
    activations = 2 * gradients * encoder.num_layers * rows * tokens * kept
    moved = FLOAT_BYTES * (8 + 4 * (gradients - 1)) * parameters
    return moved + ACTIVATION_BYTES[model.execution.compute_dtype] * activations


def _dense_flops(model: ModelSizes, lengths: Sequence[int]) -> int:
    width = model.encoder.hidden_size
    return sum(lengths) * (8 * width**2 + 4 * width * model.encoder.intermediate_size)


def _attention_flops(model: ModelSizes, lengths: Sequence[int]) -> int:
    return 4 * model.encoder.hidden_size * sum(length**2 for length in lengths)
