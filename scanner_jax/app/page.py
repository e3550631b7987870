"""The page in Gradio: what it shows, and which function a press of its button calls."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from scanner_jax.app.answering import LONGEST_TEXT, Desk
from scanner_jax.app.rendering import render, render_head

QUEUE = 100
"""Questions that may wait; a further one is told that the queue is full."""

KEPT_SECONDS = 3600
"""How long an uploaded picture is kept."""


def make_page(desk: Desk, examples: Sequence[tuple[str, str | None]], *, name: str) -> gr.Blocks:
    """Lay out the page.

    Args:
        desk: answers.
        examples: a sentence and the file of its picture each, to click on.
        name: the model's.
    """
    labels = desk.scanner.labels

    def find(text: str | None, picture: str | None) -> str:
        return render(desk.answer(text, Path(picture) if picture else None), labels)

    with gr.Blocks(
        title=f"{name}: scanner_jax", analytics_enabled=False, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS)
    ) as page:
        gr.HTML(render_head(labels, desk.scanner.kinds, name), js_on_load=None, apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                sentence = gr.Textbox(
                    label="Sentence",
                    lines=3,
                    max_lines=10,
                    max_length=LONGEST_TEXT,
                    placeholder="Write one, or click an example",
                    autofocus=True,
                )
                picture = gr.Image(
                    label="Picture (optional)",
                    elem_id="picture",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    buttons=[],
                    height=240,
                )
                button = gr.Button("Find entities", variant="primary")
            with gr.Column(scale=3, min_width=300):
                answer = gr.HTML(elem_id="answer", js_on_load=None, apply_default_css=False, min_height=160)
        _take_files_as_they_are(picture)
        question, one = [sentence, picture], {"concurrency_limit": 1, "concurrency_id": "model"}
        gr.on([button.click, sentence.submit], find, question, answer, api_name="find", **one)
        if examples:
            filled = _shown(examples, sentence, picture)
            filled.then(find, question, answer, api_visibility="private", scroll_to_output=True, **one)
        for block in page.blocks.values():
            if isinstance(block, gr.components.Component):
                _take_uploads_only(block)
    page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
    return page


def _shown(examples: Sequence[tuple[str, str | None]], sentence: gr.Textbox, picture: gr.Image) -> Dependency:
    """Show examples; returns the event that a click on one has filled the inputs."""
    with_pictures = any(file for _, file in examples)
    shown = gr.Examples(
        [[text, file] if with_pictures else [text] for text, file in examples],
        [sentence, picture] if with_pictures else [sentence],
        label="Examples",
        cache_examples=False,
        examples_per_page=len(examples),
        api_visibility="private",
    )
    filled: Dependency = shown.load_input_event
    return filled


def _take_files_as_they_are(picture: gr.Image) -> None:
    """Leave it to `images.read_image` to open a picture: Gradio would with any of Pillow's decoders, and unbounded."""

    def path(self: gr.Image, payload: Any) -> str | None:
        if payload is not None and not payload.path:
            raise gr.Error("a picture is uploaded as a file")
        return None if payload is None else str(payload.path)

    _replace(picture, preprocess=path)


def _take_uploads_only(component: gr.components.Component) -> None:
    """Refuse addresses in a file's place, which Gradio would fetch, and files that are none of the page's.

    A page that runs in an application of its own, as this one does, is not checked for the latter by Gradio.
    """
    take = type(component).async_move_resource_to_block_cache

    async def take_upload(self: gr.components.Component, place: str | Path | None) -> str | None:
        if place is not None and not Path(place).resolve().is_relative_to(Path(self.GRADIO_CACHE).resolve()):
            raise gr.Error("a picture is uploaded: other files are not read, and addresses not fetched")
        taken: str | None = await take(self, place)
        return taken

    _replace(component, async_move_resource_to_block_cache=take_upload)


def _replace(component: gr.components.Component, **methods: Callable[..., Any]) -> None:
    """Replace methods for good: a click on an example has Gradio make the inputs again, of their class.

    The class is made without Gradio's metaclass having a say, which writes a stub file beside the source of each.
    """
    kind = type(component)
    own = {"__module__": kind.__module__, **methods}
    component.__class__ = ABCMeta.__new__(type(kind), kind.__name__, (kind,), own)
