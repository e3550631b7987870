"""Text -> words: the rule, and that no character is lost or misplaced."""

from __future__ import annotations

import pytest

from scanner_jax.words import given_words, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t ", []),
        ("Kroger's stores, again!", ["Kroger", "'", "s", "stores", ",", "again", "!"]),
        ("RT @ada_o: #LakeTamsin", ["RT", "@ada_o", ":", "#LakeTamsin"]),
        ("(via @ada) #Vice-Mayor.", ["(", "via", "@ada", ")", "#Vice-Mayor", "."]),
        ("see http://t.co/a1B?x=2, or https://b.org.", ["see", "http://t.co/a1B?x=2", ",", "or", "https://b.org", "."]),
        ("won 3-1 at 10:30, 2,500 saw it", ["won", "3-1", "at", "10:30", ",", "2,500", "saw", "it"]),
        ("up 3.5% in AT&T's U.S. unit", ["up", "3.5%", "in", "AT&T", "'", "s", "U.S", ".", "unit"]),
        ("wait... what--no same-sex", ["wait", "...", "what", "--", "no", "same-sex"]),
        ("Zürich 東京 🙂", ["Zürich", "東京", "🙂"]),
        ("a\u00a0b", ["a", "b"]),
        ("<b>&lt;", ["<", "b", ">", "&", "lt", ";"]),
    ],
)
def test_the_rule(text: str, words: list[str]) -> None:
    found = split_words(text)
    assert list(found.words) == words
    assert [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)] == words
    assert "".join(text.split()) == "".join(words)


def test_given_words_are_taken_as_they_are() -> None:
    found = given_words(["Ada", "Okafor's", "!?"])
    assert found.text == "Ada Okafor's !?" and found.characters(1, 3) == (4, 15)
    for wrong in ("Ada", ["Ada", ""], ["Ada", " "], [1]):
        with pytest.raises(ValueError, match="expected a list of strings"):
            given_words(wrong)  # type: ignore[arg-type]
