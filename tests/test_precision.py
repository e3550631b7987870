"""Layers in bfloat16 against the same in float32; what stays float32; what decides a run's hashes."""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from scanner_jax import convert, settings
from scanner_jax.beginning import Training, TrainingSettings, begin
from scanner_jax.detection import Detection, detector_loss
from scanner_jax.encoder import Encoder, EncoderConfig, Execution, Params, init_encoder
from scanner_jax.models import SpanDetector, init_detector
from scanner_jax.optim import OptimizerSettings
from scanner_jax.pipeline import Batch
from scanner_jax.recognition import Recognition
from scanner_jax.settings import execution, paper_settings
from scanner_jax.stepping import train_step

# Compiles in half the time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

GRANITE = Path("models/granite-30m-english")
BFLOAT16 = Execution(compute_dtype="bfloat16")
ROUNDING = 2.0**-8
"""Half of the distance between 1 and the next number in bfloat16."""


@pytest.fixture(scope="module")
def config() -> EncoderConfig:
    return EncoderConfig(
        model_type="roberta",
        vocab_size=100,
        hidden_size=64,
        num_layers=3,
        num_heads=4,
        intermediate_size=96,
        max_position_embeddings=40,
        initializer_range=0.1,
        pad_token_id=1,
    )


@pytest.fixture(scope="module")
def params(config: EncoderConfig) -> Params:
    return init_detector(config, init_encoder(config, jax.random.key(0)), jax.random.key(1))


def batch(*, shared: bool) -> Batch:
    rng = np.random.default_rng(0)
    lengths = np.array([[24], [13], [20], [0]])  # the last row is padding alone
    segments = np.arange(24)[None] < lengths
    if shared:
        segments = np.where(segments, 1 + (np.arange(24) > 8), 0).astype(np.int32)
    return {
        "token_ids": rng.integers(3, 100, segments.shape).astype(np.int32),
        "segments": segments,
        "labels": rng.integers(0, 3, segments.shape).astype(np.int32),
        "mask": segments > 0,
    }


def distance(actual: Any, expected: Any) -> float:
    """Of two arrays, relative to the latter's length."""
    return float(np.linalg.norm(np.asarray(actual) - expected) / np.linalg.norm(expected))


@pytest.mark.skipif(not GRANITE.is_dir(), reason=f"{GRANITE} is missing")
def test_a_real_encoder_in_bfloat16_gives_what_it_gives_in_float32() -> None:
    config, params = convert.load_encoder(GRANITE)
    ids = np.random.default_rng(0).integers(3, 50_000, (3, 40)).astype(np.int32)
    mask = np.arange(40)[None] < np.array([[40], [17], [33]])
    exact, rounded = (
        np.asarray(Encoder(config, how).apply({"params": params}, ids, mask, deterministic=True))[mask]
        for how in (Execution(), BFLOAT16)
    )
    assert rounded.dtype == np.float32
    # Six layers with some ten roundings each, of random signs: about eight times one rounding.
    assert ROUNDING / 4 < distance(rounded, exact) < 8 * ROUNDING


@pytest.mark.parametrize(
    ("how", "shared"),
    [({}, False), ({}, True), ({"scan_layers": True, "remat": "layers", "fused_projections": True}, True)],
    ids=str,
)
def test_loss_and_gradients_are_those_of_float32(
    config: EncoderConfig, params: Params, how: dict[str, Any], *, shared: bool
) -> None:
    """With dropout, whose draws are the same."""
    exact, exact_grads = with_gradient(config, Execution(), params, shared=shared)
    rounded, grads = with_gradient(config, Execution(compute_dtype="bfloat16", **how), params, shared=shared)
    assert rounded.dtype == jnp.float32
    assert rounded == pytest.approx(float(exact), rel=4 * ROUNDING) and rounded != exact
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(exact_grads), strict=True
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert ours.dtype == jnp.float32 and np.isfinite(ours).all(), name
        if not name.endswith("key/bias"):  # whose gradient is zero but for rounding
            assert distance(ours, theirs) < 16 * ROUNDING, name


def with_gradient(config: EncoderConfig, execution: Execution, params: Params, *, shared: bool) -> Any:
    key = jax.random.key(5, impl="unsafe_rbg")  # compiles fast
    return jit(jax.value_and_grad(loss_of(config, execution)))(params, batch(shared=shared), key)


def loss_of(config: EncoderConfig, execution: Execution) -> Any:
    return detector_loss(SpanDetector(config, execution), alpha=None)


Equation = collections.namedtuple("Equation", ["name", "inputs", "outputs"])


def equations(jaxpr: Any) -> Iterator[Equation]:
    """Every equation of a program, those of its inner programs too, with the dtypes that it takes and gives."""
    for equation in jaxpr.eqns:
        values = [value if isinstance(value, tuple) else (value,) for value in equation.params.values()]
        inner = [getattr(value, "jaxpr", value) for value in itertools.chain.from_iterable(values)]
        programs = [part for part in inner if hasattr(part, "eqns")]
        for program in programs:
            yield from equations(program)
        if not programs:
            taken, given = (
                [str(variable.aval.dtype) for variable in some] for some in (equation.invars, equation.outvars)
            )
            yield Equation(equation.primitive.name, taken, given)


def program_of(config: EncoderConfig, params: Params, execution: Execution) -> list[Equation]:
    loss = loss_of(config, execution)
    return list(equations(jax.make_jaxpr(jax.value_and_grad(loss))(params, batch(shared=True), jax.random.key(5))))


ALWAYS_WIDE = {"add", "exp", "log", "rsqrt", "erfc", "reduce_sum", "reduce_max"}
"""What softmax, GELU, LayerNorm, residual sums, losses and the gradients of biases and scales are made of."""


def test_softmax_norms_and_losses_are_float32(config: EncoderConfig, params: Params) -> None:
    program = program_of(config, params, BFLOAT16)
    sums = [equation for equation in program if equation.name in ALWAYS_WIDE]
    assert {equation.name for equation in sums} == ALWAYS_WIDE
    for equation in sums:
        assert "bfloat16" not in equation.inputs + equation.outputs, equation


def test_products_take_bfloat16_but_for_the_heads(config: EncoderConfig, params: Params) -> None:
    program = program_of(config, params, BFLOAT16)
    products = collections.Counter(
        (*equation.inputs, *equation.outputs) for equation in program if equation.name == "dot_general"
    )
    assert sum(products.values()) == sum(
        equation.name == "dot_general" for equation in program_of(config, params, Execution())
    )
    low, full = "bfloat16", "float32"
    assert products[full, full, full] == 3  # the head's, forward and back
    assert products[low, low, full] == config.num_layers  # the scores of attention
    assert set(products) == {(full,) * 3, (low, low, full), (low,) * 3}


def test_the_float32_program_has_no_bfloat16(config: EncoderConfig, params: Params) -> None:
    for equation in program_of(config, params, Execution()):
        assert "bfloat16" not in equation.inputs + equation.outputs, equation


def test_what_is_trained_is_float32(config: EncoderConfig, params: Params) -> None:
    """Parameters, moments and updates, AWP's second gradient included; and nothing overflows."""
    optimizer = OptimizerSettings(learning_rate=1e-3, awp_gamma=1e-3, awp_start=0.0)
    made = TrainingSettings(optimizer=optimizer, epochs=4, batch_size=1, checkpoint_every=9, log_every=9)
    loss = loss_of(config, BFLOAT16)
    state, course = begin(Training(params, loss, [None], _never), settings=made, seed=1)[2:]
    step = jit(functools.partial(train_step, loss, optimizer))
    for _ in range(2):
        state, value = step(state, batch(shared=False), course)
    assert value.dtype == jnp.float32 and np.isfinite(value)
    kinds = {leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state))}
    assert kinds == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert all(jax.tree.leaves(jax.tree.map(lambda leaf: bool(np.isfinite(leaf).all()), state.params)))


def _never(features: Any, *, batch_size: int) -> Batch:
    raise AssertionError("no batch is read here")


def test_what_predicts_computes_in_float32(config: EncoderConfig, tiny_tokenizer: Any) -> None:
    own = {"encoder": config, "tokenizer": tiny_tokenizer, "max_tokens": 38, "eval_batch_size": 4}
    detection = Detection(**own, execution=Execution(compute_dtype="bfloat16", scan_layers=True))
    assert detection.model.execution.compute_dtype == "bfloat16"
    assert detection.reader.execution == Execution(scan_layers=True)
    recognition = Recognition(**own, types=("LOC",), max_objects=1, execution=BFLOAT16)
    assert recognition.model.execution.compute_dtype == "bfloat16"
    assert recognition.reader.execution == Execution()


@pytest.mark.parametrize(("backend", "chosen"), [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "float32")])
def test_auto_is_bfloat16_on_a_gpu(monkeypatch: pytest.MonkeyPatch, backend: str, chosen: str) -> None:
    monkeypatch.setattr(settings.jax, "default_backend", lambda: backend)
    config = paper_settings()
    assert config.execution.compute_dtype == "auto"
    assert execution(config).compute_dtype == chosen
    config.execution.compute_dtype = "float32"
    assert execution(config).compute_dtype == "float32"


def test_other_names_are_refused() -> None:
    config = paper_settings()
    config.execution.compute_dtype = "fp16"
    with pytest.raises(ValueError, match="compute_dtype='fp16': accepted: 'auto', 'float32', 'bfloat16'"):
        execution(config)
    with pytest.raises(ValueError, match="compute_dtype='auto': accepted: 'float32', 'bfloat16'"):
        Execution(compute_dtype="auto")
