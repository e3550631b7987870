"""What an encoder is made of, as Flax Linen modules, but for attention; `encoder.py` puts them together.

They compute in the dtype that their input has. Parameters keep theirs, float32, and so have their gradients. In
bfloat16, products of matrices take and give bfloat16 (they add up in float32 on a GPU), while biases, GELU, residual
sums, LayerNorm, and attention's scores and softmax are computed in float32, and what leaves them is rounded.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from scanner_jax.encoder_config import EncoderConfig, Params

Dropout = jax.Array | None
"""A key to draw dropout from; None for no dropout."""


def wide(dtype: Any) -> Any:
    """The dtype of sums in a computation in `dtype`: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


def drop(x: Array, rate: float, rng: Dropout) -> Array:
    """Drop numbers at a rate, each for itself, inside a module's call."""
    return x if rng is None else nn.Dropout(rate)(x, deterministic=False, rng=rng)


class Dense(nn.Module):
    """An affine layer; kernel and bias are those of Flax's own, which would also round the bias and its gradient."""

    config: EncoderConfig
    features: int

    def __call__(self, x: Float[Array, "b t i"]) -> Float[Array, "b t f"]:
        return affine(x, *self.weights(x.shape[-1]))

    @nn.compact
    def weights(self, inputs: int) -> tuple[Float[Array, "i f"], Float[Array, " f"]]:
        """Kernel and bias, for a product that is taken elsewhere."""
        kernel = self.param("kernel", nn.initializers.normal(self.config.initializer_range), (inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


def affine(x: Float[Array, "b t i"], kernel: Float[Array, "i f"], bias: Float[Array, " f"]) -> Float[Array, "b t f"]:
    """The product in the input's dtype, the sum with the bias in a wide one."""
    product = x @ kernel.astype(x.dtype)
    return (product.astype(wide(x.dtype)) + bias).astype(x.dtype)


class Norm(nn.Module):
    """LayerNorm of a sum, such as a residual one."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, *summands: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        dtype, size = summands[0].dtype, summands[0].shape[-1:]
        own = {name: self.param(name, init, size) for name, init in _NORM_INITS.items()}

        def normalised(own: Params, *summands: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
            total = functools.reduce(jnp.add, (part.astype(wide(dtype)) for part in summands))
            out: Any = _layer_norm(self.config).apply({"params": own}, total)
            return out.astype(dtype)

        # Or the backward pass would keep several wide arrays of it.
        return (normalised if wide(dtype) == dtype else jax.checkpoint(normalised))(own, *summands)


_NORM_INITS = {"scale": nn.initializers.ones, "bias": nn.initializers.zeros}


def _layer_norm(config: EncoderConfig) -> nn.LayerNorm:
    """A LayerNorm outside of any module: its parameters are given."""
    # The fast variance (mean of squares minus squared mean) cancels badly at BERT's eps of 1e-12.
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, parent=None)


class _WordEmbedding(nn.Module):
    """Flax's Embed, but for a table that is given with other rows than the config's: training may hold those in use."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, token_ids: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        config = self.config
        if self.has_variable("params", "embedding"):
            table: Any = self.get_variable("params", "embedding")
        else:
            init = nn.initializers.normal(config.initializer_range)
            table = self.param("embedding", init, (config.vocab_size, config.hidden_size))
        return jnp.take(table, token_ids, axis=0)  # NaN for ids beyond the table, rather than another token's row


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalised; the token type is always 0."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b t"], positions: Int[Array, "b t"], rng: Dropout
    ) -> Float[Array, "b t d"]:
        config = self.config
        init = nn.initializers.normal(config.initializer_range)
        tables = {
            name: nn.Embed(rows, config.hidden_size, embedding_init=init, name=name)
            for name, rows in (
                ("position", config.max_position_embeddings),
                ("token_type", config.type_vocab_size),
            )
        }
        token_type = tables["token_type"](jnp.zeros((1, 1), jnp.int32))
        x = _WordEmbedding(config, name="word")(token_ids) + tables["position"](positions) + token_type
        return drop(Norm(config, name="layer_norm")(x), config.hidden_dropout, rng)


class FeedForward(nn.Module):
    """The position-wise network (exact, erf GELU) with its residual connection and LayerNorm."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], rng: Dropout) -> Float[Array, "b t d"]:
        config = self.config
        hidden = gelu(Dense(config, config.intermediate_size, name="up")(x))
        out = Dense(config, config.hidden_size, name="down")(hidden)
        return Norm(config, name="layer_norm")(x, drop(out, config.hidden_dropout, rng))


def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The exact GELU, computed in a wide dtype."""
    if wide(x.dtype) == x.dtype:
        return _gelu(x)
    return jax.checkpoint(_gelu)(x)  # or the backward pass would keep several wide arrays of it


def _gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    return nn.gelu(x.astype(wide(x.dtype)), approximate=False).astype(x.dtype)
