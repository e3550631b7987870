"""`gradcam IMAGE SPAN OUT.png`: where in an image CLIP looks for a span, with the objects' boxes (paper, Figure 7).

Grad-CAM (Selvaraju et al., 2017) as is usual for CLIP's vision transformers. The maps of activations are those that
enter the last block's attention: the gradient at its output would be zero, since only the class token is read there.
Own code, as the `grad-cam` package would bring OpenCV, scikit-learn and Matplotlib for these few lines.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from scanner_jax.files import write_bytes
from scanner_jax.images import UnreadableImage, read_image
from scanner_jax.knowledge.clip import MODEL, Clip, add_template_option, load_clip, made_by
from scanner_jax.knowledge.command import PROGRAM, count, in_words
from scanner_jax.knowledge.loading import ModelError, choose_device, choose_precision
from scanner_jax.knowledge.printing import printable
from scanner_jax.knowledge.ranking import best_first, check_text_tower, similarities
from scanner_jax.knowledge.vectors import BoxEncoder
from scanner_jax.store import Store
from scanner_jax.types import Box, ImageObject

LONGEST_SIDE = 1600
"""Pixels; the picture of a larger image is made smaller."""

HEAT = ((0, 0, 0, 160), (0.35, 0, 180, 220), (0.65, 250, 220, 0), (1, 220, 0, 0))
"""Colours of relevance from 0 to 1: value, red, green, blue."""

EPILOG = f"""examples:
  {PROGRAM} gradcam images/17_06_4705.jpg "Steve Kerr" kerr.png --store prepared/knowledge/twitter2015
  {PROGRAM} gradcam photo.jpg "the dog" dog.png --box 10,20,200,180 --box 220,40,300,190

Red is where CLIP looks for the span. Boxes are numbered by CLIP's similarity to it, as in the recipe's phase `rank`."""


def relevance(clip: Clip, image: Image.Image, text: str) -> Float[np.ndarray, "rows columns"]:
    """Grad-CAM of the similarity of image and text: a value from 0 to 1 for each of the model's patches.

    Each channel weighs as much as its gradient on average over the patches; what speaks against the text counts 0, and
    the rest is stretched from 0 to 1. The image is squashed to the model's square, where the model's own preprocessing
    would cut its edges off.

    Raises:
        ModelError: the image tower is no vision transformer of open_clip's.
    """
    activations, gradients = last_block(clip, image, text)
    map_ = np.maximum(activations @ gradients.mean(axis=(0, 1)), 0)
    map_ -= map_.min()
    highest = map_.max()
    return map_ / highest if highest > 0 else map_


def last_block(
    clip: Clip, image: Image.Image, text: str
) -> tuple[Float[np.ndarray, "rows columns d"], Float[np.ndarray, "rows columns d"]]:
    """What enters the last block's attention at each patch, and the gradient of the similarity with respect to it."""
    visual = clip.model.visual
    try:
        norm, (rows, columns) = visual.transformer.resblocks[-1].ln_1, visual.grid_size
    except AttributeError:
        raise ModelError(
            f"--model {clip.name}: its image tower is a {type(visual).__name__}; Grad-CAM reads open_clip's "
            f"VisionTransformer, as in {MODEL}"
        ) from None
    target = torch.from_numpy(clip.encode_texts([text])[0]).to(clip.device)
    kept: list[torch.Tensor] = []

    def keep(module: Any, arguments: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = norm.register_forward_hook(keep)
    try:
        # The weights are frozen, so that the graph has to begin here.
        pixels = clip.whole(image)[None].to(clip.device).requires_grad_()
        with torch.enable_grad(), clip.autocast():
            vector = clip.model.encode_image(pixels)
        torch.nn.functional.cosine_similarity(vector.float(), target[None]).sum().backward()
    finally:
        hook.remove()
    (activations,) = kept
    patches = slice(activations.shape[1] - rows * columns, None)  # behind the class token
    assert activations.grad is not None
    found = (tensor[0, patches].detach().float().cpu().numpy() for tensor in (activations, activations.grad))
    first, second = (array.reshape(rows, columns, -1) for array in found)
    return first, second


def overlay(image: Image.Image, heat: Float[np.ndarray, "rows columns"]) -> Image.Image:
    """Lay the colours of `heat`, stretched over the whole image, over it: the more relevant, the less shows through."""
    stretched = Image.fromarray(heat.astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC)
    values = np.asarray(stretched).clip(0, 1)
    places, *channels = np.array(HEAT).T
    colours = np.stack([np.interp(values, places, channel) for channel in channels], axis=-1)
    share = (0.25 + 0.45 * values)[..., None]
    mixed = (1 - share) * np.asarray(image) + share * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def draw(
    image: Image.Image, heat: Float[np.ndarray, "rows columns"], objects: Sequence[ImageObject], order: Sequence[int]
) -> Image.Image:
    """Draw heat and the objects that `order` names, numbered from 1, the first in green; large images smaller."""
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    picture = overlay(image.resize([max(1, round(scale * side)) for side in image.size]), heat)
    pen = ImageDraw.Draw(picture)
    width = max(2, round(min(picture.size) / 200))
    font = ImageFont.load_default(size=max(11, min(picture.size) / 28))
    for number in range(len(order), 0, -1):  # the first on top
        item = objects[order[number - 1]]
        x1, y1, x2, y2 = (scale * side for side in item.box)
        colour = (80, 255, 80) if number == 1 else (255, 255, 255)
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)
        label, corner = f"{number} {printable(item.label)}".strip(), (max(0, x1 + width), max(0, y1 + width))
        pen.rectangle(pen.textbbox(corner, label, font=font), fill=(0, 0, 0))
        pen.text(corner, label, fill=colour, font=font)
    return picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} gradcam",
        description="Draw where in an image CLIP looks for a span, with the objects' boxes (paper, Figure 7).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="an image's file")
    parser.add_argument("span", metavar="SPAN", help='such as "Steve Kerr"')
    parser.add_argument("out", type=Path, metavar="OUT.png", help="the picture to write, a PNG")
    boxes = parser.add_mutually_exclusive_group()
    boxes.add_argument("--store", type=Path, help="a store with the image's objects; its id is IMAGE's name")
    boxes.add_argument(
        "--box", type=_box, action="append", default=[], metavar="X1,Y1,X2,Y2", help="in pixels; or several"
    )
    parser.add_argument("--top", type=count, default=5, metavar="N", help="draw the N most similar boxes (%(default)s)")
    add_template_option(parser)
    parser.add_argument("--model", help=f"a CLIP; by default the store's vectors' own, else {MODEL}")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; by default a GPU where there is one")
    options = parser.parse_args(arguments)
    return in_words(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    try:
        image = read_image(options.image)
    except UnreadableImage as error:
        raise ValueError(f"{options.image}: {error}") from error
    store = Store.open(options.store) if options.store else None
    made = store.provenance("clip") if store and "clip" in store.kinds else {}
    device = choose_device(options.device)
    clip = load_clip(options.model or made_by(made), device=device, precision=choose_precision(None, device))
    text = options.template.replace("{}", options.span)
    objects, vectors = _objects(options, image, clip, store)
    similar = similarities(vectors, clip.encode_texts([text])[0])
    order = best_first(similar)
    for number, place in enumerate(order, 1):
        box = ", ".join(f"{side:.0f}" for side in objects[place].box)
        print(f"{number:>3}  {similar[place]:.4f}  ({box})  {printable(objects[place].label)}".rstrip())
    heat = relevance(clip, image, text)
    if not heat.any():
        print("no part of the image stands out for the text: there is no red")
    picture = draw(image, heat, objects, order[: options.top])
    data = io.BytesIO()
    picture.save(data, format="PNG")
    write_bytes(options.out, data.getvalue())
    print(f"where CLIP looks for {text!r} -> {options.out}")
    return 0


def _objects(
    options: argparse.Namespace, image: Image.Image, clip: Clip, store: Store | None
) -> tuple[tuple[ImageObject, ...], Float[np.ndarray, "o d"]]:
    """The boxes that are asked for, with the store's vectors of them, else with vectors made here."""
    objects, vectors = tuple(ImageObject(box, "", 0.0) for box in options.box), None
    if store:
        objects = store.objects(options.image.stem)
        if not objects:
            raise ValueError(f"{options.store} has no objects of an image {options.image.stem!r}")
        if "clip" in store.kinds:
            check_text_tower(clip, store)
            vectors = store.vectors(options.image.stem)
    if vectors is None:
        encoder = BoxEncoder(clip, batch_size=16)
        (vectors,) = encoder.vectors([encoder.prepare(image, [item.box for item in objects])])
    return objects, vectors


def _box(text: str) -> Box:
    sides = text.split(",")
    try:
        x1, y1, x2, y2 = map(float, sides)
    except ValueError:
        x1 = y1 = x2 = y2 = 0.0
    if not (x1 < x2 and y1 < y2):
        raise argparse.ArgumentTypeError(f"{text!r}: expected left,top,right,bottom in pixels, such as 10,20,200,180")
    return x1, y1, x2, y2
