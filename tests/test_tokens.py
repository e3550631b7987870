"""Tokenizer: agreement with transformers, and text that spells special tokens."""

import dataclasses
from pathlib import Path

import pytest

from scanner_jax import tokens
from scanner_jax.tokens import load_tokenizer

ENCODERS = [Path("models/granite-30m-english"), Path("models/xlm-roberta-large-shape")]
SENTENCES = [["Selena", "opens", "#NewPark", "in", "Łódź", "!"], ["unhappily", "@user", ":)", "RT"]]


@pytest.fixture(params=ENCODERS, ids=lambda path: path.name)
def folder(request):
    if not request.param.is_dir():
        pytest.skip(f"{request.param} is not there")
    return request.param


def test_words_agree_with_transformers(folder):
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    encoded = oracle(SENTENCES, is_split_into_words=True, add_special_tokens=False)
    ours = list(load_tokenizer(folder).words(SENTENCES))
    for index, words in enumerate(ours):
        assert [token for word in words for token in word] == encoded["input_ids"][index]
        lengths = [encoded.word_ids(index).count(word) for word in range(len(words))]
        assert [len(word) for word in words] == lengths
    assert load_tokenizer(folder).mask == oracle.mask_token_id


def test_text_agrees_with_transformers(folder):
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    text = "The entity is for Łódź in this sentence."
    assert load_tokenizer(folder).text(text) == oracle(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("word", ["<mask>", "<s>", "</s>", "<pad>", "a<mask>b", "\uff1cmask\uff1e"])
def test_special_tokens_cannot_be_spelt(folder, word):
    tokenizer = load_tokenizer(folder)
    ids = [token for words in next(tokenizer.words([["hello", word]])) for token in words]
    assert not tokenizer.special & set(ids)
    assert not tokenizer.special & set(tokenizer.text(f"hello {word}"))


def test_every_word_has_a_piece(folder):
    words = next(load_tokenizer(folder).words([["a", "\u00a0", "\u200b", "b"]]))
    assert len(words) == 4 and all(words)


def test_few_sentences_are_encoded_together(tiny_tokenizer, monkeypatch):
    sizes = []

    class Spy:
        def encode_batch(self, sentences, **options):
            sizes.append(len(sentences))
            return tiny_tokenizer.backend.encode_batch(sentences, **options)

    sentences = [["Mira", "visits"], ["today"], ["a", "lake"], ["we", "love", "it"], ["and"]]
    wanted = list(tiny_tokenizer.words(sentences))
    monkeypatch.setattr(tokens, "_AT_ONCE", 2)
    assert list(dataclasses.replace(tiny_tokenizer, backend=Spy()).words(sentences)) == wanted
    assert sizes == [2, 2, 1]


def test_missing_file_and_missing_mask_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="save_pretrained"):
        load_tokenizer(tmp_path)
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "<unk>": 1}, unk_token="<unk>")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(ValueError, match=r"mask \(<mask> or \[MASK\]\)"):
        load_tokenizer(tmp_path)
