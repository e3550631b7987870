"""How many sentences a second get their Wikipedia texts, on one core, from an index of made-up pages.

    python benchmarks/wikipedia_lookup.py [--titles 2000000] [--index FILE]

The index is larger than SQLite's page cache, whose default of 2 MB is kept; the operating system may hold the file in
memory. Sentences have 1.6 candidates, drawn uniformly from the titles and from names that are none; kinds of hits,
misses and spellings are mixed as gold mentions of Twitter-2015 are over data/wikipedia/abstracts.jsonl
(docs/knowledge.md has the count). Normal forms are computed and texts returned; nothing is kept from one call to the
next. Look-ups go through `WikipediaIndex.lookup` as the recipe's do, `--batch` sentences a call.

The last line is JSON. `build_pages_per_second` is from titles and texts, without a dump's markup, and with making them
up; `rss_mb` is the peak of the process that looks up.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from scanner_jax.wikipedia import DEFAULT_LOOKUPS, LOOKUPS, Lookup, WikipediaIndex, build

CANDIDATES = 1.6
"""Per sentence: Twitter-2015 has 13,153 gold entities in 8,257 tweets."""

SHARES = {"exact": 0.1721, "normalised": 0.0381, "fulltext": 0.0278, None: 0.7620}
"""How mentions are found; those by full text are misses where it is not asked."""

SPELLINGS: dict[str, tuple[tuple[str, float], ...]] = {
    "normalised": (
        ("#plain", 64.3),
        ("upper", 12.6),
        ("lower", 10.0),
        ("#lower", 6.8),
        ("#upper", 3.4),
        ("#camel", 3.0),
    ),
    "miss": (
        ("plain", 79.4),
        ("upper", 8.7),
        ("#plain", 4.5),
        ("camel", 2.2),
        ("#upper", 2.1),
        ("lower", 2.8),
        ("#camel", 0.3),
    ),
}
"""In percent. The plain ones among normalised hits (5.6: diacritics, punctuation) are counted to those with `#`."""

IN_TEXTS = 0.5
"""The share of misses whose words stand in some text: what full text has to work on. 5,196 of 10,388."""

SYLLABLES = [first + second for first in "bcdfghklmnprstvz" for second in "aeiou"]
NUMBERS = len(SYLLABLES) ** 4
STRIDE = 17_003_217  # shares no factor with NUMBERS, so that every number has a name of its own
ONE_WORD = 7
"""Names in ten that are one word: mentions that are found have 1.3 on average."""

TEXT_CHARACTERS = 500


def name_of(number: int) -> str:
    """The number's made-up name, of one word or two."""
    rest, parts = number * STRIDE % NUMBERS, []
    for _ in range(4):
        rest, digit = divmod(rest, len(SYLLABLES))
        parts.append(SYLLABLES[digit])
    words = ["".join(parts)] if _is_one_word(number) else ["".join(parts[:2]), "".join(parts[2:])]
    if _has_rare_word(number):
        words[1] = "qua" + "".join(parts)
    return " ".join(word.capitalize() for word in words)


def _is_one_word(number: int) -> bool:
    return number % 10 < ONE_WORD


def _has_rare_word(number: int) -> bool:
    """Is its second word in no other name? Such a word alone finds the page by full text."""
    return number % 10 == ONE_WORD


def vocabulary() -> list[str]:
    """The words of texts, 50,000 names that no page has."""
    return [name_of(10 * (NUMBERS // 10 - 1 - number)).lower() for number in range(50_000)]


def pages(titles: int) -> Iterator[tuple[str, str]]:
    """Made-up pages; each text begins with the title."""
    rng = random.Random(1)
    stock = " ".join(rng.choices(vocabulary(), k=1_000_000))
    for number in range(titles):
        title, start = name_of(number), rng.randrange(len(stock) - TEXT_CHARACTERS)
        yield title, f"{title} is {stock[start : start + TEXT_CHARACTERS]}"


def build_index(path: Path, titles: int) -> tuple[float, float]:
    """Build it; the seconds it took, and this process's peak memory in MB."""
    started = time.perf_counter()
    build(pages(titles), path)
    return time.perf_counter() - started, peak_mb()


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kibibytes on Linux


def mentions(titles: int, count: int, *, seed: int) -> tuple[list[str], Counter[str | None]]:
    """Mentions, and how many are to be found in each way."""
    rng, words = random.Random(seed), vocabulary()
    made, expected = [], Counter[str | None]()
    for kind in rng.choices([*SHARES], [*SHARES.values()], k=count):
        spelling = "plain"
        if kind in ("normalised", None):
            spellings = SPELLINGS[kind or "miss"]
            (spelling,) = rng.choices([name for name, _ in spellings], [share for _, share in spellings])
        first, last = (titles, NUMBERS - 500_000) if kind is None else (0, titles)
        if kind is None and rng.random() < IN_TEXTS:
            name = rng.choice(words).capitalize()
        elif kind == "fulltext":
            name = name_of(10 * rng.randrange(last // 10) + ONE_WORD).split()[1]
        else:
            # A hashtag of two words in one case is no hit, as nothing tells where to cut it.
            wanted = {"#camel": False, "#lower": True, "#upper": True, "#plain": True}.get(spelling)
            number = rng.randrange(first, last)
            while wanted is not None and _is_one_word(number) != wanted:
                number = rng.randrange(first, last)
            name = name_of(number)
        made.append(spell(name, spelling))
        expected[kind] += 1
    return made, expected


def spell(name: str, spelling: str) -> str:
    case = spelling.removeprefix("#")
    body = {"upper": name.upper(), "lower": name.lower(), "camel": name.title().replace(" ", "")}.get(case, name)
    return "#" + body if spelling.startswith("#") else body


def measure(
    index: WikipediaIndex, made: list[str], batch: int, lookups: Sequence[Lookup]
) -> tuple[float, Counter[str | None]]:
    """Sentences a second over all mentions, and how they were found."""
    size = round(batch * CANDIDATES)
    found: Counter[str | None] = Counter()
    seconds = 0.0
    for start in range(0, len(made), size):
        chosen = made[start : start + size]
        started = time.perf_counter()
        hits = index.lookup(chosen, lookups=lookups)
        seconds += time.perf_counter() - started
        found.update(hit.how if hit and hit.text else None for hit in hits)
    return len(made) / CANDIDATES / seconds, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=2_000_000)
    parser.add_argument("--sentences", type=int, default=200_000, help="a round; full text takes a tenth")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts; each draws anew")
    parser.add_argument("--batch", type=int, default=8192, help="sentences a call")
    parser.add_argument("--index", type=Path, help="where to keep the index; by default it is deleted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.index or Path(folder) / "index.sqlite"
        # In another process, whose memory is not counted.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            seconds, memory = pool.submit(build_index, path, options.titles).result()
        print(f"built in {seconds:.1f} s, {memory:.0f} MB of memory at most")
        results: dict[str, float] = {}
        with WikipediaIndex.open(path) as index:
            for name, lookups, part in (
                ("sentences_per_second", DEFAULT_LOOKUPS, 1),
                ("fulltext_sentences_per_second", LOOKUPS, 10),
            ):
                rates = []
                for number in range(options.rounds):
                    count = round(options.sentences * CANDIDATES / part)
                    made, expected = mentions(options.titles, count, seed=number)
                    rate, found = measure(index, made, options.batch, lookups)
                    if any(found[how] != expected[how] for how in SHARES if how in lookups):
                        raise SystemExit(f"expected {dict(expected)}, found {dict(found)}")
                    rates.append(rate)
                    shown = ", ".join(f"{how or 'not found'} {found[how]:,}" for how in sorted(found, key=str))
                    print(f"{name}: {rate:,.0f} ({shown})")
                results[name] = round(statistics.median(rates))
        results["index_mb"] = round(path.stat().st_size / 1e6, 1)
    results["rss_mb"] = round(peak_mb(), 1)
    results["build_pages_per_second"] = round(options.titles / seconds)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
