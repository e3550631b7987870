"""Invented tweets: sentences with names in them, their pictures, and label noise for training."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence

from scanner_jax.demo.scenes import Scene, make_scene
from scanner_jax.demo.world import Thing, World
from scanner_jax.types import Entity, Example, Span

NEUTRAL = (
    "can't stop thinking about {}",
    "{} is everywhere in my feed today",
    "everyone at work talks about {}",
    "why does nobody mention {} any more",
    "my sister sent me this about {}",
    "so much love for {}",
    "{} never gets old",
    "we finally saw {} up close",
    "still not over {}",
    "guess who loves {} ?",
    "this is what {} looks like now",
    "first {} , then {} , what a week",
    "{} and {} in one picture",
    "from {} to {} in a single day",
    "is {} better than {} ?",
    "nothing but {} and {} on the news",
    "reading about {} all night",
    "{} again and again",
    "a big thank you to {}",
    "I had no idea about {}",
)
TELLING = {
    "PER": ("{} just smiled at me", "happy birthday to {} , she is 40 today", "{} said he was sorry"),
    "LOC": ("we landed in {} an hour ago", "it is raining in {}", "two weeks of holiday in {}"),
    "ORG": ("{} hired my brother", "all members of {} are on strike", "shares of {} fell again"),
    "OTHER": ("just bought the new {}", "the second part of {} is out", "I won a {} last year"),
}
PLAIN = (
    "what a {} mood today",
    "coffee first , then we talk",
    "Monday again and I am so tired",
    "no words for this view",
    "that was a {} thing to say",
)
BEFORE = ("", "", "", "", "Honestly ,", "RT @{handle} :", "Good Morning !", "LOL ,", "Breaking :", "Ok", "@{handle}")
AFTER = ("", "", "", "!", "...", "#mood", "😂", "http://t.co/{handle}", "this Friday", "! ! #Wow", ":)")


@dataclasses.dataclass(frozen=True, slots=True)
class Tweet:
    """One tweet with its gold entities, and the scene in its picture."""

    example: Example
    scene: Scene


@dataclasses.dataclass(frozen=True, slots=True)
class Noise:
    """One label that was made wrong: `kind` is type, missed or boundary; `label` is None where it was missed."""

    id: str
    entity: Entity
    kind: str
    label: Entity | None


def make_tweets(
    rng: random.Random, things: Sequence[Thing], *, slang: Sequence[str], ids: Sequence[str]
) -> list[Tweet]:
    """Write one tweet for each id; names come in turn, so that each of them is used about equally often."""
    order: list[Thing] = []
    tweets = []
    for id in ids:
        if len(order) < 2:
            order += rng.sample(list(things), len(things))
        words, named = write_sentence(rng, order, slang)
        scene = make_scene(rng, [thing for _, thing in named])
        entities = tuple(Entity(span.start, span.end, thing.type, scene.boxes(thing)) for span, thing in named)
        tweets.append(Tweet(Example(id, words, entities, image_id=id), scene))
    return tweets


def write_sentence(
    rng: random.Random, order: list[Thing], slang: Sequence[str]
) -> tuple[tuple[str, ...], list[tuple[Span, Thing]]]:
    """Write one sentence about the next things of `order`, which it takes from there.

    Seven in ten say nothing about the type of what they name; one in ten names nothing. A name's place is now and
    then taken by a slang word, which is no entity and only looks like one.

    Returns:
        The words, and the things named with their spans.
    """
    chance = rng.random()
    if chance < 0.1:
        core = rng.choice(PLAIN)
    elif chance < 0.3:
        core = rng.choice(TELLING[order[0].type])
    else:
        core = rng.choice(NEUTRAL)
    words: list[str] = []
    named: list[tuple[Span, Thing]] = []
    for word in f"{rng.choice(BEFORE)} {core} {rng.choice(AFTER)}".split():
        if word != "{}":
            words.append(word.replace("{handle}", rng.choice(slang).lower()))
        elif core in PLAIN or rng.random() < 0.04:
            words.append(rng.choice(slang))
        else:
            thing = order.pop(0)
            named.append((Span(len(words), len(words) + len(thing.name.split())), thing))
            words += thing.name.split()
    return tuple(words), named


def split_things(rng: random.Random, world: World, split: str, known: Sequence[Thing]) -> list[Thing]:
    """What dev or test names: all its new things, and about two known ones for three of those."""
    new = world.new[split]
    return [*new, *rng.sample(list(known), min(len(known), len(new) * 2 // 3))]


def add_noise(
    rng: random.Random, examples: Sequence[Example], *, share: float, types: Sequence[str]
) -> tuple[list[Example], list[Noise]]:
    """Make a share of the labels wrong: half get another type, a quarter is missed, a quarter has a wrong boundary.

    Args:
        rng: chooses.
        examples: with right labels.
        share: of all entities.
        types: that a wrong type is chosen from.

    Returns:
        The examples with their noisy labels, and what was done.
    """
    places = [(index, entity) for index, example in enumerate(examples) for entity in example.entities]
    noisy, done = list(examples), []
    for number, (index, entity) in enumerate(sorted(rng.sample(places, round(share * len(places))), key=_place)):
        example, kind = noisy[index], ("type", "missed", "type", "boundary")[number % 4]
        label: Entity | None = None
        if kind == "boundary":
            label = _wrong_boundary(rng, example, entity)
            kind = kind if label else "missed"
        elif kind == "type":
            label = dataclasses.replace(entity, type=rng.choice([name for name in types if name != entity.type]))
        kept = [label if other == entity else other for other in example.entities]
        noisy[index] = dataclasses.replace(example, entities=tuple(other for other in kept if other is not None))
        done.append(Noise(example.id, entity, kind, label))
    return noisy, done


def noise_counts(noise: Sequence[Noise]) -> dict[str, int]:
    """How many labels were made wrong in each way."""
    counts = Counter(item.kind for item in noise)
    return {kind: counts[kind] for kind in ("type", "missed", "boundary")}


def _place(place: tuple[int, Entity]) -> tuple[int, int]:
    return place[0], place[1].start


def _wrong_boundary(rng: random.Random, example: Example, entity: Entity) -> Entity | None:
    """The entity without one of its words, or with the word after or before it; None where there is none free."""
    taken = {word for other in example.entities for word in range(other.start, other.end)}
    if entity.end - entity.start > 1:
        start, end = rng.choice([(entity.start + 1, entity.end), (entity.start, entity.end - 1)])
    elif entity.end < len(example.words) and entity.end not in taken:
        start, end = entity.start, entity.end + 1
    elif entity.start > 0 and entity.start - 1 not in taken:
        start, end = entity.start - 1, entity.end
    else:
        return None
    return dataclasses.replace(entity, start=start, end=end)
