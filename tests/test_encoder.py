"""The encoder against torch: values, gradients, dropout, and what it refuses."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import traverse_util

from scanner_jax.attention import Attention
from scanner_jax.convert import load_encoder, tensor_names
from scanner_jax.encoder import Encoder, EncoderConfig, init_encoder, token_positions

GRANITE = Path("models/granite-30m-english")
FAMILIES = {"xlm-roberta": "XLMRoberta", "roberta": "Roberta", "bert": "Bert"}


def torch_model(transformers: ModuleType, model_type: str) -> Any:
    """A tiny random model whose every parameter, biases and scales too, is away from 0 and 1."""
    family = FAMILIES[model_type]
    pad = 0 if model_type == "bert" else 1
    config = getattr(transformers, f"{family}Config")(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24 + (0 if model_type == "bert" else pad + 1),
        type_vocab_size=1 if model_type == "xlm-roberta" else 2,
        layer_norm_eps=1e-12 if model_type == "bert" else 1e-5,
        pad_token_id=pad,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}Model")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def batch(*, vocab: int, pad: int, lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.arange(max(lengths))[None] < np.array(lengths)[:, None]
    return np.where(mask, rng.integers(3, vocab, mask.shape), pad).astype(np.int32), mask


def check_against_torch(model: Any, folder: Path, lengths: tuple[int, ...], *, tolerance: float) -> None:
    """Compare every layer, and the gradients of a scalar of the real tokens' last vectors, with torch in float64.

    Ours runs in the precision that jax is set to. The tolerance is absolute, for gradients and layers with
    entries beyond 1 relative to the largest entry.
    """
    config, params = load_encoder(folder)
    params = jax.tree.map(lambda leaf: leaf.astype(float), params)  # float64 where jax has it switched on
    ids, mask = batch(vocab=config.vocab_size, pad=config.pad_token_id, lengths=lengths)
    weight = np.random.default_rng(1).normal(size=(*mask.shape, config.hidden_size)) * mask[..., None] / mask.sum()

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def ours(params: Any) -> tuple[jax.Array, list[jax.Array]]:
        out, state = Encoder(config).apply(
            {"params": params}, ids, mask, deterministic=True, capture_intermediates=True
        )
        names = ["embeddings", *(f"layer_{index}" for index in range(config.num_layers))]
        return (out * weight).sum(), [state["intermediates"][name]["__call__"][0] for name in names]

    tree, layers = ours(params)
    model = model.double()
    theirs = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long(), output_hidden_states=True)
    (theirs.hidden_states[-1] * torch.tensor(weight)).sum().backward()

    for index, (actual, expected) in enumerate(zip(layers, theirs.hidden_states, strict=True)):
        assert_close(actual[mask], expected.detach().numpy()[mask], tolerance, f"output {index}")
    grads = traverse_util.flatten_dict(tree, sep="/")
    torch_grads = {name: weight.grad.numpy() for name, weight in model.named_parameters() if weight.grad is not None}
    names = tensor_names(config)
    assert set(torch_grads) == set(names), "every parameter, and only these, has a gradient"
    assert {path for path, _ in names.values()} == set(grads)
    for name, (path, transposed) in names.items():
        assert_close(grads[path].T if transposed else grads[path], torch_grads[name], tolerance, name)
        # A key's bias moves all scores of a row alike, so its gradient alone is zero but for rounding.
        assert np.abs(torch_grads[name]).max() > 1e-4 or name.endswith("key.bias"), f"{name}: too small to compare"


def assert_close(actual: jax.Array, expected: np.ndarray, tolerance: float, name: str) -> None:
    difference = np.abs(np.asarray(actual, np.float64) - expected).max()
    assert difference <= tolerance * max(1.0, np.abs(expected).max()), f"{name}: {difference:.1e}"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_tiny_models_match_torch(transformers: ModuleType, tmp_path: Path, model_type: str) -> None:
    model = torch_model(transformers, model_type)
    model.save_pretrained(tmp_path)
    lengths = (5, 24, 23, 1)  # 24 is all that the position table holds
    assert load_encoder(tmp_path)[0].max_tokens == max(lengths)
    check_against_torch(model, tmp_path, lengths, tolerance=2e-5)


@pytest.mark.skipif(not GRANITE.is_dir(), reason=f"{GRANITE} is missing")
def test_real_model_matches_torch(transformers: ModuleType) -> None:
    model = transformers.RobertaModel.from_pretrained(GRANITE, dtype=torch.float32, add_pooling_layer=False).eval()
    check_against_torch(model, GRANITE, (40, 17, 33), tolerance=2e-5)


@pytest.mark.slow
@pytest.mark.skipif(not GRANITE.is_dir(), reason=f"{GRANITE} is missing")
def test_real_model_matches_torch_in_float64_at_full_length(transformers: ModuleType) -> None:
    model = transformers.RobertaModel.from_pretrained(GRANITE, dtype=torch.float32, add_pooling_layer=False).eval()
    with jax.enable_x64(True):
        check_against_torch(model, GRANITE, (40, 512), tolerance=1e-10)


def encode(config: EncoderConfig, params: Any, ids: Any, mask: Any, *, dropout: jax.Array | None = None) -> jax.Array:
    rngs = None if dropout is None else {"dropout": dropout}
    out = Encoder(config).apply({"params": params}, ids, mask, deterministic=dropout is None, rngs=rngs)
    assert isinstance(out, jax.Array)
    return out


@pytest.fixture
def config() -> EncoderConfig:
    return EncoderConfig(
        model_type="roberta",
        vocab_size=50,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=40,
        max_position_embeddings=20,
        hidden_dropout=0.0,
        attention_dropout=0.5,
        pad_token_id=1,
    )


def test_attention_dropout_is_drawn_per_head_and_position(config: EncoderConfig) -> None:
    # Zero queries make the probabilities uniform; one-hot values and identities carry them out unchanged.
    tokens = config.hidden_size // config.num_heads
    x = jnp.tile(jnp.eye(tokens), (2, 1, config.num_heads))
    attention = Attention(config)
    visible = jnp.ones((2, 1, 1, tokens), bool)
    params = attention.init(jax.random.key(0), x, visible, None)["params"]
    params["query"]["kernel"] = jnp.zeros_like(params["query"]["kernel"])
    params["value"]["kernel"] = params["out"]["kernel"] = jnp.eye(config.hidden_size)
    _, state = attention.apply(
        {"params": params},
        x,
        visible,
        jax.random.key(1),
        capture_intermediates=True,
    )
    dropped = np.asarray(state["intermediates"]["out"]["__call__"][0])
    kept = dropped.reshape(2, tokens, config.num_heads, tokens).transpose(0, 2, 1, 3) * tokens / 2
    np.testing.assert_allclose(kept, kept.round(), atol=1e-6)  # 0, or doubled by the rate of one half
    assert set(np.unique(kept.round())) == {0.0, 1.0}
    # Were an axis shared, the kept pattern would not change along it.
    for axis, name in enumerate(("sentence", "head", "query", "key")):
        changes = np.abs(np.diff(kept, axis=axis)).mean()
        assert 0.35 < changes < 0.65, f"the pattern along the {name} axis changes at {changes:.0%}"


def test_dropout_follows_its_key(config: EncoderConfig) -> None:
    params = init_encoder(config, jax.random.key(0))
    ids, mask = batch(vocab=50, pad=1, lengths=(6, 3))

    @jax.jit
    def run(seed: int) -> jax.Array:
        return encode(config, params, ids, mask, dropout=jax.random.key(seed))

    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 1e-3


def test_padding_changes_nothing(config: EncoderConfig) -> None:
    params = init_encoder(config, jax.random.key(0))
    ids, mask = batch(vocab=50, pad=1, lengths=(6, 6))
    short = encode(config, params, ids, mask)
    wide, wide_mask = (np.pad(a, ((0, 1), (0, 9)), constant_values=value) for a, value in ((ids, 1), (mask, False)))
    padded = encode(config, params, wide, wide_mask)
    np.testing.assert_allclose(padded[:2, :6], short, atol=1e-6)
    assert np.isfinite(padded).all(), "a row of padding alone gives numbers"


def test_positions_by_family(config: EncoderConfig) -> None:
    mask = jnp.array([[True, True, True, False], [True, False, False, False]])
    np.testing.assert_array_equal(token_positions(config, mask), [[2, 3, 4, 1], [2, 1, 1, 1]])
    bert = EncoderConfig.from_dict(config.to_dict() | {"model_type": "bert", "pad_token_id": 0})
    np.testing.assert_array_equal(token_positions(bert, mask), [[0, 1, 2, 0], [0, 0, 1, 2]])
    assert (config.max_tokens, bert.max_tokens) == (18, 20)


def test_too_long_is_refused(config: EncoderConfig) -> None:
    ids, mask = batch(vocab=50, pad=1, lengths=(19,))
    with pytest.raises(ValueError, match="19 tokens, but this encoder takes at most 18"):
        encode(config, {}, ids, mask)


def test_fresh_parameters(config: EncoderConfig) -> None:
    leaves = traverse_util.flatten_dict(init_encoder(config, jax.random.key(0)), sep="/")
    for path, leaf in leaves.items():
        if path.endswith(("kernel", "embedding")) and leaf.size > 500:
            assert leaf.std() == pytest.approx(config.initializer_range, rel=0.15), path
        elif path.endswith(("bias", "scale")):
            assert (leaf == (1 if path.endswith("scale") else 0)).all(), path
