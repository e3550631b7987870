"""A user's own corpus: any file form, any types, splits without gold or without dev, and what is said of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scanner_jax.corpora import CorpusError, load_corpus, read_corpus
from scanner_jax.corpora.__main__ import main
from scanner_jax.corpora.readers import _unique
from scanner_jax.spill import SpilledDict
from scanner_jax.types import Entity

SENTENCES = [["Mira", "Okafor", "sails"], ["Tamsin", "Oslo", "rains"]]
TAGS = {
    "IOB2": [["B-PER", "I-PER", "O"], ["B-LOC", "B-LOC", "O"]],
    "IOB1": [["I-PER", "I-PER", "O"], ["I-LOC", "B-LOC", "O"]],
    "BIOES": [["B-PER", "E-PER", "O"], ["S-LOC", "S-LOC", "O"]],
    "BILOU": [["B-PER", "L-PER", "O"], ["U-LOC", "U-LOC", "O"]],
}
ENTITIES = [(Entity(0, 2, "PER"),), (Entity(0, 1, "LOC"), Entity(1, 2, "LOC"))]


def rows(*, scheme: str = "IOB2", separator: str = "\t", between: str = "", images: bool = False) -> str:
    """The two sentences in one file form."""
    lines = []
    for number, (words, tags) in enumerate(zip(SENTENCES, TAGS[scheme], strict=True)):
        lines += [f"IMGID:{number}"] if images else []
        lines += [separator.join([word, *filter(None, [between]), tag]) for word, tag in zip(words, tags, strict=True)]
        lines.append("")
    return "\n".join(lines)


WORDS_ALONE = "\n\n".join("\n".join(words) for words in SENTENCES) + "\n"


def write(folder: Path, **files: str | bytes) -> Path:
    """A folder of files; `train_conll` is the file train.conll. What is missing of train and test is added."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for split in ("train", "test"):
        if not any(folder.glob(f"{split}.*")):
            (folder / f"{split}.txt").write_text(rows())
    return folder


def found(folder: Path) -> list[tuple[str, int | None]]:
    with pytest.raises(CorpusError) as raised:
        read_corpus(folder)
    return [(Path(problem.file).name, problem.line) for problem in raised.value.problems]


@pytest.mark.parametrize("scheme", TAGS)
@pytest.mark.parametrize("separator", ["\t", " "])
@pytest.mark.parametrize("between", ["", "NN", "\u00a0"])
def test_schemes_separators_and_columns_make_no_difference(
    tmp_path: Path, scheme: str, separator: str, between: str
) -> None:
    text = rows(scheme=scheme, separator=separator, between=between)
    corpus = read_corpus(write(tmp_path, train_conll=text))
    plain = read_corpus(write(tmp_path / "plain"))
    assert corpus.fingerprint == plain.fingerprint
    assert [example.entities for example in corpus.splits["train"]] == ENTITIES
    assert [example.id for example in corpus.splits["train"]] == ["train-0", "train-1"]
    assert {example.image_id for example in corpus.splits["train"]} == {None}
    assert str(corpus.schemes["train"]) == scheme


@pytest.mark.parametrize("name", ["train.txt", "train.conll", "train.bio", "train.iob", "train.tsv"])
@pytest.mark.parametrize("dev", ["dev.bio", "valid.txt"])
def test_file_names(tmp_path: Path, name: str, dev: str) -> None:
    corpus = read_corpus(write(tmp_path, **{name.replace(".", "_"): rows(), dev.replace(".", "_"): rows()}))
    assert list(corpus.splits) == ["train", "dev", "test"]
    assert not any("dev" in warning for warning in corpus.warnings)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: ("-DOCSTART-\t-X-\tO\n\n" + text).encode(),
        lambda text: ("-DOCSTART-\n" + text + "-DOCSTART-").encode(),
        lambda text: text.rstrip("\n").encode(),
    ],
    ids=["CRLF", "byte order mark", "document row", "document rows alone", "no blank line at the end"],
)
def test_line_ends_marks_and_document_rows_make_no_difference(tmp_path: Path, change) -> None:
    changed = read_corpus(write(tmp_path, train_txt=change(rows(between="X"))))
    assert changed.fingerprint == read_corpus(write(tmp_path / "plain")).fingerprint


def test_images_are_known_where_the_file_gives_them(tmp_path: Path) -> None:
    for separator in ("\t", " "):
        corpus = read_corpus(write(tmp_path, train_txt=rows(images=True, separator=separator)))
        assert [(example.id, example.image_id) for example in corpus.splits["train"]] == [("0", "0"), ("1", "1")]
        assert [example.id for example in corpus.splits["test"]] == ["test-0", "test-1"]
    words = read_corpus(write(tmp_path, test_txt="IMGID:9\nMira\nsails\n")).splits["test"][0]
    assert (words.image_id, words.words) == ("9", ("Mira", "sails"))


def test_a_file_with_images_needs_one_before_its_first_words(tmp_path: Path) -> None:
    assert found(write(tmp_path, train_txt="Mira\tO\n\n" + rows(images=True))) == [("train.txt", 1)]


def test_columns_are_those_of_most_lines(tmp_path: Path) -> None:
    text = rows(separator=" ", between="NN")
    lines = text.splitlines()
    lines[1] = "Okafor\tI-PER"  # the one line with a TAB
    lines[4] = "Tamsin B-LOC"
    assert found(write(tmp_path, train_txt="\n".join(lines))) == [("train.txt", 2), ("train.txt", 5)]


def test_a_blank_file_keeps_no_break_spaces_in_words(tmp_path: Path) -> None:
    corpus = read_corpus(write(tmp_path, train_txt="\u00a0 O\nLake\u00a0Mira B-LOC\n"))
    assert corpus.splits["train"][0].words == ("\u00a0", "Lake\u00a0Mira")


def test_any_types_and_mixed_schemes(tmp_path: Path) -> None:
    text = "a B-creative-work\nb E-creative-work\nc S-\u7522\u54c1\nd I-x\ne I-y\nf L-y\n"
    corpus = read_corpus(write(tmp_path, train_txt=text))
    assert corpus.splits["train"][0].entities == (
        Entity(0, 2, "creative-work"),
        Entity(2, 3, "\u7522\u54c1"),
        Entity(3, 4, "x"),
        Entity(4, 6, "y"),
    )
    assert str(corpus.schemes["train"]).startswith("lenient (nearest")


@pytest.mark.parametrize("tag", ["B", "B-", "PER", "b-PER", "_", "", "X-PER", "S-non-entity"])
def test_wrong_tags_are_told_with_what_is_right(tmp_path: Path, tag: str) -> None:
    assert found(write(tmp_path, train_tsv=rows() + f"\nMira\t{tag}\n")) == [("train.tsv", 9)]


def test_a_split_of_words_alone_has_no_gold(tmp_path: Path) -> None:
    corpus = read_corpus(write(tmp_path, dev_txt=WORDS_ALONE, test_txt=WORDS_ALONE))
    assert [list(example.words) for example in corpus.splits["test"]] == SENTENCES
    assert (corpus.has_gold("train"), corpus.has_gold("dev"), corpus.has_gold("test")) == (True, False, False)
    assert corpus.split_fingerprints["test"].entities is None
    assert any(w.startswith("dev has words alone") and "last epoch" in w for w in corpus.warnings)
    assert any(w.startswith("test has words alone") and "last epoch" not in w for w in corpus.warnings)


def test_no_gold_is_another_corpus_than_gold_without_entities(tmp_path: Path) -> None:
    without = read_corpus(write(tmp_path, test_txt=WORDS_ALONE))
    nothing = "\n\n".join("\n".join(f"{word}\tO" for word in words) for words in SENTENCES)
    empty = read_corpus(write(tmp_path, test_txt=nothing))
    assert without.splits == empty.splits
    assert without.fingerprint != empty.fingerprint
    assert any(warning.startswith("test: every tag is O") for warning in empty.warnings)
    assert str(empty.schemes["test"]) == "O alone"


def test_words_alone_come_back_from_the_prepared_form(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", dev_txt=WORDS_ALONE, test_txt=WORDS_ALONE)
    assert load_corpus(folder, prepared_dir=tmp_path / "prepared") == read_corpus(folder)
    (folder / "dev.txt").unlink()
    corpus = load_corpus(folder, prepared_dir=tmp_path / "prepared")
    assert list(corpus.splits) == ["train", "test"]
    assert corpus == read_corpus(folder)


def test_training_needs_tags(tmp_path: Path) -> None:
    assert found(write(tmp_path, train_txt=WORDS_ALONE)) == [("train.txt", None)]


def test_dev_may_be_missing_and_no_other_split(tmp_path: Path) -> None:
    corpus = read_corpus(write(tmp_path))
    assert list(corpus.splits) == ["train", "test"]
    assert any("no dev split" in warning for warning in corpus.warnings)
    (tmp_path / "test.txt").unlink()
    assert found(tmp_path) == [(tmp_path.name, None)]


def test_a_published_corpus_without_its_dev_is_not_taken_for_whole(tmp_path: Path) -> None:
    data = Path(__file__).parent.parent / "data" / "twitter2015"
    if not data.is_dir():
        pytest.skip("needs data/twitter2015")
    for name in ("train.txt", "test.txt"):
        os.symlink(data.resolve() / name, tmp_path / name)
    corpus = read_corpus(tmp_path)
    assert corpus.variant == "unknown variant"
    assert "Twitter-2015, UMT release, but it has no dev split" in corpus.warnings[0]


def test_rare_and_untrained_types_are_warned_of(tmp_path: Path) -> None:
    text = "Mira\tB-PER\n\n" * 12 + "Oslo\tB-LCO\n\n"
    corpus = read_corpus(write(tmp_path, train_txt=text, test_txt="Oslo\tB-LOC\n\n" * 10))
    rare, untrained = corpus.warnings[-2:]
    assert "LCO (1, the first in train-12)" in rare and "PER" not in rare and "LOC (" not in rare
    assert untrained.endswith(": LOC")


def test_check_prints_what_a_newcomer_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, train_txt=rows(scheme="BIOES", images=True), dev_txt=rows(), test_txt=WORDS_ALONE)
    assert main(["check", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["train", "2", "6", "2", "3"] in lines
    assert ["test", "2", "6", "0", "no", "gold"] in lines
    assert ["type", "train", "dev", "all"] in lines
    assert ["LOC", "2", "2", "4"] in lines
    assert [line[1:] for line in lines if line[:1] == ["tags:"]] == [
        ["train", "BIOES"],
        ["dev", "IOB2"],
        ["test", "none"],
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train_txt": b""}, r"train.txt: no sentences; expected a word and its tag a line"),
        ({"train_txt": b"\n \n\t\n"}, r"train.txt: no sentences"),
        ({"train_txt": b"\xff\xfeM\x00"}, r"train.txt: a file in UTF-16; expected a file saved as UTF-8"),
        ({"train_txt": "Möwe\tO\n".encode("latin-1")}, r"train.txt:1: byte 0xf6 at column 2 that is not UTF-8"),
        ({"train_txt": rows(), "train_bio": rows()}, r"several files for the train split \(train.txt, train.bio\)"),
        ({"dev_txt": rows(), "valid_txt": rows()}, r"several files for the dev split \(dev.txt, valid.txt\)"),
        ({"eng_train": rows()}, r"files of several corpora"),
    ],
)
def test_wrong_files_end_in_words(
    tmp_path: Path, files: dict[str, str | bytes], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, **files)
    assert main(["check", str(tmp_path)]) == 1
    with pytest.raises(CorpusError, match=message):
        read_corpus(tmp_path)
    assert "Traceback" not in capsys.readouterr().err


def test_wrong_folders_end_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.txt").mkdir()
    (tmp_path / "test.txt").write_text(rows())
    other = tmp_path / "other"
    other.mkdir()
    for number in range(12):
        (other / f"train{number:02}.json").touch()
    for folder, message in [
        (tmp_path, "train.txt: can't be read (Is a directory); expected a readable file"),
        (tmp_path / "test.txt", "a file; expected a folder with"),
        (tmp_path / "nowhere", "no such folder"),
        (other, "no corpus files, but train00.json, train01.json"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        assert main(["check", str(folder)]) == 1
        printed = capsys.readouterr()
        assert message in printed.err and printed.out == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_ends_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "mine")
    folder.chmod(0)
    try:
        assert main(["check", str(folder)]) == 1
    finally:
        folder.chmod(0o700)
    assert "Permission denied" in capsys.readouterr().err


def test_a_name_that_comes_often_is_not_counted_from_the_start_again() -> None:
    asked = 0

    class Seen(SpilledDict[int]):
        def __contains__(self, name: object) -> bool:
            nonlocal asked
            asked += 1
            return super().__contains__(name)

    seen = Seen()
    seen["a#4"] = 1
    found = [_unique("a", seen) for _ in range(100)]
    assert found == ["a", "a#2", "a#3", *(f"a#{number}" for number in range(5, 102))]
    assert asked <= 2 * 100 + 1
