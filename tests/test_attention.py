"""Which kernel computes attention, for every reason not to be cuDNN's; and what cuDNN's is given, computed by XLA."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scanner_jax import attention
from scanner_jax.attention import Attention, attend, by_lengths, kernel, obstacles, visibility
from scanner_jax.encoder import Encoder, EncoderConfig, Execution, init_encoder
from scanner_jax.settings import check_execution, paper_settings

CONFIG = EncoderConfig(
    model_type="roberta",
    vocab_size=50,
    hidden_size=64,
    num_layers=1,
    num_heads=4,
    intermediate_size=96,
    max_position_embeddings=40,
    pad_token_id=1,
)
LARGE = dataclasses.replace(CONFIG, hidden_size=1024, num_heads=16)
CAN = {"capability": (9, 0), "dropout": False, "shared": False}
LENGTHS = np.array([24, 7, 1, 0])  # the last row is padding alone
MASK = np.arange(24)[None] < LENGTHS[:, None]
ALL = {
    "platform": ("no NVIDIA GPU here", {"capability": None}),
    "dtype": ("compute_dtype float32, where it takes bfloat16", {"compute_dtype": "float32"}),
    "dropout": ("attention dropout (0.1), which it cannot draw anew for every step", {"dropout": True}),
    "rows": ("rows that several sequences share", {"shared": True}),
    "size": ("heads of 20 numbers, where it takes multiples of 8 up to 256", {"hidden_size": 80}),
}


def asked(**changed: Any) -> tuple[EncoderConfig, Execution, dict[str, Any]]:
    """What is asked for, from a case in which cuDNN's kernel can."""
    config = dataclasses.replace(CONFIG, hidden_size=changed.pop("hidden_size", 64))
    execution = Execution(attention="auto", compute_dtype=changed.pop("compute_dtype", "bfloat16"))
    return config, execution, CAN | changed


@pytest.mark.parametrize("there", list(itertools.product([False, True], repeat=len(ALL))), ids=str)
def test_every_obstacle_is_named_and_no_other(there: tuple[bool, ...]) -> None:
    chosen = [case for case, present in zip(ALL.values(), there, strict=True) if present]
    changed: dict[str, Any] = {}
    for _, change in chosen:
        changed |= change
    config, execution, case = asked(**changed)
    expected = {words for words, _ in chosen}
    if changed.get("hidden_size") and "capability" in changed:
        expected = {words.replace("256", "128") for words in expected}
    assert set(obstacles(config, execution, **case)) == expected


@pytest.mark.parametrize(
    ("size", "capability", "fits"),
    [(64, (8, 0), True), (128, (8, 0), True), (256, (8, 0), False), (256, (9, 0), True), (64, (7, 5), False)],
)
def test_what_a_gpu_can(size: int, capability: tuple[int, int], fits: bool) -> None:
    config = dataclasses.replace(CONFIG, hidden_size=4 * size)
    execution = Execution(compute_dtype="bfloat16")
    assert (not obstacles(config, execution, **CAN | {"capability": capability})) == fits


@pytest.mark.parametrize("name", ["auto", "xla", "cudnn"])
@pytest.mark.parametrize("capability", [None, (9, 0)], ids=["cpu", "gpu"])
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_the_kernel_that_is_chosen(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int] | None, *, dropout: bool, shared: bool
) -> None:
    monkeypatch.setattr(attention, "capability_here", lambda: capability)
    execution = Execution(compute_dtype="bfloat16", attention=name)
    can = capability is not None and not dropout and not shared
    if name == "cudnn" and not can:
        with pytest.raises(ValueError, match="attention='cudnn': not with .*; 'xla' takes everything"):
            kernel(LARGE, execution, dropout=dropout, shared=shared)
    else:
        expected = "cudnn" if can and name != "xla" else "xla"
        assert kernel(LARGE, execution, dropout=dropout, shared=shared) == expected


def test_auto_says_once_what_it_chose_and_why(caplog: pytest.LogCaptureFixture) -> None:
    attention._say.cache_clear()
    execution = Execution(attention="auto")
    with caplog.at_level(logging.INFO, "scanner_jax"):
        for _ in range(3):
            kernel(CONFIG, execution, dropout=True, shared=False)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("attention: XLA's kernel; cuDNN's not with no NVIDIA GPU here, compute_dtype float32")
    assert "attention dropout (0.1)" in said


def test_the_gpu_here_is_none() -> None:
    assert jax.default_backend() != "cpu" or attention.capability_here() is None


def heads(seed: int) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(*MASK.shape, 4, 16)), jnp.float32) for _ in range(4)]


def test_what_cudnn_is_given_is_our_attention() -> None:
    """The same call by XLA, in float32: values at all tokens, and gradients; layout, mask and scale are the same."""
    query, key, value, weight = heads(0)
    lengths = visibility(jnp.asarray(MASK), "cudnn")
    assert lengths.dtype == jnp.int32 and lengths.tolist() == [24, 7, 1, 1]
    real = jnp.asarray(MASK)[:, :, None, None]

    def run(function: Callable[..., jax.Array]) -> Any:
        def total(*arguments: jax.Array) -> Any:
            out = function(*arguments)
            return jnp.where(real, out * weight, 0).sum(), out

        (_, out), grads = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(query, key, value)
        return out, grads

    theirs, their_grads = run(lambda q, k, v: by_lengths(q, k, v, lengths, implementation="xla"))
    ours, our_grads = run(lambda q, k, v: attend(q, k, v, visibility(jnp.asarray(MASK), "xla"), rate=0.0, rng=None))
    assert ours.shape == theirs.shape == (*MASK.shape, 4, 16)
    np.testing.assert_allclose(theirs[:3], ours[:3], atol=1e-6)  # padding's queries too
    assert np.isfinite(theirs).all()
    for mine, other in zip(our_grads, their_grads, strict=True):
        assert np.abs(mine).max() > 0.1
        np.testing.assert_allclose(other, mine, atol=1e-6)


def test_cudnn_is_called_by_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU it is not to be had; so JAX's function is watched, through a whole encoder."""
    seen = []
    original = jax.nn.dot_product_attention

    def watched(query: Any, key: Any, value: Any, **options: Any) -> Any:
        seen.append((query.dtype, query.shape, options["implementation"], options["key_value_seq_lengths"].shape))
        return original(query, key, value, **options | {"implementation": "xla"})

    monkeypatch.setattr(attention, "capability_here", lambda: (9, 0))
    monkeypatch.setattr(jax.nn, "dot_product_attention", watched)
    params = {"params": init_encoder(CONFIG, jax.random.key(0))}
    ids = np.random.default_rng(0).integers(3, 50, MASK.shape)
    by_xla, by_cudnn = (
        Encoder(CONFIG, Execution(compute_dtype="bfloat16", attention=name)).apply(
            params, ids, MASK, deterministic=True
        )
        for name in ("xla", "cudnn")
    )
    assert seen == [(jnp.bfloat16, (4, 24, 4, 16), "cudnn", (4,))]
    np.testing.assert_allclose(by_cudnn[MASK], by_xla[MASK], atol=0.03)  # bfloat16, of entries up to 3
    assert np.isfinite(by_cudnn).all()


def test_rounded_probabilities_have_the_gradients_of_wide_ones() -> None:
    """Of numbers that bfloat16 has, the backward pass that keeps less against JAX's own in float32."""
    query, key, value, weight = (part.astype(jnp.bfloat16) for part in heads(1))
    visible = visibility(jnp.asarray(MASK), "xla")
    real = jnp.asarray(MASK)[:, :, None, None]

    def grads(*arguments: jax.Array) -> Any:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
            return jnp.where(real, attend(q, k, v, visible, rate=0.0, rng=None) * weight, 0).astype(jnp.float32).sum()

        return jax.grad(total, argnums=(0, 1, 2))(*arguments)

    rounded = grads(query, key, value)
    for ours, exact in zip(rounded, grads(*(part.astype(jnp.float32) for part in (query, key, value))), strict=True):
        assert ours.dtype == jnp.bfloat16
        assert np.linalg.norm(ours.astype(np.float32) - exact) < 0.02 * np.linalg.norm(exact)


def test_a_module_takes_either_form() -> None:
    x = jnp.asarray(np.random.default_rng(2).normal(size=(*MASK.shape, 64)), jnp.float32)
    module = Attention(CONFIG)
    params = module.init(jax.random.key(0), x, visibility(jnp.asarray(MASK), "xla"), None)
    out: Any = module.apply(params, x, visibility(jnp.asarray(MASK), "xla"), None)
    assert out.shape == x.shape and out.dtype == x.dtype


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"attention": "flash"}, "attention='flash': accepted: 'auto', 'xla', 'cudnn'"),
        ({"attention": "cudnn", "compute_dtype": "bfloat16"}, "detector: attention='cudnn': not with no NVIDIA GPU"),
        ({"attention": "cudnn"}, r"attention dropout \(0.1\).*rows that .* share.*detector.pack_width=0 gives each"),
    ],
)
def test_what_cannot_be_is_refused_before_training(settings: dict[str, str], wanted: str) -> None:
    config = paper_settings()
    config.execution.update(settings)
    with pytest.raises(ValueError, match=wanted):
        check_execution(config, CONFIG)


def test_cudnn_is_accepted_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "capability_here", lambda: (9, 0))
    config = paper_settings()
    config.execution.update(attention="cudnn", compute_dtype="bfloat16")
    config.detector.pack_width = config.recognizer.pack_width = 0
    check_execution(config, dataclasses.replace(LARGE, attention_dropout=0.0))
    config.recognizer.pack_width = 512
    with pytest.raises(ValueError, match=r"recognizer: .* not with rows that several sequences share; .*pack_width=0"):
        check_execution(config, dataclasses.replace(LARGE, attention_dropout=0.0))


@pytest.mark.parametrize("how", [{}, {"scan_layers": True, "remat": "layers"}, {"remat": "dots"}], ids=str)
def test_a_gradient_becomes_cudnns_calls(monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]) -> None:
    """Lowered for CUDA, which needs no GPU, once JAX is told that there is one: forward, backward, masked by length."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(attention, "capability_here", lambda: (9, 0))
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)
    config = dataclasses.replace(CONFIG, attention_dropout=0.0)  # other dropout is left on
    model = Encoder(config, Execution(compute_dtype="bfloat16", attention="cudnn", **how))

    def loss(params: Any) -> Any:
        rngs = {"dropout": jax.random.key(1)}
        out: Any = model.apply({"params": params}, np.ones(MASK.shape, int), MASK, deterministic=False, rngs=rngs)
        return out.sum()

    params = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0)))
    program = jax.jit(jax.grad(loss)).trace(params).lower(lowering_platforms=("cuda",)).as_text()
    for call in ("@__cudnn$fmhaSoftmax(", "@__cudnn$fmhaSoftmaxBackward("):
        before, _, behind = program.partition(call)
        assert before and behind, f"no call of {call}"
        called = behind.split("\n", 1)[0]
        assert re.search(r"mask_type\\22: \\22PADDING\\22", called) and re.search(r"dropout_rate\\22: 0.0", called)
        assert re.search(r"fmha_scale\\22: 0.25\b", called)  # of heads of 16 numbers
        assert called.count("tensor<4x24x4x16xbf16>") >= 3 and "tensor<4xi32>, tensor<4xi32>" in called
