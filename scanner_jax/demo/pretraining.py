"""The demo's tokenizer and encoder, trained on generated text about things that the corpus never names."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers
from flax import traverse_util
from jaxtyping import Array, Float, Int
from safetensors.numpy import save_file

from scanner_jax.beginning import TrainingSettings
from scanner_jax.convert import tensor_names
from scanner_jax.demo.scenes import caption, detect, make_scene
from scanner_jax.demo.tweets import write_sentence
from scanner_jax.demo.world import Thing, World, page
from scanner_jax.encoder import Encoder, EncoderConfig, Params, init_encoder
from scanner_jax.files import write_json
from scanner_jax.loop import train
from scanner_jax.losses import masked_mean
from scanner_jax.optim import OptimizerSettings
from scanner_jax.pipeline import Batch
from scanner_jax.stepping import LossFn
from scanner_jax.tokens import Tokenizer, load_tokenizer

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MAX_TOKENS = 96
MASKED_SHARE = 0.3  # twice BERT's: texts this short teach more so
_PREDICTED = int(MASKED_SHARE * MAX_TOKENS)


class Text(NamedTuple):
    """One text's token ids, special tokens included."""

    token_ids: Int[np.ndarray, " t"]

    @property
    def length(self) -> int:
        return len(self.token_ids)


def pretraining_texts(world: World, *, seed: int, count: int) -> list[str]:
    """Each text two tweets about background things, each with page, caption and objects behind it, some left out."""
    rng = random.Random(f"{seed}:pretraining")
    order: list[Thing] = []
    return [f"{_document(rng, world, order)} {_document(rng, world, order)}" for _ in range(count)]


def train_tokenizer(texts: Sequence[str], *, vocab_size: int) -> tokenizers.Tokenizer:
    """A byte-level BPE with RoBERTa's special tokens."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def pretrain(folder: Path, texts: Sequence[str], *, seed: int, vocab_size: int = 1200) -> None:
    """Train tokenizer and encoder and write them as a Hugging Face folder.

    Args:
        folder: receives config.json, tokenizer.json and model.safetensors.
        texts: what to learn from, each once.
        seed: of weights, order and masks.
        vocab_size: of the tokenizer at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(texts, vocab_size=vocab_size).save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    config = EncoderConfig(
        model_type="roberta",
        vocab_size=tokenizer.largest_id + 1,
        hidden_size=96,
        num_layers=2,
        num_heads=4,
        intermediate_size=256,
        max_position_embeddings=MAX_TOKENS + 2,  # RoBERTa's positions begin at 2
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=tokenizer.pad,
        initializer_range=0.05,  # in layers this narrow the usual 0.02 holds learning up
        hidden_dropout=0.0,  # dropout's random numbers would take a third of the demo's time, for a little less F1
        attention_dropout=0.0,
    )
    params = _train(config, tokenizer, texts, seed=seed, folder=folder / "training")
    shutil.rmtree(folder / "training")
    write_json(folder / "config.json", config.to_dict())
    flat = traverse_util.flatten_dict(params["encoder"], sep="/")
    named = {name: (flat[path], transposed) for name, (path, transposed) in tensor_names(config).items()}
    tensors = {f"roberta.{name}": np.ascontiguousarray(x.T if turned else x) for name, (x, turned) in named.items()}
    save_file(tensors, str(folder / "model.safetensors"))


def masked_lm_loss(config: EncoderConfig, tokenizer: Tokenizer) -> LossFn:
    """Masked-language-model loss (Devlin et al., 2019): 30 % of the places, masks drawn anew at each step.

    Of the places to predict 80 % show `<mask>`, 10 % a random token and 10 % their own. The output layer is the
    embedding table again with a bias of its own.
    """
    model = Encoder(config)

    def loss_fn(params: Params, batch: Batch, rng: jax.Array) -> Float[Array, ""]:
        choose, show, draw = jax.random.split(rng, 3)
        tokens, mask = batch["token_ids"], batch["attention_mask"]
        inner = mask & (tokens != tokenizer.start) & (tokens != tokenizer.end)
        chance = jnp.where(inner, jax.random.uniform(choose, tokens.shape), -1.0)
        _, places = jax.lax.top_k(chance, _PREDICTED)
        wanted = jnp.arange(places.shape[1]) < jnp.ceil(MASKED_SHARE * inner.sum(axis=1, keepdims=True))
        targets = jnp.take_along_axis(tokens, places, axis=1)
        dice = jax.random.uniform(show, places.shape)
        random_tokens = jax.random.randint(draw, places.shape, 0, config.vocab_size)
        shown = jnp.where(dice < 0.8, tokenizer.mask, jnp.where(dice < 0.9, random_tokens, targets))
        rows = jnp.arange(len(tokens))[:, None]
        seen = tokens.at[rows, places].set(jnp.where(wanted, shown, targets))
        hidden: Any = model.apply({"params": params["encoder"]}, seen, mask, deterministic=True)
        picked = jnp.take_along_axis(hidden, places[:, :, None], axis=1)
        logits = picked @ params["encoder"]["embeddings"]["word"]["embedding"].T + params["output"]["bias"]
        return masked_mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets), wanted)

    return loss_fn


def collate_texts(texts: Sequence[Text], *, batch_size: int) -> Batch:
    """Pad texts to a batch: token_ids and attention_mask (b t), t always the longest length."""
    batch: Batch = {
        "token_ids": np.zeros((batch_size, MAX_TOKENS), np.int32),
        "attention_mask": np.zeros((batch_size, MAX_TOKENS), bool),
    }
    for row, text in enumerate(texts):
        batch["token_ids"][row, : text.length] = text.token_ids
        batch["attention_mask"][row, : text.length] = True
    return batch


def _document(rng: random.Random, world: World, order: list[Thing]) -> str:
    if len(order) < 2:
        order += rng.sample(list(world.background), len(world.background))
    words, named = write_sentence(rng, order, world.slang)
    things = [thing for _, thing in named]
    scene = make_scene(rng, things)
    parts = [page(rng, thing) for thing in things[:1]]
    parts += [caption(rng, scene), *(f"{item.label} {item.caption}" for item in detect(rng, scene))]
    return " ".join([*words, *(part for part in parts if rng.random() < 0.8)])


def _train(config: EncoderConfig, tokenizer: Tokenizer, texts: Sequence[str], *, seed: int, folder: Path) -> Params:
    rng = jax.random.key(seed)
    folder.mkdir()
    settings = TrainingSettings(
        optimizer=OptimizerSettings(learning_rate=4e-3),
        epochs=1,
        batch_size=16,
        checkpoint_every=1_000_000,  # once at the end: it is a matter of a minute
        log_every=100,
    )
    return train(
        name="pretraining",
        params={"encoder": init_encoder(config, rng), "output": {"bias": jnp.zeros(config.vocab_size)}},
        loss_fn=masked_lm_loss(config, tokenizer),
        features=[_text(tokenizer, text) for text in texts],
        collate=collate_texts,
        settings=settings,
        evaluate=None,
        seed=seed,
        folder=folder,
    )


def _text(tokenizer: Tokenizer, text: str) -> Text:
    ids = tokenizer.text(text)[: MAX_TOKENS - 2]
    return Text(np.array([tokenizer.start, *ids, tokenizer.end], np.int32))
