"""Run an expert over images, resumably and in shards; `shards.merge` makes a kind of the knowledge store of them.

No torch here: what an expert computes is its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import rich.console
from PIL import Image

from scanner_jax import __version__
from scanner_jax.images import UnreadableImage, read_image
from scanner_jax.knowledge.ledger import Ledger, differences, open_ledger
from scanner_jax.knowledge.shards import Shard, begun, refuse_other_counts
from scanner_jax.store.layout import StoreError, Value, read_provenance
from scanner_jax.throughput import Throughput

PACKAGES = ("torch", "torchvision", "transformers", "open_clip_torch", "tokenizers", "pillow")
"""Whose versions are noted beside this package's."""

NO_IMAGE = "no such image in the folder"


class Expert(Protocol):
    """A loaded model, ready to describe images.

    Attributes:
        batch_size: units that it takes at once; a unit is an image, or a region of one.
        ahead: images that may be prepared before they are needed; each holds memory.
    """

    batch_size: int
    ahead: int

    def prepare(self, key: str, image: Image.Image) -> Any:
        """Make an image the model's input, in one of several threads.

        Raises:
            UnreadableImage: it can't be; with the reason.
        """

    def units(self, prepared: Any) -> int:
        """How many units an image is."""

    def describe(self, prepared: Sequence[Any]) -> Sequence[Value]:
        """A value of the store for each image, as the same image alone gives it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is to be extracted.

    Attributes:
        kind: of the store.
        settings: what the values depend on besides the images, JSON: expert, model, revision, precision, ...; they
            become the kind's provenance.
        images: image id -> file, of all shards; None where there is none, which is a failure.
        load: makes the expert; called only if there is something to do.
    """

    kind: str
    settings: Mapping[str, Any]
    images: Mapping[str, Path | None]
    load: Callable[[], Expert]

    def all_settings(self) -> dict[str, Any]:
        """The settings, and which images."""
        ids = hashlib.sha256("\n".join(sorted(self.images)).encode()).hexdigest()
        return {**self.settings, "images": len(self.images), "image_ids": ids}


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What became of some images: values, reasons of failures, and the versions of the packages that took part."""

    done: Sequence[tuple[str, Value]]
    failed: Sequence[tuple[str, str]]
    versions: Mapping[str, str]


Describe = Callable[[Job, Mapping[str, Path | None], int], Generator[Batch, None, None]]
"""Describes images of a job with so many threads to read them, in whatever order and batches."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a shard.

    Attributes:
        done: images with a value, in all.
        failures: image and reason, in all.
        before: how many of both an earlier run had.
        seconds: that this run took over the others, the loading of the model left out.
    """

    done: int
    failures: tuple[tuple[str, str], ...]
    before: int
    seconds: float


def extract(
    store: Path,
    job: Job,
    shard: Shard,
    *,
    restart: bool = False,
    threads: int | None = None,
    describe: Describe | None = None,
    console: rich.console.Console | None = None,
) -> Outcome:
    """Describe the shard's images, going on where an earlier run was stopped; `merge` then makes them a kind.

    A batch is kept whole or not at all, so that a kill loses the batch in work, and nothing comes twice.

    Args:
        store: the store's folder; made if missing.
        job: what to extract.
        shard: which images of it.
        restart: drop what an earlier run did.
        threads: that read and prepare images; by default one for each core, 8 at most.
        describe: who does the work; by default `described`, this process.
        console: where progress goes; standard error.

    Raises:
        ExtractionError: another process has this shard, or it was begun with other settings.
    """
    console = console or rich.console.Console(stderr=True)
    refuse_other_counts(store, job.kind, shard)
    advice = "go on with those, or begin anew: the same command with --restart"
    with open_ledger(shard.folder(store, job.kind), restart=restart) as ledger:
        ledger.begin(job.all_settings(), advice=advice)
        known = ledger.keys()
        todo = {key: path for key, path in job.images.items() if shard.holds(key) and key not in known}
        seconds = 0.0
        if todo:
            name = job.kind if shard.count == 1 else f"{job.kind} {shard}"
            work = (describe or described)(job, todo, threads or min(8, len(os.sched_getaffinity(0))))
            with Throughput(name, "images", len(known) + len(todo), console, start=len(known)) as progress:
                _keep(work, ledger, progress, start=len(known))
                seconds = progress.seconds
        ledger.finish()
        return Outcome(ledger.count(), tuple(ledger.failures()), len(known), seconds)


def _keep(batches: Generator[Batch, None, None], ledger: Ledger, progress: Throughput, *, start: int) -> None:
    done = failed = 0
    with contextlib.closing(batches):
        for batch in batches:
            ledger.add(batch.done, batch.failed, batch.versions)
            done, failed = done + len(batch.done) + len(batch.failed), failed + len(batch.failed)
            progress.at(start + done, done, f", {failed:,} failed" if failed else "")


def described(job: Job, images: Mapping[str, Path | None], threads: int) -> Generator[Batch, None, None]:
    """Load a job's expert, and describe images with it in this process."""
    return described_by(job.load(), images, threads)


def described_by(expert: Expert, images: Mapping[str, Path | None], threads: int) -> Generator[Batch, None, None]:
    """Describe images with a loaded expert, as many at once as it takes; others are read meanwhile."""
    versions = package_versions()
    batch: list[tuple[str, Any]] = []
    failed: list[tuple[str, str]] = []
    units = 0

    def made() -> Batch:
        values = expert.describe([prepared for _, prepared in batch]) if batch else []
        return Batch(list(zip((key for key, _ in batch), values, strict=True)), failed, versions)

    with contextlib.closing(_prepared(expert, images, threads)) as stream:
        for key, prepared in stream:
            if isinstance(prepared, UnreadableImage):
                failed.append((key, str(prepared)))
            else:
                batch.append((key, prepared))
                units += max(1, expert.units(prepared))
            if units >= expert.batch_size:
                yield made()
                batch, failed, units = [], [], 0
        yield made()


def _prepared(expert: Expert, todo: Mapping[str, Path | None], threads: int) -> Generator[tuple[str, Any], None, None]:
    """Read and prepare images in threads, in their order and not too far ahead; failures are yielded."""

    def work(key: str, path: Path | None) -> Any:
        try:
            if path is None:
                raise UnreadableImage(NO_IMAGE)
            return expert.prepare(key, read_image(path))
        except UnreadableImage as error:
            return error

    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool, warnings.catch_warnings():
        # Pillow warns of sizes that are refused just after.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        waiting: deque[tuple[str, Future[Any]]] = deque()
        try:
            for key, path in todo.items():
                waiting.append((key, pool.submit(work, key, path)))
                if len(waiting) > expert.ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def package_versions() -> dict[str, str]:
    """The versions of what takes part and is installed."""
    found = {"scanner_jax": __version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def is_made(store: Path, job: Job) -> bool:
    """Does the store have the kind from this very job, with nothing begun since?"""
    if begun(store, job.kind):
        return False
    try:
        provenance = read_provenance(store / job.kind)
    except (OSError, StoreError):
        return False
    wanted = job.all_settings()
    return not differences({name: provenance.get(name) for name in wanted}, wanted)
