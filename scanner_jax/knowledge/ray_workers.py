"""Extraction on Ray: the driver keeps what its workers describe, in the same progress file as a plain command.

Each worker loads the expert once. A worker that dies is started again by Ray, and so is the task it had: what was kept
stays, and at most that task's images are described twice.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
from collections.abc import Generator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgpack

from scanner_jax.knowledge.extraction import Batch, Describe, Expert, Job, described_by
from scanner_jax.knowledge.ledger import ExtractionError

INSTALL = 'pip install "scanner_jax[ray]"'

SETTINGS = {"log_to_driver": False, "logging_level": logging.WARNING}
"""What workers print stays in Ray's logs."""


def on_ray(*, workers: int, task_images: int, gpus: int) -> Describe:
    """Make what describes images on Ray workers: of the cluster that RAY_ADDRESS names, or else of this machine.

    Images, store, model and the working folder need the same paths on all machines.

    Args:
        workers: how many load the expert.
        task_images: images that a worker is given at a time, and that may be described twice where it dies.
        gpus: that each worker has to itself.

    Raises:
        ExtractionError: Ray is not installed, or the cluster has not that many workers' room.
    """
    ray = _import_ray()

    def describe(job: Job, images: Mapping[str, Path | None], threads: int) -> Generator[Batch, None, None]:
        with _joined(ray, workers, gpus):
            load = ray.cloudpickle.dumps(job.load)
            tasks = ray.data.from_items(
                [{"task": task} for task in _tasks(images, task_images)],
                override_num_blocks=-(-len(images) // task_images),  # one a block, which is what Ray does again
            )
            described = tasks.map_batches(
                _Worker,
                batch_size=1,
                fn_constructor_args=(load, str(Path.cwd()), threads),
                compute=ray.data.ActorPoolStrategy(size=workers),
                num_cpus=0 if gpus else 1,
                num_gpus=gpus,
            )
            for rows in described.iter_batches(batch_size=None, prefetch_batches=0):
                for packed in rows["found"]:
                    found = msgpack.unpackb(packed)
                    if "problem" in found:
                        raise ExtractionError(f"a Ray worker says: {found['problem']}")
                    yield from (Batch(*batch) for batch in found["batches"])

    return describe


class _Worker:
    """A worker of Ray Data's: the expert, loaded once, and what it makes of a task, or what is wrong in words."""

    def __init__(self, load: bytes, folder: str, threads: int) -> None:
        self._threads = threads
        self._expert: Expert | None = None
        try:
            os.chdir(folder)  # the driver's paths may be relative to its own
            self._expert = importlib.import_module("ray.cloudpickle").loads(load)()
        except (ValueError, OSError) as error:
            self._problem = str(error)

    def __call__(self, tasks: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
        return {"found": [msgpack.packb(self._found(task)) for task in tasks["task"]]}

    def _found(self, task: bytes) -> dict[str, Any]:
        if self._expert is None:
            return {"problem": self._problem}
        images = {key: path and Path(os.fsdecode(path)) for key, path in msgpack.unpackb(task)}
        try:
            batches = list(described_by(self._expert, images, self._threads))
        except (ValueError, OSError) as error:
            return {"problem": str(error)}
        return {"batches": [(batch.done, batch.failed, batch.versions) for batch in batches]}


def _tasks(images: Mapping[str, Path | None], size: int) -> Generator[bytes, None, None]:
    """Image ids and files, `size` of them at a time."""
    rest = iter(images.items())
    while task := list(islice(rest, size)):
        yield msgpack.packb([(key, path and os.fsencode(path)) for key, path in task])


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise ExtractionError(f"--ray-workers needs Ray: {INSTALL} ({error})") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    return ray


@contextlib.contextmanager
def _joined(ray: Any, workers: int, gpus: int) -> Generator[None, None, None]:
    """Be part of the cluster that RAY_ADDRESS names, or else start a Ray for this command alone on this machine."""
    if ray.is_initialized():
        yield
        return
    address, handler = os.environ.get("RAY_ADDRESS"), signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, **SETTINGS)
        else:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, **SETTINGS)
    except ConnectionError as error:
        raise ExtractionError(f"RAY_ADDRESS={address}: no Ray answers there ({error})") from error
    try:
        signal.signal(signal.SIGTERM, handler)  # Ray has put one of its own in its place
        unit, needed = ("GPU", workers * gpus) if gpus else ("CPU", workers)
        has = ray.cluster_resources().get(unit, 0)
        if has < needed:
            raise ExtractionError(f"--ray-workers {workers} need {needed} {unit}s, and this Ray has {has:g}")
        yield
    finally:
        ray.shutdown()
