"""Both stages as programs that `jax.export` reads, for any batch and length, on CPU and CUDA.

The weights are arguments, a dict of arrays by the names that they have in the `.safetensors` beside: a program would
hold no more than 2 GB of constants, which XLM-RoBERTa-large has. `stablehlo_example.py` runs them.

`detector.stablehlo` takes weights, token_ids (b, t) and mask (b, t), and gives the logits of O, B and I (b, t, 3).
`recognizer.stablehlo` takes mask_position (b) and object_positions (b, o) too, and gives the logits of types (b, c) and
of overlaps (b, o). Ids and positions are int32, masks bool.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax import export
from jaxtyping import Array, Bool, Float, Int

from scanner_jax.encoder import Params
from scanner_jax.files import write_bytes
from scanner_jax.models import SpanDetector
from scanner_jax.recognition import Recognition

PLATFORMS = ("cpu", "cuda")

EXAMPLE = Path(__file__).with_name("stablehlo_example.py").read_text(encoding="utf-8")
"""What an export has as predict.py."""

Weights = Mapping[str, Array]


def write_programs(folder: Path, params: Mapping[str, Params], recognition: Recognition) -> None:
    """Write both programs; nothing is compiled.

    Args:
        folder: to write `detector.stablehlo` and `recognizer.stablehlo` to.
        params: both stages' parameters, of which only shapes are used.
        recognition: what the recognizer is run with.
    """
    plain = dataclasses.replace(recognition.encoder, vocab_size=recognition.encoder.vocab_size - 1)  # without <obj>
    detector, recognizer = SpanDetector(plain), recognition.reader

    def detect(weights: Weights, token_ids: Int[Array, "b t"], mask: Bool[Array, "b t"]) -> Float[Array, "b t c"]:
        logits: Any = detector.apply(_variables(weights), token_ids, mask, deterministic=True)
        return logits

    def recognize(
        weights: Weights,
        token_ids: Int[Array, "b t"],
        mask: Bool[Array, "b t"],
        mask_position: Int[Array, " b"],
        object_positions: Int[Array, "b o"],
    ) -> tuple[Float[Array, "b c"], Float[Array, "b o"]]:
        read = token_ids, mask, mask_position, object_positions
        logits: Any = recognizer.apply(_variables(weights), *read, deterministic=True)
        return logits

    b, t, o = export.symbolic_shape("b, t, o", constraints=[f"t <= {plain.max_tokens}"])
    tokens = jax.ShapeDtypeStruct((b, t), jnp.int32), jax.ShapeDtypeStruct((b, t), jnp.bool_)
    places = jax.ShapeDtypeStruct((b,), jnp.int32), jax.ShapeDtypeStruct((b, o), jnp.int32)
    for stage, function, arguments in (("detector", detect, tokens), ("recognizer", recognize, (*tokens, *places))):
        shapes = jax.eval_shape(lambda: params[stage])  # noqa: B023 (called at once)
        program = export.export(jax.jit(function), platforms=PLATFORMS)(_flat(shapes), *arguments)
        write_bytes(folder / f"{stage}.stablehlo", bytes(program.serialize()))


def _flat(params: Params) -> dict[str, Any]:
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    return flat


def _variables(weights: Weights) -> dict[str, Any]:
    return {"params": traverse_util.unflatten_dict(dict(weights), sep="/")}
