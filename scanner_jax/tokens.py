"""Words -> sub-word ids, with the tokenizer that came with the encoder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import tokenizers

_SPELLINGS = {
    "start": ("<s>", "[CLS]"),
    "end": ("</s>", "[SEP]"),
    "pad": ("<pad>", "[PAD]"),
    "mask": ("<mask>", "[MASK]"),
    "unknown": ("<unk>", "[UNK]"),
}

_AT_ONCE = 1000
"""Sentences that are encoded together; their encodings, with offsets and texts, take kilobytes each."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer and the ids of its special tokens.

    The text that it is given is always plain: text that spells a special token (`<mask>` in a tweet) never
    becomes one. Special tokens enter a sequence only as the ids below, put there by whoever builds it.
    """

    backend: tokenizers.Tokenizer
    start: int
    end: int
    pad: int
    mask: int
    unknown: int

    @property
    def special(self) -> frozenset[int]:
        return frozenset((self.start, self.end, self.pad, self.mask))

    @property
    def largest_id(self) -> int:
        """The largest id that a text can become."""
        return max(self.backend.get_vocab(with_added_tokens=True).values())

    def words(self, sentences: Iterable[Sequence[str]]) -> Iterator[list[list[int]]]:
        """Sub-word ids of every word; a word that the vocabulary cannot see at all becomes one unknown.

        Args:
            sentences: each a sequence of words.

        Yields:
            For each sentence and each of its words at least one id.
        """
        left = iter(sentences)
        while chosen := list(itertools.islice(left, _AT_ONCE)):
            encodings = self.backend.encode_batch(
                [list(words) for words in chosen], is_pretokenized=True, add_special_tokens=False
            )
            yield from map(self._by_word, map(len, chosen), encodings)

    def text(self, text: str) -> list[int]:
        """Sub-word ids of running text, no special tokens around it."""
        return [self._plain(token) for token in self.backend.encode(text, add_special_tokens=False).ids]

    def _by_word(self, length: int, encoding: tokenizers.Encoding) -> list[list[int]]:
        ids: list[list[int]] = [[] for _ in range(length)]
        for token, word in zip(encoding.ids, encoding.word_ids, strict=True):
            if word is not None:
                ids[word].append(self._plain(token))
        return [word or [self.unknown] for word in ids]

    def _plain(self, token: int) -> int:
        # SentencePiece vocabularies hold "<s>" and "<mask>" as ordinary pieces, so splitting special tokens
        # is not enough to keep them out of text.
        return self.unknown if token in self.special else token


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load `tokenizer.json` of an encoder's folder.

    The `tokenizers` library is used directly: transformers' classes over it import torch, which must not
    share a process with JAX.

    Raises:
        FileNotFoundError: the folder has no `tokenizer.json`.
        ValueError: a special token that the method needs is missing.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is missing. Make it from the older vocabulary files once: python -c "from transformers '
            f"import AutoTokenizer; AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    backend = tokenizers.Tokenizer.from_file(str(path))
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    if isinstance(backend.pre_tokenizer, tokenizers.pre_tokenizers.ByteLevel):
        backend.pre_tokenizer.add_prefix_space = True  # RoBERTa: the first word of a text like any other word
    found = {name: [backend.token_to_id(token) for token in tokens] for name, tokens in _SPELLINGS.items()}
    ids = {name: token for name, tokens in found.items() for token in tokens if token is not None}
    missing = [f"{name} ({' or '.join(_SPELLINGS[name])})" for name in _SPELLINGS if name not in ids]
    if missing:
        raise ValueError(f"{path} lacks the special tokens {', '.join(missing)}: it is not a masked LM's tokenizer")
    return Tokenizer(backend=backend, **ids)
