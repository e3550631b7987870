"""Texts of a store on a terminal: they come from anywhere."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""A text with what isn't printable, line ends and terminal codes above all, as escapes: `\n`, `\x1b`."""
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
