"""The leak check: what counts as found, planted leaks, and the notes at hand."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from scanner_jax.store import write_kind
from scanner_jax.store.__main__ import main
from scanner_jax.store.leaks import Found, find_labels, leak_warnings
from scanner_jax.types import Entity, Example

DATA = Path(__file__).parent.parent / "data"
TWEET = Example("1", ("Nova", "Bank", "hired", "Ada"), (Entity(0, 2, "ORG"), Entity(3, 4, "PER")))
NEITHER, SURFACE, NAMED, LABELLED = (0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("", NEITHER),
        ("Nova was a bank", NEITHER),
        ("nova bank (organization)", NEITHER),  # another case is another surface
        ("Nova Banks: ORG", NEITHER),
        ("SuperNova Bank", NEITHER),
        ("Nova Bank hires people", SURFACE),
        ("1. Nova Bank (location)", SURFACE),
        ("1. Nova Bank (company) 2. Reds (organization)", SURFACE),
        ("1. Reds (organization) 2. Nova Bank", SURFACE),
        ("Nova Bank\norganization", SURFACE),
        ("Nova Bank wanted her more than any other organization did", SURFACE),
        ("Nova Bank has an ORGAN", SURFACE),
        ("Nova Bank (organization)", NAMED),
        ("1. Nova Bank (company/Organisation)", NAMED),
        ("Nova Bank, an organization in town", NAMED),
        ("the organization Nova Bank", NAMED),
        ("Nova Bank: ORG", LABELLED),
        ("Nova Bank (ORG)", LABELLED),
        ("Nova Bank - B-ORG", LABELLED),
        ("ORG: Nova Bank", LABELLED),
        ("<ORG>Nova Bank</ORG>", LABELLED),
        ('{"text": "Nova Bank", "type": "ORG"}', LABELLED),
        ("('Nova Bank', 'ORG')", LABELLED),
        ("Nova B-ORG Bank I-ORG hired O", (0, 1, 1)),
        ("Nova\tB-ORG\nBank\tI-ORG", (0, 1, 1)),
    ],
)
def test_what_counts_as_found(note: str, expected: tuple[int, int, int]) -> None:
    example = Example(TWEET.id, TWEET.words, TWEET.entities[:1])
    found = find_labels([example], {"1": note}.get)
    assert (found.surface, found.pair, found.label) == expected
    assert (found.examples, found.with_notes, found.entities) == (1, int(bool(note)), 1)


def test_other_types_go_by_their_own_name() -> None:
    example = Example("1", ("Fever", "(", "high"), (Entity(0, 1, "side_effect"), Entity(1, 2, "X+")))
    found = find_labels([example], {"1": "Fever is a Side effect. ("}.get)
    assert (found.surface, found.pair, found.label) == (2, 1, 0)
    assert find_labels([example], {"1": "Fever side_effect"}.get).label == 1
    assert find_labels([example], {"1": "( = X+"}.get).label == 1


def test_entities_count_per_mention_and_need_the_notes_of_their_own_example() -> None:
    other = Example("2", ("Ada", "Ada"), (Entity(0, 1, "PER"), Entity(1, 2, "PER")))
    notes = {"1": "Ada: PER", "2": "Nova Bank"}
    assert find_labels([TWEET, other], notes.get) == Found(2, 2, 4, surface=1, pair=1, label=1)


def split(size: int, rng: random.Random, *, leaking: float, names: tuple[str, ...]) -> tuple[list[Example], dict]:
    """Invented tweets with honest notes, of which some give the label away."""
    examples, notes = [], {}
    for number in range(size):
        name, kind = rng.choice(names), rng.choice(["PER", "ORG", "LOC"])
        identity = f"{id(examples)}-{number}"
        examples.append(Example(identity, (name, "again"), (Entity(0, 1, kind),)))
        guess = rng.choice(["person", "organization", "location", "team", "handle"])
        honest = f"1. {name} ({guess}) Reasoning: the sentence mentions {name}."
        notes[identity] = f"{name}: {kind}" if rng.random() < leaking else honest
    return examples, notes


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("leaking", "warned"), [(0.0, False), (0.03, True), (0.3, True), (1.0, True)])
def test_planted_leaks_are_warned_of(seed: int, leaking: float, warned: bool) -> None:
    rng = random.Random(seed)
    names = tuple("".join(letters).title() for letters in itertools.product("bd", "ae", "lm", "io"))
    shares = {"train": 0.0, "dev": 0.0, "test": leaking}
    made = {name: split(2000, rng, leaking=share, names=names) for name, share in shares.items()}
    found = {name: find_labels(examples, notes.get) for name, (examples, notes) in made.items()}
    warnings = leak_warnings(found)
    assert bool(warnings) == warned
    assert all(text.startswith("test stands out: ") for text in warnings)


def test_a_difference_that_chance_explains_is_no_leak() -> None:
    train = Found(1000, 1000, 2000, surface=1700, pair=1000, label=0)
    assert leak_warnings({"train": train, "test": Found(20, 20, 30, surface=28, pair=18, label=0)}) == []
    (warning,) = leak_warnings({"train": train, "test": Found(1000, 1000, 2000, surface=1700, pair=1200, label=0)})
    assert "surface and type of 60.00 %" in warning and "50.00 % in train" in warning
    assert leak_warnings({"train": train, "dev": Found(0, 0, 0, 0, 0, 0)}) == []
    assert "no training split" in leak_warnings({"test": train})[0]


def write_corpus(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number, name in enumerate(("train", "valid", "test")):
        lines = [f"IMGID:{number}{place}\nMira\tB-PER\nvisits\tO\nTamsin\tB-LOC\n" for place in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, store = write_corpus(tmp_path / "tweets", 50), tmp_path / "store"
    honest = {f"{split}{place}": "1. Mira (singer)" for split in range(3) for place in range(50)}
    write_kind(store, "notes", [(key, {"text": text}) for key, text in honest.items()], {"importer": "test"})
    assert main(["check", str(store), str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert "no split stands out" in printed
    assert printed.count("50 (50.00 %)") == 3 and printed.count("  0 (0.00 %)") == 6

    leaking = {key: "Mira: PER, Tamsin: LOC" if key.startswith("2") else text for key, text in honest.items()}
    spans = {"20": {"text": "", "spans": [[0, 1, "Mira: PER"], [2, 3, "Tamsin: LOC"]]}}
    records = [(key, {"text": text} | spans.get(key, {})) for key, text in leaking.items()]
    write_kind(store, "notes", records, {"importer": "test"})
    assert main(["check", str(store), str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert "warning: test stands out: surface and the corpus's own label of 100.00 %" in printed
    assert "dev stands out" not in printed and "no split stands out" not in printed


def test_the_command_without_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, store = write_corpus(tmp_path / "tweets", 1), tmp_path / "store"
    write_kind(store, "captions", [("1", {"text": "a photo"})], {"importer": "test"})
    for arguments, said in (
        ([str(store), str(corpus)], "holds no notes"),
        ([str(tmp_path / "nowhere"), str(corpus)], "does not exist"),
        ([str(store), str(tmp_path / "nowhere")], "nowhere"),
    ):
        assert main(["check", *arguments]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["twitter2015", "twitter_gmner"])
@pytest.mark.slow
def test_the_published_notes_do_not_stand_out(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (DATA / "chatgpt" / name).is_dir() or not (DATA / name).is_dir():
        pytest.skip(f"data/chatgpt/{name} or data/{name} is not here")
    arguments = [str(DATA / "chatgpt" / name), str(tmp_path / "store"), "--corpus", str(DATA / name)]
    assert main(["import", "notes", *arguments]) == 0
    assert main(["check", str(tmp_path / "store"), str(DATA / name)]) == 0
    assert "no split stands out" in capsys.readouterr().out
