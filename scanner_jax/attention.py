"""Self-attention, and which kernel computes it.

XLA's kernel (products, softmax, dropout, as XLA compiles them) takes everything. cuDNN's flash attention, through
`jax.nn.dot_product_attention`, keeps no probabilities, and takes rows of one sequence each, in bfloat16, by how many
tokens they have. It draws no dropout that training could use: JAX's public function has no argument for it, and below
it the seed is a constant of the compiled program, so that every step would drop the same. Rows that several sequences
share it takes in a layout that JAX does not offer publicly. So trainings with attention dropout, the paper's encoders
among them, and those on shared rows, are XLA's.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from scanner_jax.encoder_config import EncoderConfig, Execution
from scanner_jax.layers import Dense, Dropout, Norm, affine, drop, wide

logger = logging.getLogger(__name__)

Segments = Bool[Array, "b t"] | Int[Array, "b t"]
"""The sequence of its row that each token belongs to, from 1, and 0 at padding; bools where a row holds but one."""

Visible = Bool[Array, "b 1 #t t"] | Int[Array, " b"]
"""Which tokens (last axis) each token may attend to, for XLA's kernel; for cuDNN's, how many of each row."""

Capability = tuple[int, int]
"""What an NVIDIA GPU can do, as NVIDIA counts it: (9, 0) is an H100."""

AMPERE, HOPPER = (8, 0), (9, 0)


def obstacles(
    config: EncoderConfig, execution: Execution, *, capability: Capability | None, dropout: bool, shared: bool
) -> tuple[str, ...]:
    """What keeps cuDNN's kernel from computing attention.

    Args:
        config: the encoder's sizes.
        execution: how it is computed.
        capability: of the GPU here; None where there is no NVIDIA GPU.
        dropout: whether attention probabilities are dropped.
        shared: whether several sequences share a row.

    Returns:
        Each obstacle in words; nothing where it can.
    """
    size = config.hidden_size // config.num_heads
    largest = 256 if capability is not None and capability >= HOPPER else 128
    found = {
        "no NVIDIA GPU here": capability is None,
        "a GPU older than Ampere": capability is not None and capability < AMPERE,
        f"compute_dtype {execution.compute_dtype}, where it takes bfloat16": execution.compute_dtype != "bfloat16",
        f"heads of {size} numbers, where it takes multiples of 8 up to {largest}": size % 8 > 0 or size > largest,
        f"attention dropout ({config.attention_dropout}), which it cannot draw anew for every step": dropout,
        "rows that several sequences share": shared,
    }
    return tuple(words for words, there in found.items() if there)


def kernel(config: EncoderConfig, execution: Execution, *, dropout: bool, shared: bool) -> Literal["xla", "cudnn"]:
    """Choose what computes attention here; "auto" takes cuDNN's kernel where it can, and logs its choice once.

    Raises:
        ValueError: `execution` asks for cuDNN's, which cannot; the message says why.
    """
    if execution.attention == "xla":
        return "xla"
    found = obstacles(config, execution, capability=capability_here(), dropout=dropout, shared=shared)
    if execution.attention == "cudnn" and found:
        raise ValueError(refusal(found))
    chosen: Literal["xla", "cudnn"] = "xla" if found else "cudnn"
    if execution.attention == "auto":
        _say(chosen, found)
    return chosen


def refusal(found: Sequence[str]) -> str:
    """The error for what keeps cuDNN's kernel from computing what it was asked for."""
    return f"attention='cudnn': not with {', '.join(found)}; 'xla' takes everything, and 'auto' what can be had"


@functools.cache
def capability_here() -> Capability | None:
    """What the GPU that JAX computes on can do; None where it is no NVIDIA GPU."""
    device = jax.devices()[0]
    if device.platform != "gpu" or "nvidia" not in device.device_kind.lower():
        return None
    major, minor = device.compute_capability.split(".")
    return int(major), int(minor)


@functools.cache  # so that it is said once
def _say(chosen: str, found: tuple[str, ...]) -> None:
    logger.info("attention: %s", f"XLA's kernel; cuDNN's not with {', '.join(found)}" if found else "cuDNN's kernel")


def visibility(segments: Segments, chosen: Literal["xla", "cudnn"]) -> Visible:
    """Let each token attend to those of its own sequence, in the form that a kernel takes."""
    if chosen == "cudnn":
        # A row of padding alone attends to its first token: means of nothing are no numbers.
        return jnp.maximum(segments.sum(axis=-1, dtype=jnp.int32), 1)
    if segments.dtype == jnp.bool_:
        return segments[:, None, None, :]
    return (segments[:, :, None] == segments[:, None, :])[:, None]


class Attention(nn.Module):
    """Multi-head self-attention with its residual connection and LayerNorm."""

    config: EncoderConfig
    fused: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], visible: Visible, rng: Dropout) -> Float[Array, "b t d"]:
        """Attend from every token to the visible ones."""
        config = self.config
        heads = (config.num_heads, config.hidden_size // config.num_heads)
        query, key, value = (part.reshape(*x.shape[:2], *heads) for part in self._projections(x))
        rngs = (None, None) if rng is None else jax.random.split(rng)
        context = attend(query, key, value, visible, rate=config.attention_dropout, rng=rngs[0]).reshape(x.shape)
        out = Dense(config, config.hidden_size, name="out")(context)
        return Norm(config, name="layer_norm")(x, drop(out, config.hidden_dropout, rngs[1]))

    def _projections(self, x: Float[Array, "b t d"]) -> list[Float[Array, "b t d"]]:
        names, width = ("query", "key", "value"), self.config.hidden_size
        if not self.fused:
            return [Dense(self.config, width, name=name)(x) for name in names]
        weights = [Dense(self.config, width, name=name).weights(width) for name in names]
        kernels, biases = zip(*weights, strict=True)
        return jnp.split(affine(x, jnp.concatenate(kernels, axis=1), jnp.concatenate(biases)), 3, axis=-1)


def attend(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b t h k"],
    value: Float[Array, "b t h k"],
    visible: Visible,
    *,
    rate: float,
    rng: Dropout,
) -> Float[Array, "b t h k"]:
    """Mix the values of the visible tokens, by the kernel that `visible` is made for.

    Args:
        query: of every token and head, not scaled.
        key: likewise.
        value: likewise.
        visible: as `visibility` has it.
        rate: of dropout on the probabilities.
        rng: the key to draw it from; None for none.
    """
    if visible.ndim == 1:
        return by_lengths(query, key, value, visible, implementation="cudnn")
    scaled = query * query.shape[-1] ** -0.5
    weigh = _probabilities if wide(query.dtype) == query.dtype else _rounded_probabilities
    # Dropped per head and position, as in torch; Linen's own attention would share one draw.
    probabilities = drop(weigh(scaled, key, visible), rate, rng)
    return jnp.einsum("bhqt,bthk->bqhk", probabilities, value)


def by_lengths(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b t h k"],
    value: Float[Array, "b t h k"],
    lengths: Int[Array, " b"],
    *,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "b t h k"]:
    """JAX's own attention, where each row is one sequence with padding behind it; tests call it by XLA as well."""
    return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation=implementation)


def _probabilities(
    query: Float[Array, "b q h k"], key: Float[Array, "b t h k"], visible: Bool[Array, "b 1 #q t"]
) -> Float[Array, "b h q t"]:
    """The softmax of the visible scores, computed in a wide dtype; queries are scaled."""
    scores = jnp.einsum("bqhk,bthk->bhqt", query, key, preferred_element_type=wide(query.dtype))
    # The lowest number, not -inf: a row of padding alone then gives a mean rather than NaN.
    scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
    return nn.softmax(scores).astype(query.dtype)


@jax.custom_vjp
def _rounded_probabilities(
    query: Float[Array, "b q h k"], key: Float[Array, "b t h k"], visible: Bool[Array, "b 1 #q t"]
) -> Float[Array, "b h q t"]:
    """The same, keeping for the backward pass only what was rounded.

    JAX's own would keep the wide softmax, and take products with a wide gradient, at half the speed.
    """
    return _probabilities(query, key, visible)


_Kept = tuple[Float[Array, "b q h k"], Float[Array, "b t h k"], Float[Array, "b h q t"]]


def _rounded_forward(
    query: Float[Array, "b q h k"], key: Float[Array, "b t h k"], visible: Bool[Array, "b 1 #q t"]
) -> tuple[Float[Array, "b h q t"], _Kept]:
    probabilities = _probabilities(query, key, visible)
    return probabilities, (query, key, probabilities)


def _rounded_backward(
    kept: _Kept, grad: Float[Array, "b h q t"]
) -> tuple[Float[Array, "b q h k"], Float[Array, "b t h k"], None]:
    query, key, rounded = kept
    probabilities = rounded.astype(wide(query.dtype))
    weighed = probabilities * grad.astype(probabilities.dtype)
    of_scores = (weighed - probabilities * weighed.sum(axis=-1, keepdims=True)).astype(query.dtype)
    return jnp.einsum("bhqt,bthk->bqhk", of_scores, key), jnp.einsum("bhqt,bqhk->bthk", of_scores, query), None


_rounded_probabilities.defvjp(_rounded_forward, _rounded_backward)
