"""The two models: an encoder with the detector's head, and one with the recognizer's two heads."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from scanner_jax.encoder import Encoder, EncoderConfig, Execution, Params, Segments
from scanner_jax.types import BIO


class SpanDetector(nn.Module):
    """Stage 1: one of O, B, I for every token; only first sub-words are read (paper, section 3.1).

    **Assumption:** a linear head after dropout, as in the usual token classifier; types are left to stage 2.
    """

    encoder: EncoderConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b t"], segments: Segments, *, deterministic: bool
    ) -> Float[Array, "b t c"]:
        hidden = Encoder(self.encoder, self.execution, name="encoder")(token_ids, segments, deterministic=deterministic)
        hidden = nn.Dropout(self.encoder.hidden_dropout)(hidden, deterministic=deterministic)
        return _head(self.encoder, len(BIO), name="tags")(hidden)


class EntityRecognizer(nn.Module):
    """Stage 2: the type at `<mask>`, and at each `<obj>` the logit of that object's overlap with the entity.

    Source: paper, section 3.2. **Assumption:** both heads are linear layers after dropout.
    """

    encoder: EncoderConfig
    num_types: int
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "r t"],
        segments: Segments,
        mask_position: Int[Array, " b"],
        object_positions: Int[Array, "b o"],
        prompt_rows: Int[Array, " b"] | None = None,
        *,
        deterministic: bool,
    ) -> tuple[Float[Array, "b c"], Float[Array, "b o"]]:
        """Read one prompt per candidate.

        Args:
            token_ids: the prompts, padded at the end.
            segments: the prompt of its row that each token belongs to, from 1, and 0 at padding.
            mask_position: where each prompt's `<mask>` is in its row.
            object_positions: where its `<obj>` tokens are; absent objects may point anywhere (0, say).
            prompt_rows: the row of each prompt; None where each has its own, in order.
            deterministic: False draws dropout from the `dropout` random stream.

        Returns:
            Logits over the types (the last class is *non-entity*), and overlap logits, meaningless at
            absent objects.
        """
        hidden = Encoder(self.encoder, self.execution, name="encoder")(token_ids, segments, deterministic=deterministic)
        positions = jnp.concatenate([mask_position[:, None], object_positions], axis=1)
        if prompt_rows is None:
            picked = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)
        else:
            picked = hidden[prompt_rows[:, None], positions]
        picked = nn.Dropout(self.encoder.hidden_dropout)(picked, deterministic=deterministic)
        types = _head(self.encoder, self.num_types, name="types")(picked[:, 0])
        overlaps = _head(self.encoder, 1, name="overlap")(picked[:, 1:])[:, :, 0]
        return types, overlaps


def init_detector(config: EncoderConfig, encoder_params: Params, rng: jax.Array) -> Params:
    """Parameters of a `SpanDetector` around a pretrained encoder, its head freshly drawn."""
    return {"encoder": encoder_params, "tags": _head_params(config, len(BIO), rng)}


def init_recognizer(config: EncoderConfig, encoder_params: Params, rng: jax.Array, *, num_types: int) -> Params:
    """Parameters of an `EntityRecognizer` around a pretrained encoder, its heads freshly drawn."""
    types, overlap = jax.random.split(rng)
    return {
        "encoder": encoder_params,
        "types": _head_params(config, num_types, types),
        "overlap": _head_params(config, 1, overlap),
    }


def _head(config: EncoderConfig, features: int, *, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=nn.initializers.normal(config.initializer_range), name=name)


def _head_params(config: EncoderConfig, features: int, rng: jax.Array) -> Params:
    kernel = config.initializer_range * jax.random.normal(rng, (config.hidden_size, features))
    return {"kernel": kernel, "bias": jnp.zeros(features)}
