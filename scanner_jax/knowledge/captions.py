"""`python -m scanner_jax.knowledge captions IMAGES STORE`: BLIP-2's caption of every image (paper, section 3.2.1)."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image

from scanner_jax.images import find_images
from scanner_jax.knowledge.command import count, expert_parser, in_words, run_job
from scanner_jax.knowledge.extraction import Job
from scanner_jax.knowledge.loading import (
    PRECISIONS,
    BatchRunner,
    ModelError,
    Pretrained,
    choose_device,
    choose_precision,
    find_model,
    import_transformers,
    load,
    reading,
)
from scanner_jax.store.importers import cut_repetition
from scanner_jax.store.layout import Value

MODEL = "Salesforce/blip2-opt-2.7b"
"""**Assumption:** the paper says BLIP-2 and not which; this is its smallest with weights for captions alone."""

MAX_NEW_TOKENS = 30
BEAMS = 5
"""Both as BLIP-2's own code generates captions; **assumption:** so did the paper."""

Pixels = Float[torch.Tensor, "3 height width"]


class Captioner:
    """BLIP-2, which writes a text for images or regions of images."""

    def __init__(
        self,
        model: Pretrained,
        *,
        device: torch.device,
        precision: str,
        prompt: str,
        max_new_tokens: int,
        beams: int,
        batch_size: int,
    ) -> None:
        transformers = import_transformers()
        with reading(model):
            processor = transformers.Blip2Processor.from_pretrained(model.folder, local_files_only=True)
        self._model = load(transformers.Blip2ForConditionalGeneration, model, device=device, precision=precision)
        if self._model.config.image_token_id is None:
            raise ModelError(f"--model {model.folder}: its config.json has no image_token_index; take a newer revision")
        self._image_processor, self._tokenizer = processor.image_processor, processor.tokenizer
        self._device, self._dtype = device, PRECISIONS[precision]
        self._batch_size = batch_size
        self._write_so(prompt, max_new_tokens, beams)

    def writing(self, *, prompt: str, max_new_tokens: int, beams: int) -> Captioner:
        """The same model, which writes otherwise."""
        other = copy.copy(self)
        other._write_so(prompt, max_new_tokens, beams)
        return other

    def _write_so(self, prompt: str, max_new_tokens: int, beams: int) -> None:
        config = self._model.config
        tokens = [config.image_token_id] * config.num_query_tokens + self._tokenizer(prompt)["input_ids"]
        self._tokens = torch.tensor([tokens], device=self._device)
        self._generation = {"max_new_tokens": max_new_tokens, "num_beams": beams, "do_sample": False}
        self._runner = BatchRunner(self._generate, self._batch_size)

    def pixels(self, image: Image.Image) -> Pixels:
        """An image as the model's input; threads may call it."""
        found: Pixels = self._image_processor(image, return_tensors="pt")["pixel_values"][0]
        return found

    def describe(self, pixels: Sequence[Pixels]) -> list[str]:
        """A text for each input; repetition, in which captioners at a loss end, is cut."""
        return self._runner(pixels)

    def _generate(self, pixels: Sequence[Pixels]) -> list[str]:
        tokens = self._tokens.repeat(len(pixels), 1)
        written = self._model.generate(
            pixel_values=torch.stack(list(pixels)).to(self._device, self._dtype),
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            **self._generation,
        )
        if not self._model.language_model.config.is_encoder_decoder:
            written = written[:, tokens.shape[1] :]  # behind the prompt
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return [cut_repetition(text.strip()) for text in texts]


class CaptionExpert:
    """Captions of whole images, for `extraction.extract`."""

    def __init__(self, captioner: Captioner, batch_size: int) -> None:
        self.batch_size = self.ahead = batch_size
        self._captioner = captioner

    def prepare(self, key: str, image: Image.Image) -> Pixels:
        return self._captioner.pixels(image)

    def units(self, prepared: Any) -> int:
        return 1

    def describe(self, prepared: Sequence[Pixels]) -> list[Value]:
        return [{"text": text} for text in self._captioner.describe(prepared)]


def add_generation(parser: argparse.ArgumentParser, *, beams: int) -> None:
    """The options of writing texts."""
    parser.add_argument("--prompt", default="", help="what the text goes on from: 'a photo of'; by default none")
    parser.add_argument(
        "--max-new-tokens", type=count, default=MAX_NEW_TOKENS, metavar="N", help="longest text (%(default)s)"
    )
    parser.add_argument("--beams", type=count, default=beams, metavar="N", help="of beam search (%(default)s)")


def captioning(options: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], Captioner]]:
    """The settings that texts depend on, and what loads the model."""
    model = find_model(options.model, options.revision)
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    generation = {"prompt": options.prompt, "max_new_tokens": options.max_new_tokens, "beams": options.beams}
    settings = {"expert": "BLIP-2", "model": model.name, "revision": model.revision, "precision": precision}

    def loaded() -> Captioner:
        return Captioner(model, device=device, precision=precision, batch_size=options.batch_size, **generation)

    return {**settings, **generation}, loaded


def main(arguments: Sequence[str] | None = None) -> int:
    """Caption; returns the exit status."""
    parser = expert_parser(
        "captions",
        what="Write BLIP-2's caption of every image into the store.",
        example="images/twitter2015 prepared/knowledge/twitter2015",
        model=MODEL,
        batch_size=16,
    )
    add_generation(parser, beams=BEAMS)
    options = parser.parse_args(arguments)

    def command() -> int:
        images = find_images(options.images)
        settings, loaded = captioning(options)
        job = Job("captions", settings, images, lambda: CaptionExpert(loaded(), options.batch_size))
        return run_job(job, options)

    return in_words(command)
