"""Readers, fingerprints and the check command, on invented corpora that hold one trap each, and on the real ones."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from scanner_jax.corpora import CorpusError, read_corpus
from scanner_jax.corpora.__main__ import main
from scanner_jax.corpora.fingerprints import (
    KNOWN_VARIANTS,
    KnownVariant,
    SplitFingerprint,
    recognise,
    split_fingerprint,
)
from scanner_jax.types import Entity, Example

TWEET = "IMGID:{}\nrain\tO\nin\tO\nLima\tB-LOC\n\n"
CONLL = "-DOCSTART- -X- O O\n\nRain NN I-NP O\nin IN I-PP O\nLima NNP I-NP I-LOC\n\n"


def write_tweets(folder: Path, *, train: str | bytes, dev: str = "valid.txt") -> Path:
    """A corpus in the Twitter layout with this training split and one tweet in each of the others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_bytes(train if isinstance(train, bytes) else train.encode())
    (folder / dev).write_text(TWEET.format("d1"))
    (folder / "test.txt").write_text(TWEET.format("t1"))
    return folder


def write_conll(folder: Path, *, train: str) -> Path:
    for name, text in {"eng.train": train, "eng.testa": CONLL, "eng.testb": CONLL}.items():
        (folder / name).write_text(text)
    return folder


def problems(folder: Path) -> list[tuple[str, int | None]]:
    """File name and line of everything that is wrong with a corpus."""
    with pytest.raises(CorpusError) as raised:
        read_corpus(folder)
    return [(Path(problem.file).name, problem.line) for problem in raised.value.problems]


def test_tweets_are_read_with_their_image_ids(tmp_path: Path) -> None:
    corpus = read_corpus(write_tweets(tmp_path / "my tweets", train=TWEET.format("17_06_1")))
    assert corpus.splits["train"] == (Example("17_06_1", ("rain", "in", "Lima"), (Entity(2, 3, "LOC"),), "17_06_1"),)
    assert list(corpus.splits) == ["train", "dev", "test"]
    assert (corpus.name, corpus.types) == ("my tweets", ("LOC",))


def test_a_lone_no_break_space_is_a_word(tmp_path: Path) -> None:
    corpus = read_corpus(write_tweets(tmp_path, train="IMGID:1\n\u00a0\tO\nLima\tB-LOC\n\n"))
    assert corpus.splits["train"][0].words == ("\u00a0", "Lima")


@pytest.mark.parametrize("word", ["a\u2028b", "c\u0085", "d e", "f\rg", "IMGID:7"])
def test_only_tabs_and_line_feeds_separate(tmp_path: Path, word: str) -> None:
    corpus = read_corpus(write_tweets(tmp_path, train=f"IMGID:1\n{word}\tO\nLima\tB-LOC\n"))
    assert corpus.splits["train"][0].words == (word, "Lima")


@pytest.mark.parametrize(
    "train",
    [
        TWEET.format(1).rstrip("\n"),
        TWEET.format(1).replace("\n", "\r\n"),
        TWEET.format(1).replace("\n", "\r\n").encode("utf-8-sig"),
        "\n\n" + TWEET.format(1) + " \t\n\n",
    ],
    ids=["no blank line at the end", "CRLF", "byte order mark", "extra blank lines"],
)
def test_line_ends_and_marks_make_no_difference(tmp_path: Path, train: str | bytes) -> None:
    plain = read_corpus(write_tweets(tmp_path / "plain", train=TWEET.format(1)))
    other = read_corpus(write_tweets(tmp_path / "other", train=train))
    assert other.splits == plain.splits
    assert other.fingerprint == plain.fingerprint


def test_tags_that_are_not_valid_bio_are_read_leniently(tmp_path: Path) -> None:
    tags = ["I-PER", "I-PER", "O", "I-LOC", "I-ORG", "B-ORG", "I-OTHER"]
    train = "IMGID:1\n" + "".join(f"w\t{tag}\n" for tag in tags)
    entities = read_corpus(write_tweets(tmp_path, train=train)).splits["train"][0].entities
    assert [(entity.start, entity.end, entity.type) for entity in entities] == [
        (0, 2, "PER"),
        (3, 4, "LOC"),
        (4, 5, "ORG"),
        (5, 6, "ORG"),
        (6, 7, "OTHER"),
    ]


def test_a_repeated_image_gets_a_numbered_id(tmp_path: Path) -> None:
    train = TWEET.format("d1") + TWEET.format("t1") + TWEET.format("d1") + TWEET.format("d1#2")
    corpus = read_corpus(write_tweets(tmp_path, train=train))
    ids = [(example.id, example.image_id) for split in corpus.splits.values() for example in split]
    assert ids[:4] == [("d1", "d1"), ("t1", "t1"), ("d1#2", "d1"), ("d1#2#2", "d1#2")]
    assert ids[4:] == [("d1#3", "d1"), ("t1#2", "t1")]


def test_words_after_a_blank_line_are_another_sentence_of_the_tweet(tmp_path: Path) -> None:
    corpus = read_corpus(write_tweets(tmp_path, train="IMGID:1\na\tO\n\nb\tO\n"))
    assert [(e.id, e.image_id, e.words) for e in corpus.splits["train"]] == [("1", "1", ("a",)), ("1#2", "1", ("b",))]


def test_conll_skips_document_starts_and_reads_iob1(tmp_path: Path) -> None:
    train = CONLL + "-DOCSTART- -X- O O\n\nA NNP I-NP I-ORG\nB NNP I-NP B-ORG\nC NNP I-NP I-ORG"
    splits = read_corpus(write_conll(tmp_path, train=train)).splits
    assert [example.id for example in splits["train"]] == ["train-0", "train-1"]
    assert splits["train"][1].entities == (Entity(0, 1, "ORG"), Entity(1, 3, "ORG"))
    assert splits["train"][1].image_id is None
    assert [example.id for example in splits["test"]] == ["test-0"]


def test_gmner_is_read_from_its_text_folder(tmp_path: Path) -> None:
    write_tweets(tmp_path / "txt", train=TWEET.format(1), dev="dev.txt")
    (tmp_path / "xml").mkdir()
    assert [split[0].id for split in read_corpus(tmp_path).splits.values()] == ["1", "d1", "t1"]


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    lines = [
        b"early\tO",  # before any IMGID
        b"",
        b"IMGID:1",
        b"no tag",
        b"\tO",
        b"word\tB_PER",
        b"word\tI-",
        b"word\tB-PRODUCT",  # any type will do
        b"too\tmany\tO",
        b"caf\xe9\tO",
        b"",
        b"IMGID:",
        b"word\tO",
        b"",
        b"IMGID:2",
        b"IMGID:3",
        b"\xc2\xa0",
    ]
    write_tweets(tmp_path, train=b"\n".join(lines))
    (tmp_path / "valid.txt").write_text("\n")
    (tmp_path / "test.txt").unlink()
    lines_found = [1, 4, 5, 6, 7, 9, 10, 12, 15, 17]
    found = problems(tmp_path)
    assert sorted(line for name, line in found if name == "train.txt" and line) == lines_found
    assert [place for place in found if place[0] != "train.txt"] == [(tmp_path.name, None), ("valid.txt", None)]


def test_messages_say_what_would_be_right(tmp_path: Path) -> None:
    write_tweets(tmp_path, train=b"IMGID:1\nno tag\nword\tB-\ncaf\xe9\tO")
    (tmp_path / "test.txt").unlink()
    with pytest.raises(CorpusError) as raised:
        read_corpus(tmp_path)
    message = str(raised.value)
    assert "train.txt:2: 'no tag', 1 column(s); expected 2 columns separated by TAB" in message
    assert "train.txt:3: tag 'B-'; expected O or PREFIX-TYPE with one of the prefixes B I E S L U" in message
    assert "train.txt:4: byte 0xe9 at column 4 that is not UTF-8" in message
    assert "no test split; expected the file test with .txt .conll .bio .iob .tsv" in message


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    write_tweets(tmp_path, train="IMGID:1\n" + "word\tB\n" * 80)
    with pytest.raises(CorpusError) as raised:
        read_corpus(tmp_path)
    assert len(raised.value.problems) == 80
    assert str(raised.value).count("train.txt:") == 50
    assert str(raised.value).endswith("... and 30 more")


@pytest.mark.parametrize(
    "line", ["Lima NNP I-LOC", "Lima NNP  I-NP I-LOC", "Li\tma NNP I-NP I-LOC", "Lima\tNNP\tI-NP\tO"]
)
def test_conll_needs_four_columns(tmp_path: Path, line: str) -> None:
    assert problems(write_conll(tmp_path, train=f"{CONLL}{line}\n")) == [("eng.train", 7)]


def test_conll_has_no_type_other(tmp_path: Path) -> None:
    folder = write_conll(tmp_path, train="Lima NNP I-NP I-OTHER\n")
    with pytest.raises(CorpusError, match=r"eng.train:1: unknown type 'OTHER'.*expected one of LOC, MISC, ORG, PER"):
        read_corpus(folder)


def test_gmner_has_no_type_misc_and_needs_its_image_ids(tmp_path: Path) -> None:
    write_tweets(tmp_path / "txt", train="Lima\tB-MISC\n", dev="dev.txt")
    assert problems(tmp_path) == [("train.txt", 1), ("train.txt", 1)]


def test_a_folder_must_hold_one_corpus(tmp_path: Path) -> None:
    assert problems(tmp_path) == [(tmp_path.name, None)]
    assert problems(tmp_path / "absent") == [("absent", None)]
    write_conll(tmp_path, train=CONLL)
    write_tweets(tmp_path, train=TWEET.format(1))
    with pytest.raises(CorpusError, match="several corpora"):
        read_corpus(tmp_path)


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    write_tweets(tmp_path, train=TWEET.format(1), dev="dev.txt")
    write_tweets(tmp_path, train=TWEET.format(1), dev="valid.txt")
    with pytest.raises(CorpusError, match="several files for the dev split"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"), [("rain", "Rain"), ("B-LOC", "B-ORG"), ("in\tO", "in\tB-LOC"), ("IMGID:1", "IMGID:2")]
)
def test_an_edit_gives_another_fingerprint(tmp_path: Path, old: str, new: str) -> None:
    before = read_corpus(write_tweets(tmp_path, train=TWEET.format(1)))
    after = read_corpus(write_tweets(tmp_path, train=TWEET.format(1).replace(old, new)))
    assert before.fingerprint != after.fingerprint
    changed = [s for s in before.splits if before.split_fingerprints[s] != after.split_fingerprints[s]]
    assert changed == ["train"]


def test_split_fingerprint_counts() -> None:
    examples = [
        Example("1", ("a", "b", "c"), (Entity(0, 2, "PER"), Entity(2, 3, "LOC")), "1"),
        Example("2", ("a",), (Entity(0, 1, "PER"),), "2"),
    ]
    found = split_fingerprint(examples)
    assert (found.sentences, found.tokens, found.entities) == (2, 4, {"LOC": 1, "PER": 2})
    assert found.sha256 != split_fingerprint(examples[::-1]).sha256


def as_found(variant: KnownVariant) -> dict[str, SplitFingerprint]:
    """A corpus with a variant's content, or with its counts where the content isn't known."""
    return {
        name: SplitFingerprint(
            known.sentences, known.tokens or 0, known.per_type or {"PER": known.entities or 0}, known.sha256 or ""
        )
        for name, known in variant.splits.items()
    }


def known(name: str) -> dict[str, SplitFingerprint]:
    return as_found(next(variant for variant in KNOWN_VARIANTS if variant.name == name))


def test_known_variants_are_recognised() -> None:
    twitter = known("Twitter-2015, UMT release")
    assert recognise(twitter).variant == "Twitter-2015, UMT release"
    assert recognise(twitter).warnings == ()
    assert recognise(known("Twitter-2017")).variant == "Twitter-2017 (by its published counts)"
    assert recognise(known("Twitter-2017")).warnings == ()


def test_other_content_or_counts_warn() -> None:
    twitter = known("Twitter-2015, UMT release")
    edited = twitter | {"test": dataclasses.replace(twitter["test"], sha256="other")}
    assert recognise(edited).variant == "Twitter-2015, UMT release (by its counts; other content)"
    assert len(recognise(edited).warnings) == 1
    strict = twitter | {"test": dataclasses.replace(twitter["test"], entities={"PER": 5072}, sha256="other")}
    assert recognise(strict).variant == "unknown variant"
    assert "test has 5,072 entities (not 5,207)" in recognise(strict).warnings[0]
    assert "train has" not in recognise(strict).warnings[0]


def test_gmner_v1_is_told_from_v2_with_a_warning() -> None:
    gmner = known("Twitter-GMNER v2.0")
    other = gmner | {"dev": dataclasses.replace(gmner["dev"], entities={"PER": 2453}, sha256="other")}
    assert recognise(gmner).variant == "Twitter-GMNER v2.0"
    assert recognise(other).variant == "Twitter-GMNER v1 or an edited copy (by its numbers of tweets alone)"
    assert "edited copy" in recognise(other).warnings[0]


def test_a_corpus_like_no_other_is_named_unknown(tmp_path: Path) -> None:
    corpus = read_corpus(write_tweets(tmp_path, train=TWEET.format(1)))
    assert corpus.variant == "unknown variant"
    assert "no known variant" in corpus.warnings[0]


def test_check_prints_counts_variant_and_fingerprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tweets(tmp_path, train=TWEET.format(1) + "IMGID:2\nAda\tB-PER\n")
    assert main(["check", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()[:8]]
    assert rows == [
        ["split", "sentences", "tokens", "images", "entities"],
        ["train", "2", "4", "2", "2"],
        ["dev", "1", "3", "1", "1"],
        ["test", "1", "3", "1", "1"],
        [],
        ["type", "train", "dev", "test", "all"],
        ["LOC", "1", "1", "1", "3"],
        ["PER", "1", "0", "0", "1"],
    ]
    assert "tags:        IOB2\n" in printed
    assert read_corpus(tmp_path).fingerprint in printed
    assert "unknown variant" in printed and "warning:" in printed


def test_check_lists_problems_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tweets(tmp_path, train="IMGID:1\nword\nword\tB-\n")
    assert main(["check", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "train.txt:2:" in printed.err and "train.txt:3:" in printed.err and "2 problems" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["check"], 2), (["check", "a", "b"], 2), (["check", "--help"], 0)]
)
def test_wrong_arguments_exit_with_2(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == code
    if code == 0:
        assert "eng.testa" in capsys.readouterr().out


REAL = {
    "conll2003": ("CoNLL-2003, English", (14041, 3250, 3453), (23499, 5942, 5648)),
    "twitter2015": ("Twitter-2015, UMT release", (4000, 1000, 3257), (6352, 1594, 5207)),
    "twitter_gmner": ("Twitter-GMNER v2.0", (7000, 1500, 1500), (11779, 2450, 2543)),
}
TEST_TYPES = {
    "conll2003": {"LOC": 1668, "ORG": 1661, "PER": 1617, "MISC": 702},
    "twitter2015": {"PER": 1873, "LOC": 1720, "ORG": 860, "OTHER": 754},
    "twitter_gmner": {"PER": 1104, "ORG": 638, "LOC": 404, "OTHER": 397},
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_published_counts_of_the_real_corpora(name: str) -> None:
    folder = Path(__file__).parent.parent / "data" / name
    if not folder.is_dir():
        pytest.skip(f"needs data/{name}")
    corpus = read_corpus(folder)
    variant, sentences, entities = REAL[name]
    splits = list(corpus.splits.values())
    assert tuple(len(split) for split in splits) == sentences
    assert tuple(sum(len(example.entities) for example in split) for split in splits) == entities
    assert Counter(entity.type for example in splits[2] for entity in example.entities) == TEST_TYPES[name]
    assert (corpus.variant, corpus.warnings) == (variant, ())
    ids = [example.id for split in splits for example in split]
    assert len(set(ids)) == len(ids)
