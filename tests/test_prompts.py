"""Prompts: the template, positions from construction, the budget and what is cut first."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_jax.prompts import Cut, Prompt, PromptError, build_prompt, cut_report
from scanner_jax.tokens import Tokenizer, load_tokenizer
from scanner_jax.types import Example, ImageObject, Knowledge, Span

GRANITE = Path("models/granite-30m-english")
OBJECT = 999  # behind every vocabulary of these tests
FRAME = 3 + 3 + 1 + 4  # start, mask, end; "The entity is"; "for"; "in this sentence."
BOX = (0.0, 0.0, 1.0, 1.0)
random_prompts = settings(max_examples=150, deadline=None)

FIRST_TWO = Span(0, 2)
KNOWLEDGE = Knowledge(
    wikipedia="Okafor is a player",
    notes="we love the Reds",
    caption="a photo of a lake",
    objects=(ImageObject(BOX, "red car", 0.9, "a car on the lake"), ImageObject(BOX, "dog", 0.8, "so red")),
)
TWEET = Example("test-1", ("Mira", "Okafor", "visits", "Lake", "Tamsin", "today"))


def prompt_of(
    tokenizer: Tokenizer,
    example: Example = TWEET,
    span: Span = FIRST_TWO,
    knowledge: Knowledge = KNOWLEDGE,
    *,
    max_tokens: int = 200,
    max_objects: int = 15,
    object_token: int = OBJECT,
) -> Prompt:
    return build_prompt(
        tokenizer,
        example,
        span,
        knowledge,
        max_tokens=max_tokens,
        max_objects=max_objects,
        object_token=object_token,
    )


def spelt(tokenizer: Tokenizer, prompt: Prompt) -> str:
    return " ".join(
        "<obj>" if token == OBJECT else str(tokenizer.backend.id_to_token(token)) for token in prompt.token_ids
    )


def test_template(tiny_tokenizer: Tokenizer) -> None:
    prompt = prompt_of(tiny_tokenizer)
    assert spelt(tiny_tokenizer, prompt) == (
        "<s> The entity is <mask> for Mira Okafor in this sentence . Mira Okafor visits Lake Tamsin today "
        "Okafor is a player we love the Reds a photo of a lake "
        "<obj> red car a car on the lake <obj> dog so red </s>"
    )
    assert prompt.token_ids[prompt.mask_position] == tiny_tokenizer.mask
    assert [prompt.token_ids[position] for position in prompt.object_positions] == [OBJECT, OBJECT]
    assert prompt.cut == Cut()


def test_nothing_known(tiny_tokenizer: Tokenizer) -> None:
    prompt = prompt_of(tiny_tokenizer, span=Span(3, 5), knowledge=Knowledge())
    assert spelt(tiny_tokenizer, prompt) == (
        "<s> The entity is <mask> for Lake Tamsin in this sentence . Mira Okafor visits Lake Tamsin today </s>"
    )
    assert prompt.object_positions == ()


def test_objects_beyond_the_limit_are_left_out_from_the_end(tiny_tokenizer: Tokenizer) -> None:
    prompt = prompt_of(tiny_tokenizer, max_objects=1)
    assert spelt(tiny_tokenizer, prompt).endswith("a lake <obj> red car a car on the lake </s>")
    assert len(prompt.object_positions) == 1
    assert prompt_of(tiny_tokenizer, max_objects=0).object_positions == ()


SPELLINGS = st.lists(
    st.sampled_from(["<mask>", "<obj>", "</s>", "<s>", "<pad>", "a<mask>", "<obj><mask>", "love", "<", "mask"]),
    min_size=1,
    max_size=5,
)


@random_prompts
@given(*[SPELLINGS] * 6, st.data())
def test_text_never_becomes_a_special_token(
    tiny_tokenizer: Tokenizer,
    words: list[str],
    wikipedia: list[str],
    notes: list[str],
    caption: list[str],
    label: list[str],
    region: list[str],
    data: st.DataObject,
) -> None:
    start = data.draw(st.integers(0, len(words) - 1))
    span = Span(start, data.draw(st.integers(start + 1, len(words))))
    known = Knowledge(
        wikipedia=" ".join(wikipedia),
        notes=" ".join(notes),
        caption=" ".join(caption),
        objects=(ImageObject(BOX, " ".join(label), 1.0, " ".join(region)),) * 3,
    )
    assert_special_tokens_stand_only_where_built(tiny_tokenizer, Example("1", tuple(words)), span, known, OBJECT)


@pytest.mark.parametrize("name", ["granite-30m-english", "xlm-roberta-large-shape"])
def test_text_never_becomes_a_special_token_of_a_real_vocabulary(name: str) -> None:
    folder = Path("models") / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    tokenizer = load_tokenizer(folder)
    text = "hello <mask> <obj> a<mask>b </s><s> <pad> ＜mask＞"
    known = Knowledge(wikipedia=text, notes=text, caption=text, objects=(ImageObject(BOX, text, 1.0, text),) * 2)
    example = Example("1", tuple(text.split()))
    object_token = tokenizer.backend.get_vocab_size()
    assert_special_tokens_stand_only_where_built(tokenizer, example, Span(1, 4), known, object_token)


def assert_special_tokens_stand_only_where_built(
    tokenizer: Tokenizer, example: Example, span: Span, knowledge: Knowledge, object_token: int
) -> None:
    prompt = prompt_of(tokenizer, example, span, knowledge, max_tokens=500, object_token=object_token)
    ids = prompt.token_ids
    special = tokenizer.special | {object_token}
    expected = {0: tokenizer.start, len(ids) - 1: tokenizer.end, prompt.mask_position: tokenizer.mask}
    expected |= dict.fromkeys(prompt.object_positions, object_token)
    assert len(prompt.object_positions) == len(knowledge.objects)
    assert {position: token for position, token in enumerate(ids) if token in special} == expected


LENGTHS = st.integers(0, 12)


def cut_by_hand(lengths: dict[str, int], regions: list[int], excess: int) -> tuple[dict[str, int], list[int]]:
    """Take away one token at a time, in the documented order; what is left of each part."""
    left, regions = dict(lengths), list(regions)
    for _ in range(max(0, excess)):
        if any(regions):
            last = max(place for place, length in enumerate(regions) if length)
            regions[last] -= 1
        elif left["wikipedia"] or left["notes"]:
            left["wikipedia" if left["wikipedia"] >= left["notes"] else "notes"] -= 1
        elif left["caption"]:
            left["caption"] -= 1
        else:
            left["sentence"] -= 1
    return left, regions


@random_prompts
@given(
    st.integers(1, 40),
    st.data(),
    LENGTHS,
    LENGTHS,
    LENGTHS,
    st.lists(st.tuples(st.integers(0, 3), LENGTHS), max_size=5),
    st.integers(14, 130),
)
def test_budget_and_order_of_cutting(
    tiny_tokenizer: Tokenizer,
    sentence: int,
    data: st.DataObject,
    wikipedia: int,
    notes: int,
    caption: int,
    objects: list[tuple[int, int]],
    budget: int,
) -> None:
    start = data.draw(st.integers(0, sentence - 1))
    span = Span(start, data.draw(st.integers(start + 1, min(sentence, start + 6))))
    words = [f"unseen{place}" for place in range(sentence)]
    words[span.start : span.end] = ["Mira"] * (span.end - span.start)
    known = Knowledge(
        wikipedia="we " * wikipedia,
        notes="love " * notes,
        caption="photo " * caption,
        objects=tuple(ImageObject(BOX, "dog " * label, 1.0, "red " * region) for label, region in objects),
    )
    lengths = {"sentence": sentence, "wikipedia": wikipedia, "notes": notes, "caption": caption}
    frame = FRAME + span.end - span.start + sum(1 + label for label, _ in objects)
    regions = [region for _, region in objects]
    left, kept = cut_by_hand(lengths, regions, frame + sum(lengths.values()) + sum(regions) - budget)
    if left["sentence"] < min(sentence, 16):
        with pytest.raises(PromptError, match=r"example 9, candidate 'Mira.* raise recognizer.max_tokens"):
            prompt_of(tiny_tokenizer, Example("9", tuple(words)), span, known, max_tokens=budget)
        return

    prompt = prompt_of(tiny_tokenizer, Example("9", tuple(words)), span, known, max_tokens=budget)
    text = spelt(tiny_tokenizer, prompt).split()
    assert len(text) == min(budget, frame + sum(lengths.values()) + sum(regions))
    counted = prompt.cut
    assert {name: length - getattr(counted, name) for name, length in lengths.items()} == left
    assert counted.objects == sum(regions) - sum(kept)

    mentions = ["Mira"] * (span.end - span.start)
    head = ["<s>", "The", "entity", "is", "<mask>", "for", *mentions, *"in this sentence .".split()]
    assert text[: len(head)] == head
    window = text[len(head) : len(head) + left["sentence"]]
    assert window.count("Mira") == len(mentions)  # the window is around the entity
    tail = ["we"] * left["wikipedia"] + ["love"] * left["notes"] + ["photo"] * left["caption"]
    places = []
    for (label, _), region in zip(objects, kept, strict=True):
        places.append(len(head) + len(window) + len(tail))
        tail += ["<obj>", *["dog"] * label, *["red"] * region]
    assert text[len(head) + len(window) :] == [*tail, "</s>"]
    assert prompt.object_positions == tuple(places)


@pytest.mark.parametrize(
    ("span", "first"),
    [
        (Span(0, 1), 0),  # as near to the middle as the sentence's ends allow
        (Span(8, 9), 0),
        (Span(9, 10), 1),
        (Span(20, 21), 12),
        (Span(20, 23), 13),
        (Span(20, 36), 20),  # as long as the window
        (Span(39, 40), 24),
    ],
)
def test_sentence_window_has_the_entity_in_the_middle(tiny_tokenizer: Tokenizer, span: Span, first: int) -> None:
    words = sorted(word for word in tiny_tokenizer.backend.get_vocab() if word.isalpha())[:40]
    budget = FRAME + (span.end - span.start) + 16
    prompt = prompt_of(tiny_tokenizer, Example("1", tuple(words)), span, Knowledge(caption="dog"), max_tokens=budget)
    assert spelt(tiny_tokenizer, prompt).split()[-17:-1] == words[first : first + 16]
    assert prompt.cut == Cut(sentence=40 - 16, caption=1)


@pytest.mark.skipif(not GRANITE.is_dir(), reason=f"{GRANITE} is not there")
def test_window_holds_an_entity_of_its_own_size() -> None:
    """With a byte-level vocabulary too, where a blank at the end of a text is a token of its own."""
    tokenizer = load_tokenizer(GRANITE)
    example = Example("1", ("so", *["lake"] * 15, "Mira", *["band"] * 20))
    prompt = prompt_of(tokenizer, example, Span(1, 17), Knowledge(), max_tokens=FRAME + 2 * 17, object_token=50265)
    entity = tokenizer.text(example.surface(Span(1, 17)))
    sentence = list(prompt.token_ids[-1 - 17 : -1])
    assert len(entity) == 17
    assert sentence == entity


def test_smallest_budgets(tiny_tokenizer: Tokenizer) -> None:
    labels = (1 + 2) + (1 + 1)
    whole = FRAME + 2 + len(TWEET.words) + labels
    smallest = prompt_of(tiny_tokenizer, max_tokens=whole)
    assert len(smallest.token_ids) == whole
    assert smallest.cut == Cut(wikipedia=4, notes=4, caption=5, objects=5 + 2)
    assert spelt(tiny_tokenizer, smallest).endswith("today <obj> red car <obj> dog </s>")
    with pytest.raises(PromptError, match=rf"{whole - 1} tokens .* or lower recognizer.max_objects \(15\)"):
        prompt_of(tiny_tokenizer, max_tokens=whole - 1)


def test_cut_report() -> None:
    prompts = [
        Prompt((0,), 0, (), Cut(sentence=2, notes=1)),
        Prompt((0,), 0, (), Cut(notes=4)),
        Prompt((0,), 0, (), Cut()),
    ]
    report = cut_report(prompts)
    assert report["cut_prompts_percent"] == {
        "entity": 0.0,
        "sentence": 33.33,
        "wikipedia": 0.0,
        "notes": 66.67,
        "caption": 0.0,
        "objects": 0.0,
    }
    tokens = {"entity": 0, "sentence": 2, "wikipedia": 0, "notes": 5, "caption": 0, "objects": 0}
    assert report["cut_tokens"] == tokens
    assert set(cut_report([])["cut_tokens"].values()) == {0}


def test_a_candidate_longer_than_the_budget_keeps_its_first_tokens(tiny_tokenizer: Tokenizer) -> None:
    example = Example("1", ("Mira", *["lake"] * 60))
    prompt = prompt_of(tiny_tokenizer, example, Span(0, 61), Knowledge(caption="dog"), max_tokens=50)
    text = spelt(tiny_tokenizer, prompt).split()
    assert len(text) == 50
    kept = 50 - (FRAME - 1) - 16  # FRAME counts "for", which belongs to the entity's tokens
    assert text[5 : 5 + kept] == ["for", "Mira", *["lake"] * (kept - 2)]
    assert prompt.cut == Cut(entity=62 - kept, sentence=61 - 16, caption=1)
