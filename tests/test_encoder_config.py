"""Checkpoints' configs, and the ways to compute an encoder: other programs, the same numbers."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.ad_checkpoint
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array

from scanner_jax.awp import awp
from scanner_jax.encoder import Encoder, EncoderConfig, Execution, Params, init_encoder

# Compiles in half the time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

EXECUTIONS = (
    Execution(scan_layers=True),
    Execution(fused_projections=True),
    Execution(remat="dots"),
    Execution(remat="layers"),
    Execution(scan_layers=True, remat="layers", fused_projections=True),
)
IDS = np.random.default_rng(0).integers(3, 50, (2, 9))
SEGMENTS = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0]])


@pytest.fixture(scope="module")
def config() -> EncoderConfig:
    return EncoderConfig(
        model_type="roberta",
        vocab_size=50,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
        hidden_dropout=0.3,
        attention_dropout=0.4,
        pad_token_id=1,
    )


@pytest.fixture(scope="module")
def params(config: EncoderConfig) -> Params:
    rng = np.random.default_rng(1)
    tree = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(0.2, 0.4, leaf.shape).astype(np.float32), tree)


def with_gradient(config: EncoderConfig, execution: Execution, params: Params) -> tuple[Array, Params]:
    """The last layer's vectors with dropout, and the gradient of a scalar of the real tokens'."""
    weight = np.random.default_rng(2).normal(size=(*IDS.shape, config.hidden_size)) * (SEGMENTS > 0)[..., None]

    def scalar(params: Params) -> Any:
        rngs = {"dropout": jax.random.key(3, impl="unsafe_rbg")}  # compiles fast
        model = Encoder(config, execution)
        out: Any = model.apply({"params": params}, IDS, SEGMENTS, deterministic=False, rngs=rngs)
        return (out * weight).sum(), out

    grads, out = jit(jax.grad(scalar, has_aux=True))(params)
    return out, grads


@pytest.fixture(scope="module")
def plain(config: EncoderConfig, params: Params) -> tuple[Array, Params]:
    return with_gradient(config, Execution(), params)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
def test_every_execution_computes_the_same_dropout_included(
    config: EncoderConfig, params: Params, plain: tuple[Array, Params], execution: Execution
) -> None:
    assert_close(with_gradient(config, execution, params), plain, 1e-5)


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    """Compare two trees, each leaf relative to its greatest entry where that is beyond 1."""
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        difference = np.abs(np.asarray(ours) - theirs).max()
        assert difference <= tolerance * max(1.0, np.abs(theirs).max()), f"{jax.tree_util.keystr(path)}: {difference}"


def test_dropout_is_on_in_these_comparisons(config: EncoderConfig, params: Params, plain: tuple[Array, Params]) -> None:
    still = jit(functools.partial(Encoder(config).apply, deterministic=True))({"params": params}, IDS, SEGMENTS)
    assert np.abs(plain[0] - still).max() > 0.1


def awp_training(config: EncoderConfig, execution: Execution) -> Callable[[Params, int], Params]:
    """Ten steps of SGD without dropout; with AWP, if the first is counted as step 10."""
    target = np.random.default_rng(4).normal(size=(*IDS.shape, config.hidden_size)).astype(np.float32)
    # SGD: Adam would blow up the rounding error of gradients that are 0, such as a key's bias.
    tx = awp(optax.sgd(1.0), gamma=0.1, start_step=10)

    def loss(params: Params) -> Array:
        out: Any = Encoder(config, execution).apply({"params": params}, IDS, SEGMENTS, deterministic=True)
        return jnp.mean(jnp.where((SEGMENTS > 0)[..., None], out - target, 0) ** 2)

    @jit
    def train(params: Params, first: int) -> Params:
        def step(carry: tuple[Params, Any], _: None) -> tuple[tuple[Params, Any], None]:
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params, grad_fn=jax.grad(loss))
            return (optax.apply_updates(params, updates), state), None

        state = tx.init(params)._replace(step=first)
        return jax.lax.scan(step, (params, state), length=10)[0][0]

    return train


def test_ten_awp_steps_are_the_same(config: EncoderConfig, params: Params) -> None:
    train = awp_training(config, Execution())
    plain, without_awp = train(params, 10), train(params, 0)
    for execution in (EXECUTIONS[0], EXECUTIONS[-1]):
        ours = awp_training(config, execution)(params, 10)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=1e-6), ours, plain)
    for name in ("query", "key", "value"):
        moved = [tree["layer_1"]["attention"][name]["kernel"] for tree in (plain, without_awp, params)]
        assert np.abs(moved[0] - moved[1]).max() > 5e-5, f"AWP made no difference to {name}"
        assert np.abs(moved[1] - moved[2]).max() > 5e-5, f"{name} was not trained"


@pytest.mark.parametrize("execution", EXECUTIONS, ids=str)
def test_parameters_are_those_of_the_checkpoint(config: EncoderConfig, execution: Execution) -> None:
    init = functools.partial(Encoder(config, execution).init, deterministic=True)
    expected = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0)))
    assert jax.eval_shape(init, jax.random.key(0), IDS, SEGMENTS)["params"] == expected


def products(config: EncoderConfig, execution: Execution, layers: int) -> int:
    """How many matrix products a program has, a loop's body and a function that is called again counted once."""
    config = dataclasses.replace(config, num_layers=layers)
    params = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0)))
    forward = functools.partial(Encoder(config, execution).apply, deterministic=True)
    return str(jax.make_jaxpr(forward)({"params": params}, IDS, SEGMENTS)).count("dot_general[")


def test_what_is_compiled(config: EncoderConfig) -> None:
    for execution in (Execution(), Execution(scan_layers=True)):  # one layer's trace serves all of them
        assert [products(config, execution, layers) for layers in (1, 3)] == [8, 8]
    assert products(config, Execution(fused_projections=True), 3) == 6


@pytest.mark.parametrize("scan_layers", [False, True])
def test_remat_keeps_less_for_the_backward_pass(
    config: EncoderConfig, params: Params, capsys: pytest.CaptureFixture[str], *, scan_layers: bool
) -> None:
    def kept(remat: str) -> int:
        model = Encoder(config, Execution(scan_layers=scan_layers, remat=remat))
        rngs = {"dropout": jax.random.key(0)}
        forward = functools.partial(model.apply, deterministic=False, rngs=rngs)
        jax.ad_checkpoint.print_saved_residuals(forward, {"params": params}, IDS, SEGMENTS)
        lines = [line for line in capsys.readouterr().out.splitlines() if "from the argument" not in line]
        return sum(math.prod(map(int, re.findall(r"\d+", line.partition("[")[2].partition("]")[0]))) for line in lines)

    everything, dots, layers = (kept(remat) for remat in ("none", "dots", "layers"))
    assert everything > 1.5 * dots > 1.5 * 1.5 * layers


def test_unknown_remat_is_refused() -> None:
    with pytest.raises(ValueError, match="remat='full': accepted: 'none', 'dots', 'layers'"):
        Execution(remat="full")


def test_config_survives_json(config: EncoderConfig) -> None:
    assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_all_unsupported_settings_are_listed(config: EncoderConfig) -> None:
    values = config.to_dict() | {
        "model_type": "deberta",
        "hidden_act": "gelu_new",
        "position_embedding_type": "relative_key",
        "is_decoder": True,
        "num_attention_heads": 5,
        "layer_norm_eps": None,
    }
    del values["intermediate_size"]
    with pytest.raises(ValueError, match="cannot be used") as error:
        EncoderConfig.from_dict(values)
    message = str(error.value)
    for part in (
        "model_type is 'deberta'; accepted: 'xlm-roberta', 'roberta', 'bert'",
        "hidden_act is 'gelu_new'; accepted: 'gelu'",
        "position_embedding_type is 'relative_key'",
        "is_decoder is True",
        "intermediate_size is missing",
        "hidden_size 16 is not a multiple of num_attention_heads 5",
    ):
        assert part in message
    assert len(message.splitlines()) == 7


@pytest.mark.parametrize(("key", "value"), [("vocab_size", "50"), ("num_hidden_layers", 0), ("pad_token_id", -1)])
def test_wrong_sizes_are_refused(config: EncoderConfig, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{key} is {value!r}"):
        EncoderConfig.from_dict(config.to_dict() | {key: value})
