"""How corpora lie in their folders: which files, and what their lines look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from scanner_jax.corpora.problems import CorpusError, Problem

SPLITS = ("train", "dev", "test")
_NAMES_SHOWN = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How a corpus lies in its folder; None leaves a matter to each file.

    Attributes:
        name: for messages.
        files: each split's accepted file names, relative to the folder; one of them at most may be there.
        optional: splits that may be missing.
        separator: what stands between a line's columns. It is this one character and nothing else: in tweets a
            token may be a lone no-break space, which a split on white space loses.
        columns: columns a line; the first is the word, the last its tag.
        types: the entity types accepted; None accepts any.
        tweets: an `IMGID:<id>` line goes before each sentence.
        row: a right line, in words.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset()
    separator: str | None = None
    columns: int | None = None
    types: frozenset[str] | None = None
    tweets: bool | None = None
    row: str = ""

    def wanted(self, split: str) -> str:
        """A split's file names, in words."""
        extensions = [Path(name).suffix for name in self.files[split]]
        if len(extensions) <= 2:
            return " or ".join(self.files[split])
        stems = dict.fromkeys(Path(name).stem for name in self.files[split])
        return f"{' or '.join(stems)} with {' '.join(dict.fromkeys(extensions))}"


OWN_EXTENSIONS = (".txt", ".conll", ".bio", ".iob", ".tsv")

CONLL2003 = Layout(
    name="CoNLL-2003",
    files={"train": ("eng.train",), "dev": ("eng.testa",), "test": ("eng.testb",)},
    separator=" ",
    columns=4,
    types=frozenset({"PER", "LOC", "ORG", "MISC"}),
    tweets=False,
    row="4 columns separated by one space, the word first and its tag last; types LOC MISC ORG PER",
)
TWITTER_GMNER = Layout(
    name="Twitter-GMNER",
    files={"train": ("txt/train.txt",), "dev": ("txt/dev.txt", "txt/valid.txt"), "test": ("txt/test.txt",)},
    separator="\t",
    columns=2,
    types=frozenset({"PER", "LOC", "ORG", "OTHER"}),
    tweets=True,
    row="IMGID:<image id> before each tweet, then word TAB tag; types LOC ORG OTHER PER; boxes in xml/",
)
OWN = Layout(
    name="Twitter-2015, Twitter-2017 or data of your own",
    files={
        split: tuple(f"{stem}{extension}" for stem in stems for extension in OWN_EXTENSIONS)
        for split, stems in {"train": ("train",), "dev": ("dev", "valid"), "test": ("test",)}.items()
    },
    optional=frozenset({"dev"}),
    row="the word first and its tag last, any columns between; TABs between them, or else single blanks; any types; "
    "IMGID:<image id> before each sentence that has an image; boxes in xml/, if any",
)
LAYOUTS = (CONLL2003, TWITTER_GMNER, OWN)


def detect_layout(folder: Path) -> Layout:
    """The one layout whose files lie in a folder.

    Raises:
        CorpusError: there is no such folder, or it holds the files of no layout or of several.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise CorpusError(folder, [Problem(str(folder), None, found, f"a folder with {_known_files()}")])
    present = [
        layout
        for layout in LAYOUTS
        if any((folder / name).exists() for names in layout.files.values() for name in names)
    ]
    if len(present) == 1:
        return present[0]
    if not present:
        found = f"no corpus files, but {_content(folder)}"
    else:
        found = "files of several corpora (" + ", ".join(layout.name for layout in present) + ")"
    raise CorpusError(folder, [Problem(str(folder), None, found, _known_files())])


def split_file(folder: Path, layout: Layout, split: str, problems: list[Problem]) -> Path | None:
    """A split's file; None where there is none, which is a problem unless the split is optional."""
    present = [folder / name for name in layout.files[split] if (folder / name).exists()]
    if len(present) == 1:
        return present[0]
    if present:
        names = ", ".join(path.name for path in present)
        problems.append(Problem(str(folder), None, f"several files for the {split} split ({names})", "one of them"))
    elif split not in layout.optional:
        problems.append(Problem(str(folder), None, f"no {split} split", f"the file {layout.wanted(split)}"))
    return None


def _known_files() -> str:
    wanted = (f"{layout.name}: {', '.join(layout.wanted(split) for split in SPLITS)}" for layout in LAYOUTS)
    return "the files of one: " + "; ".join(wanted)


def _content(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:_NAMES_SHOWN]) or "nothing"
    return f"{shown}, ..." if len(names) > _NAMES_SHOWN else shown
