"""`python -m scanner_jax.knowledge serve`: experts that stay loaded, and answer in JSON lines; for `Scanner`.

The first line on standard input has the settings: by kind (captions, objects, regions, clip) what the model's
provenance says of its expert, then `device` and `template`. Each further line is a question, answered by one line:

    {"look": [{"image": "/photo.jpg", "texts": ["Ada Okafor"]}]}
        {"look": [{"caption": "...", "objects": [{"box": [...], "label": "...", "score": 0.9, "caption": "..."}],
                   "orders": {"Ada Okafor": [1, 0]}}]}    or in place of an image's answer {"problem": "not an image"}
    {"rank": {"store": "/store", "queries": [["17_06_4705", "Ada Okafor"]]}}
        {"rank": [[1, 0]]}

What cannot be answered gets `{"error": "..."}`. Values are those that the commands would write into a store. A model is
loaded with the first question that needs it. The command ends with its input.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from scanner_jax.images import UnreadableImage, read_image
from scanner_jax.knowledge.captions import BEAMS, MAX_NEW_TOKENS, Captioner, CaptionExpert
from scanner_jax.knowledge.clip import Clip, load_clip
from scanner_jax.knowledge.loading import ModelError, Pretrained, choose_device, choose_precision, find_model
from scanner_jax.knowledge.objects import PRECISION, ObjectExpert
from scanner_jax.knowledge.ranking import BATCH_SIZE, Query, Ranker, best_first, similarities
from scanner_jax.knowledge.regions import BEAMS as REGION_BEAMS
from scanner_jax.knowledge.regions import describe_regions, prepare_regions
from scanner_jax.knowledge.vectors import BoxEncoder
from scanner_jax.knowledge.vinvl.expert import VinvlExpert
from scanner_jax.knowledge.vinvl.serving import is_vinvl, served_expert
from scanner_jax.store import Store, StoreError
from scanner_jax.types import ImageObject

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Regions, or boxes, that go through a model together."""


class Loaded:
    """The experts of one model; each is loaded when it is first needed.

    Args:
        settings: the first line.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def look(self, image: Path, texts: Sequence[str]) -> dict[str, Any]:
        """What the experts say of an image."""
        try:
            picture = read_image(image)
        except UnreadableImage as error:
            return {"problem": str(error)}
        caption = self._caption(picture) if "captions" in self._settings else ""
        objects = self._objects(picture) if "objects" in self._settings else []
        orders = self._orders(picture, objects, texts) if objects and "clip" in self._settings else {}
        return {"caption": caption, "objects": [dataclasses.asdict(item) for item in objects], "orders": orders}

    def rank(self, store: str, queries: Sequence[Sequence[str]]) -> list[list[int] | None]:
        """The orders of a store's objects."""
        ranker = Ranker(self._clip, Store.open(store), template=self._settings["template"], batch_size=BATCH_SIZE)
        return ranker.orders([Query(*query) for query in queries])

    def _caption(self, picture: Image.Image) -> str:
        expert = CaptionExpert(self._captioner("captions", BEAMS), 1)
        (value,) = expert.describe([expert.prepare("", picture)])
        return str(value["text"])

    def _objects(self, picture: Image.Image) -> list[ImageObject]:
        try:
            prepared: Any = self._detector.prepare("", picture)
        except UnreadableImage:  # as in a store, such an image has a caption alone
            return []
        (value,) = self._detector.describe([prepared])
        objects = [ImageObject(tuple(item["box"]), *_rest(item)) for item in value["objects"]]
        if "regions" not in self._settings:
            return objects
        captioner = self._captioner("regions", REGION_BEAMS)
        (texts,) = describe_regions(captioner, [prepare_regions(captioner, picture, [item.box for item in objects])])
        return [dataclasses.replace(item, caption=text) for item, text in zip(objects, texts, strict=True)]

    def _orders(
        self, picture: Image.Image, objects: Sequence[ImageObject], texts: Sequence[str]
    ) -> dict[str, list[int]]:
        encoder = BoxEncoder(self._clip, AT_ONCE)
        (vectors,) = encoder.vectors([encoder.prepare(picture, [item.box for item in objects])])
        stored = vectors.astype(np.float16)  # as the store has them
        encoded = self._clip.encode_texts([self._settings["template"].replace("{}", text) for text in texts])
        return {text: best_first(similarities(stored, own)) for text, own in zip(texts, encoded, strict=True)}

    @functools.cached_property
    def _device(self) -> torch.device:
        return choose_device(self._settings["device"])

    @functools.cached_property
    def _detector(self) -> ObjectExpert | VinvlExpert:
        own = self._settings["objects"]
        precision = choose_precision(own.get("precision", PRECISION), self._device)
        if is_vinvl(own["model"]):
            if "revision" in own:
                logger.warning("objects: %s is VinVL's, not the detector that training saw", own["model"])
            return served_expert(own["model"], own, precision=precision, device=self._device)
        if "weights_sha256" in own:
            logger.warning("objects: %s is not VinVL's detector, which training saw", own["model"])
        return ObjectExpert(_find("objects", own), device=self._device, precision=precision, batch_size=1)

    @functools.cached_property
    def _clip(self) -> Clip:
        own = self._settings["clip"]
        clip = load_clip(
            own["model"], device=self._device, precision=choose_precision(own.get("precision"), self._device)
        )
        if own.get("text_tower") not in (None, clip.text_tower) or own.get("image_tower") not in (
            None,
            clip.image_tower,
        ):
            logger.warning("clip: %s is not the model whose order training saw", own["model"])
        return clip

    @functools.cache  # noqa: B019 (there is one, and it lives as long as the process)
    def _captioner(self, kind: str, beams: int) -> Captioner:
        own = self._settings[kind]
        writing = {
            "prompt": own.get("prompt", ""),
            "max_new_tokens": own.get("max_new_tokens", MAX_NEW_TOKENS),
            "beams": own.get("beams", beams),
        }
        return self._blip2(kind, own["model"], own.get("revision"), own.get("precision")).writing(**writing)

    @functools.cache  # noqa: B019
    def _blip2(self, kind: str, model: str, revision: str | None, precision: str | None) -> Captioner:
        """One model for captions and regions, where it is the same."""
        return Captioner(
            _find(kind, {"model": model, "revision": revision}),
            device=self._device,
            precision=choose_precision(precision, self._device),
            prompt="",
            max_new_tokens=MAX_NEW_TOKENS,
            beams=BEAMS,
            batch_size=AT_ONCE,
        )


def answer(loaded: Loaded, line: str) -> dict[str, Any]:
    """The answer to one question."""
    question = json.loads(line)
    try:
        if "look" in question:
            return {"look": [loaded.look(Path(item["image"]), item["texts"]) for item in question["look"]]}
        return {"rank": loaded.rank(**question["rank"])}
    except (ModelError, StoreError) as error:
        return {"error": str(error)}
    except (RuntimeError, ImportError, OSError) as error:
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"}


def serve(questions: IO[str], answers: IO[str]) -> None:
    """Answer line by line until the questions end."""
    settings = questions.readline()
    if not settings.strip():
        return
    loaded = Loaded(json.loads(settings))
    for line in questions:
        answers.write(json.dumps(answer(loaded, line)) + "\n")
        answers.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; returns the exit status."""
    if arguments:
        print(__doc__)
        return 0 if arguments[0] in ("-h", "--help") else 2
    logging.basicConfig(format="%(message)s")
    # What libraries print must not come between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            serve(sys.stdin, answers)
        except BrokenPipeError:  # who asked has gone
            return 1
    return 0


def _find(kind: str, own: Mapping[str, Any]) -> Pretrained:
    """An expert's files; another version than training saw is used, and said."""
    known = own.get("revision")
    hub = known if known and not str(known).startswith("sha256:") and not Path(own["model"]).is_dir() else None
    if own.get("given") and hub:
        hub = None  # another name than the one that the revision is of
    found = find_model(own["model"], hub)
    if known not in (None, found.revision):
        logger.warning("%s: %s is not the version that training saw (%s)", kind, own["model"], known)
    return found


def _rest(item: Mapping[str, Any]) -> tuple[str, float, str]:
    return str(item["label"]), float(item["score"]), str(item["caption"])
