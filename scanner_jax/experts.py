"""The experts that look at pictures: one long-lived process, `python -m scanner_jax.knowledge serve`.

They are torch's models, which share no process with JAX. The two exchange JSON lines: a line of settings first, then an
answer for each question. The process starts with the first question and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scanner_jax.types import ImageObject

KINDS = ("captions", "objects", "regions", "clip")
"""What experts say, by the store's names for it."""

_SUGGESTED = {
    "captions": "Salesforce/blip2-opt-2.7b",
    "objects": "ustc-community/dfine-xlarge-obj365",
    "regions": "Salesforce/blip2-opt-2.7b",
    "clip": "ViT-L-14:openai",
}

VINVL = ("vinvl_vg_x152c4.pth", "VG-SGG-dicts-vgoi6-clipped.json")
"""The files of VinVL's detector, as its authors call them: weights and label map."""


class ExpertsError(RuntimeError):
    """Pictures cannot be looked at; the message says why, and what to install or pass."""


class Look(NamedTuple):
    """A question: what is in an image, and in which order do its objects fit each text."""

    image: Path
    texts: Sequence[str]


class Seen(NamedTuple):
    """The answer.

    Attributes:
        caption: empty where no expert writes captions.
        objects: in the detector's order.
        orders: by text, the objects' places, the best first; empty where no expert puts them in order.
        problem: why the image could not be read; empty where it could.
    """

    caption: str = ""
    objects: tuple[ImageObject, ...] = ()
    orders: Mapping[str, Sequence[int]] = {}
    problem: str = ""


class Experts:
    """The experts of a model, asked in their own process.

    Args:
        description: the model's, the content of its scanner.json.
        models: by kind, a folder or name in place of what the model names.
        device: as torch names it; by default a GPU where there is one.

    Raises:
        ValueError: a kind in `models` that there is not.
    """

    def __init__(self, description: Mapping[str, Any], *, models: Mapping[str, str], device: str | None = None) -> None:
        if unknown := sorted(set(models) - set(KINDS)):
            raise ValueError(f"experts: {', '.join(unknown)}: no such kind; there are {', '.join(KINDS)}")
        knowledge, made = description["knowledge"], description["experts"]
        wanted = {
            "captions": knowledge["captions"],
            "objects": knowledge["objects"],
            "regions": knowledge["objects"] and ("regions" in made or "regions" in models),
            "clip": knowledge["clip_order"],
        }
        self._settings: dict[str, Any] = {"device": device, "template": knowledge["clip_template"]}
        self.missing: list[str] = []
        for kind in (kind for kind in KINDS if wanted[kind]):
            own = made.get(kind, {})
            if kind in models:
                self._settings[kind] = {**own, "model": models[kind], "given": True}
            elif "model" in own and not _is_local(own):
                self._settings[kind] = {**own, "given": False}
            else:
                self.missing.append(_unknown(kind, own))
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._refusals: dict[str, str] = {}

    def look(self, looks: Sequence[Look]) -> list[Seen]:
        """Look at pictures.

        Raises:
            ExpertsError: there are no experts, a model cannot be loaded, or their process ended.
        """
        if not {"captions", "objects"} & set(self._settings):
            raise ExpertsError("; ".join(self.missing) or "this model was trained without captions and objects")
        asked = [{"image": str(look.image.absolute()), "texts": list(dict.fromkeys(look.texts))} for look in looks]
        return [_seen(answer) for answer in self._ask("look", asked)]

    def rank(self, store: Path, queries: Sequence[tuple[str, str]]) -> list[Sequence[int] | None]:
        """The order of a store's objects for each image and text, None for an image without vectors.

        Raises:
            ExpertsError: there is no CLIP, it cannot be loaded, or is not the one that made the store's vectors.
        """
        if "clip" not in self._settings:
            raise ExpertsError("; ".join(self.missing))
        found: list[Sequence[int] | None] = self._ask("rank", {"store": str(store.absolute()), "queries": queries})
        return found

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the interpreter's end, what it takes may be gone
            self._end()

    def _ask(self, what: str, question: Any) -> Any:
        with self._lock:
            if what in self._refusals:
                raise ExpertsError(self._refusals[what])
            try:
                process = self._started()
                answer = _exchange(process, {what: question})
            except (OSError, ValueError) as error:  # a broken pipe, or half a line
                self._end()
                raise ExpertsError("the experts' process ended; the reason stands above, on standard error") from error
            if "error" in answer:
                self._refusals[what] = answer["error"]  # it would not be better the next time
                raise ExpertsError(answer["error"])
            return answer[what]

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scanner_jax.knowledge", "serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for this process, which then ends the other
            )
            _write(self._process, self._settings)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _exchange(process: subprocess.Popen[str], question: Mapping[str, Any]) -> dict[str, Any]:
    _write(process, question)
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def _write(process: subprocess.Popen[str], value: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(value) + "\n")
    process.stdin.flush()


def _seen(answer: Mapping[str, Any]) -> Seen:
    if "problem" in answer:
        return Seen(problem=answer["problem"])
    objects = tuple(
        ImageObject(tuple(item["box"]), item["label"], item["score"], item["caption"]) for item in answer["objects"]
    )
    return Seen(answer["caption"], objects, answer["orders"])


def _is_local(made: Mapping[str, Any]) -> bool:
    """Whether training's model was a folder, or VinVL's two files."""
    return "weights_sha256" in made or str(made.get("revision", "")).startswith("sha256:")


def _unknown(kind: str, made: Mapping[str, Any]) -> str:
    """Why an expert cannot be had by name, and what to pass."""
    vinvl = made.get("importer") == "vinvl"
    suggested = f"a folder with {' and '.join(VINVL)}" if vinvl or "weights_sha256" in made else _SUGGESTED[kind]
    if vinvl:
        source = "VinVL's features, imported"
    elif "weights_sha256" in made:
        source = f"VinVL's detector, {made['model']} (sha256:{made['weights_sha256']})"
    elif "model" in made:
        source = f"a local model, {made['model']} ({made['revision']})"
    else:
        source = made.get("label") or made.get("importer") or "a source that is not noted"
    return (
        f"what this model knows of {kind} came from {source}, which cannot be had by name; "
        f'pass experts={{"{kind}": MODEL}} (--expert {kind}=MODEL), for instance {suggested}'
    )
