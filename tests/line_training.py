"""A training of a line, in milliseconds a step, with all that the loop offers; a command too, so that it can be killed.

    python -m tests.line_training FOLDER [PLACE NUMBER SIGNAL [EPOCHS]]

sends itself the signal at the NUMBERth arrival at a place: `batch`, `dev`, `checkpoint` (written, not yet whole), or
`saved` (on dev, when the checkpoint before it is whole). With PROCESSES="PORT COUNT INDEX" in its environment it is one
of several processes, whose devices share the batches.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from scanner_jax import checkpoint
from scanner_jax.beginning import TrainingSettings
from scanner_jax.files import CHECKSUMS
from scanner_jax.interrupt import Interrupted
from scanner_jax.loop import train
from scanner_jax.optim import OptimizerSettings
from scanner_jax.placement import ONE_DEVICE
from scanner_jax.placement import place as lay_mesh
from scanner_jax.processes import join

SETTINGS = TrainingSettings(
    optimizer=OptimizerSettings(learning_rate=0.1, awp_gamma=0.01),
    epochs=3,
    batch_size=4,
    checkpoint_every=3,
    log_every=2,
)


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float
    length: int = 1


POINTS = [Point(x=index / 10, y=0.3 * index - 1) for index in range(18)]


def collate(points, *, batch_size):
    rows = np.zeros((batch_size, 3), np.float32)
    rows[: len(points)] = [(point.x, point.y, 1) for point in points]
    return {"x": rows[:, 0], "y": rows[:, 1], "mask": rows[:, 2]}


def loss_fn(params, batch, rng):
    noise = jax.random.normal(rng, batch["x"].shape)  # stands for dropout
    error = params["kernel"][0, 0] * (batch["x"] + 0.01 * noise) + params["bias"][0] - batch["y"]
    return (batch["mask"] * error**2).sum() / batch["mask"].sum()


def closeness(params):
    """A score that is best after the second of three epochs: nearest to a slope that is passed there."""
    return {"score": -abs(float(params["kernel"][0, 0]) - 1.5)}


def start():
    return {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}


def run(
    folder,
    *,
    evaluate=None,
    loss=loss_fn,
    settings=SETTINGS,
    points=POINTS,
    collate=collate,
    ahead=(),
    placement=ONE_DEVICE,
    watch=None,
):
    folder.mkdir(parents=True, exist_ok=True)
    return train(
        name="line",
        params=start(),
        loss_fn=loss,
        features=points,
        collate=collate,
        settings=settings,
        evaluate=evaluate,
        seed=7,
        folder=folder,
        ahead=ahead,
        placement=placement,
        watch=watch,
    )


def signalling(
    function: Callable, number: int, sent: signal.Signals, *, then: float = 0, after: Path | None = None
) -> Callable:
    """The function, which at its call of this number sends the process a signal first and then takes its time."""
    calls = []

    def wrapped(*arguments, **options):
        calls.append(arguments)
        if len(calls) == number:
            while after and not after.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), sent)
            time.sleep(then)
        return function(*arguments, **options)

    return wrapped


def main(folder: str, place: str = "", number: str = "0", sent: str = "SIGKILL", epochs: str = "3") -> None:
    asked = {"number": int(number), "sent": signal.Signals[sent]}
    points = {"evaluate": closeness, "collate": collate}
    if own := os.environ.get("PROCESSES"):
        port, count, index = own.split()
        join(coordinator=f"127.0.0.1:{port}", count=int(count), index=int(index))
        points["placement"] = lay_mesh(data=-1, fsdp=1)
    if place == "dev":
        points["evaluate"] = signalling(closeness, **asked, then=60)
    elif place == "saved":
        last = Path(folder) / "checkpoints" / str(5 * int(number)) / CHECKSUMS
        points["evaluate"] = signalling(closeness, **asked, after=last)
    elif place == "batch":
        points["collate"] = signalling(collate, **asked)
    elif place == "checkpoint":
        checkpoint.write_checksums = signalling(checkpoint.write_checksums, **asked)
    try:
        run(Path(folder), settings=dataclasses.replace(SETTINGS, epochs=int(epochs)), **points)
    except Interrupted as error:
        print(error.saved)
        sys.exit(error.exit_code)
    except Exception:
        traceback.print_exc()
        os._exit(1)  # as the train command does, without waiting for other processes


if __name__ == "__main__":
    main(*sys.argv[1:])
