"""The text encoder: one Flax Linen module for XLM-RoBERTa, RoBERTa and BERT checkpoints of any size.

Parameters are plain nested dicts with one entry per checkpoint tensor (query, key and value apart, one
sub-tree per layer), so that masks for weight decay and adversarial perturbation can go by name:

    embeddings/{word,position,token_type}/embedding   embeddings/layer_norm/{scale,bias}
    layer_0/attention/{query,key,value,out}/{kernel,bias}   layer_0/attention/layer_norm/{scale,bias}
    layer_0/feed_forward/{up,down}/{kernel,bias}            layer_0/feed_forward/layer_norm/{scale,bias}

This tree is the same for every `Execution`: layers are stacked, and projections joined, inside the forward pass.
Every layer's output is at hand with Linen's `apply(..., capture_intermediates=True)`.

A row of the batch may hold several sequences, one after the other. `segments` says which token belongs to which:
0 is padding, and the row's sequences are 1, 2, ... Nothing passes between them, and each has the positions that it
would have in a row of its own. Where each row is one sequence, `segments` may be a mask of bools.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from scanner_jax.attention import Attention, Visible, kernel, visibility
from scanner_jax.attention import Segments as Segments
from scanner_jax.encoder_config import EncoderConfig as EncoderConfig
from scanner_jax.encoder_config import Execution as Execution
from scanner_jax.encoder_config import Params as Params
from scanner_jax.encoder_config import in_float32 as in_float32
from scanner_jax.layers import Dropout, Embeddings, FeedForward


def token_positions(config: EncoderConfig, segments: Segments) -> Int[Array, "b t"]:
    """Row of the position table for each token, by the family's rule, from the start of its sequence.

    BERT counts from 0. RoBERTa counts from pad id + 1; padding gets the pad id.
    """
    place = jnp.arange(segments.shape[-1])
    begins = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    offset = place - jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
    if config.model_type == "bert":
        return offset
    return jnp.where(segments > 0, offset + 1, 0) + config.pad_token_id


class Layer(nn.Module):
    """One post-LayerNorm transformer layer."""

    config: EncoderConfig
    fused: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], visible: Visible, rng: Dropout) -> Float[Array, "b t d"]:
        rngs = (None, None) if rng is None else jax.random.split(rng)
        x = Attention(self.config, self.fused, name="attention")(x, visible, rngs[0])
        return FeedForward(self.config, name="feed_forward")(x, rngs[1])


class Encoder(nn.Module):
    """Token ids to one vector per token."""

    config: EncoderConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b t"], segments: Segments, *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Encode a batch.

        Args:
            token_ids: ids of the sequences, special tokens included, padded at the end.
            segments: the sequence that each token belongs to; the vectors at padding mean nothing.
            deterministic: False draws dropout from the `dropout` random stream.

        Returns:
            The last layer's vectors, in the parameters' dtype, whatever the layers compute in.

        Raises:
            ValueError: the rows are longer than the checkpoint's position table allows.
        """
        config = self.config
        if token_ids.shape[-1] > config.max_tokens:
            raise ValueError(f"{token_ids.shape[-1]} tokens, but this encoder takes at most {config.max_tokens}")
        # Keys by a layer's number rather than its name: they can be scanned over, and scanning changes no draw.
        rngs = None if deterministic else jax.random.split(self.make_rng("dropout"), config.num_layers + 1)
        rng = None if rngs is None else rngs[-1]
        x = Embeddings(config, name="embeddings")(token_ids, token_positions(config, segments), rng)
        dtype = x.dtype
        if self.execution.compute_dtype != "float32":  # else that of the parameters, which tests have in float64
            x = x.astype(self.execution.compute_dtype)
        dropout, shared = rngs is not None and config.attention_dropout > 0, segments.dtype != jnp.bool_
        visible = visibility(segments, kernel(config, self.execution, dropout=dropout, shared=shared))
        return self._layers(x, visible, None if rngs is None else rngs[:-1]).astype(dtype)

    def _layers(self, x: Float[Array, "b t d"], visible: Visible, rngs: Dropout) -> Float[Array, "b t d"]:
        """Send the embeddings through all layers; each has one of the keys."""
        config, execution = self.config, self.execution
        if self.is_initializing() or self.is_mutable_collection("intermediates"):
            for index in range(config.num_layers):
                rng = None if rngs is None else rngs[index]
                x = Layer(config, execution.fused_projections, name=f"layer_{index}")(x, visible, rng)
            return x
        params = [self.variables["params"][f"layer_{index}"] for index in range(config.num_layers)]
        apply = _apply_layer(config, execution)
        if execution.scan_layers:
            return _scan(apply, params, x, visible, rngs)
        for index in range(config.num_layers):
            x = apply(params[index], x, visible, None if rngs is None else rngs[index])
        return x


ApplyLayer = Callable[[Params, Float[Array, "b t d"], Visible, Dropout], Float[Array, "b t d"]]


@functools.cache
def _apply_layer(config: EncoderConfig, execution: Execution) -> ApplyLayer:
    """One layer as a function, which keeps for the backward pass what `execution.remat` says.

    It is jitted, and the same for all layers: so JAX traces and differentiates it once, not once for each of them.
    """
    layer = Layer(config, execution.fused_projections, parent=None)

    def apply(params: Params, x: Float[Array, "b t d"], visible: Visible, rng: Dropout) -> Float[Array, "b t d"]:
        out: Any = layer.apply({"params": params}, x, visible, rng)
        return out

    jitted: ApplyLayer = jax.jit(apply)
    if execution.remat == "none":
        return jitted
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if execution.remat == "dots" else None
    # A scan's body cannot be merged with its own recomputation, so the barriers against it can go.
    rematerialised: ApplyLayer = jax.checkpoint(jitted, policy=policy, prevent_cse=not execution.scan_layers)
    return rematerialised


def _scan(
    apply: ApplyLayer,
    params: Sequence[Params],
    x: Float[Array, "b t d"],
    visible: Visible,
    rngs: Dropout,
) -> Float[Array, "b t d"]:
    """Apply one compiled layer to the parameters of all layers in turn."""

    def body(x: Float[Array, "b t d"], own: tuple[Params, Dropout]) -> tuple[Float[Array, "b t d"], None]:
        return apply(own[0], x, visible, own[1]), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    return jax.lax.scan(body, x, (stacked, rngs))[0]


def init_encoder(config: EncoderConfig, rng: jax.Array) -> Params:
    """Draw fresh parameters without running the forward pass; under `jax.eval_shape` only their shapes.

    Args:
        config: the encoder's sizes.
        rng: a key of `jax.random`.

    Returns:
        Normal kernels and embeddings (standard deviation `initializer_range`), zero biases, unit scales.
    """
    token_ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    return Encoder(config).lazy_init(rng, token_ids, mask, deterministic=True)["params"]


def random_params(config: EncoderConfig, *, seed: int) -> Params:
    """Fresh parameters on the host, where those of a large encoder take none of the device's memory.

    Args:
        config: the encoder's sizes.
        seed: of the draws, which are not those of `init_encoder`.

    Returns:
        What `init_encoder` returns, but as numpy arrays.
    """
    shapes = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0)))
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        if name in ("bias", "scale"):
            return np.full(leaf.shape, float(name == "scale"), np.float32)
        return config.initializer_range * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
