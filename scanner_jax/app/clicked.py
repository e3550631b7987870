"""Examples to click on, from a file of sentences or from a corpus."""

from __future__ import annotations

from pathlib import Path

from scanner_jax.corpora import own_images
from scanner_jax.images import UnreadableImage, image_size
from scanner_jax.sentences import SentencesError, read_sentences

SHOWN = 8

EXAMPLES: tuple[tuple[str, str | None], ...] = (
    ("Ada Okafor plays in Lake Tamsin tonight", None),
    ("RT @mira : the Reds are back in Port Vale , see you at Nova Labs", None),
)
"""Where none are given."""


def read_examples(source: Path) -> list[tuple[str, str | None]]:
    """A sentence and its picture's file, of the first sentences that a file or a corpus's test split has.

    A picture that is missing or cannot be read is left out.

    Raises:
        SentencesError: lines that cannot be read, or none.
        CorpusError, ImagesError, OSError: a corpus, its images or a file that cannot be read.
    """
    folder = source.is_dir()
    read = read_sentences(source, b"" if folder else source.read_bytes(), images=own_images(source) if folder else None)
    if read.problems:
        raise SentencesError("\n".join(read.problems[:SHOWN]))
    found = []
    for sentence in read.sentences[:SHOWN]:
        request = sentence.request
        found.append((request.split().text, _readable(request.image)))
    return found


def _readable(image: object) -> str | None:
    if not isinstance(image, str | Path):
        return None
    try:
        image_size(Path(image))
    except UnreadableImage:
        return None
    return str(Path(image).absolute())
