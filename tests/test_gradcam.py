"""Grad-CAM: gradients against finite differences, the map against numpy, and the picture that the command writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from scanner_jax.knowledge.__main__ import main
from scanner_jax.store import objects_value, write_kind
from scanner_jax.types import ImageObject

if TYPE_CHECKING:
    from scanner_jax.knowledge.clip import Clip

TEXT = "a photo of Mira Okafor"


@pytest.fixture(scope="module")
def model(tiny_clip: Callable[..., Path]) -> str:
    return str(tiny_clip(seed=3))


@pytest.fixture(scope="module")
def clip(model: str) -> Clip:
    from scanner_jax.knowledge.clip import load_clip

    return load_clip(model)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    colours = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(colours).resize((120, 60))


def similarity(clip: Clip, image: Image.Image, moved: Any = 0.0) -> float:
    """Of image and text, with what enters the last block's attention moved by so much."""
    import torch

    norm = clip.model.visual.transformer.resblocks[-1].ln_1
    hook = norm.register_forward_hook(lambda module, arguments, output: output + moved)
    with torch.no_grad():
        vector = clip.model.encode_image(clip.whole(image)[None].double())[0]
        text = clip.model.encode_text(clip.tokenizer([TEXT]))[0]
    hook.remove()
    return float(torch.nn.functional.cosine_similarity(vector, text, dim=0))


def test_gradients_are_those_of_finite_differences(clip: Clip, image: Image.Image, model: str) -> None:
    import torch

    from scanner_jax.knowledge.clip import load_clip
    from scanner_jax.knowledge.gradcam import last_block

    exact = load_clip(model)
    exact.model.double()
    _, gradients = last_block(clip, image, TEXT)
    assert gradients.shape == (4, 4, 16) and np.abs(gradients).max() > 1e-4
    rng = np.random.default_rng(0)
    for _ in range(5):
        row, column, channel = rng.integers(0, 4), rng.integers(0, 4), rng.integers(0, 16)
        moved = torch.zeros(1, 17, 16, dtype=torch.float64)
        moved[0, 1 + 4 * row + column, channel] = 1e-4
        slope = (similarity(exact, image, moved) - similarity(exact, image, -moved)) / 2e-4
        assert gradients[row, column, channel] == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_the_map_weighs_channels_by_their_mean_gradient(clip: Clip, image: Image.Image) -> None:
    from scanner_jax.knowledge.gradcam import last_block, relevance

    activations, gradients = last_block(clip, image, TEXT)
    expected = np.zeros((4, 4))
    for channel in range(16):
        expected += activations[..., channel] * gradients[..., channel].mean()
    expected = np.maximum(expected, 0)
    expected -= expected.min()
    assert expected.max() > 0
    np.testing.assert_allclose(relevance(clip, image, TEXT), expected / expected.max(), atol=1e-4)


def test_the_whole_image_counts(clip: Clip, image: Image.Image) -> None:
    """CLIP's own preprocessing takes the middle of a wide image."""
    from scanner_jax.knowledge.gradcam import relevance

    edge = image.copy()
    edge.paste((255, 0, 0), (0, 0, 20, 60))
    assert np.array_equal(clip.preprocess(edge), clip.preprocess(image))
    assert not np.allclose(relevance(clip, edge, TEXT), relevance(clip, image, TEXT), atol=1e-3)


def test_heat_lies_over_the_place_it_is_about(image: Image.Image) -> None:
    from scanner_jax.knowledge.gradcam import draw, overlay

    grey = Image.new("RGB", (120, 60), (128, 128, 128))
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1  # top right
    red, green, blue = np.moveaxis(np.asarray(overlay(grey, heat)).astype(int), 2, 0)
    assert red[3, 115] > red[3, 5] + 50 and red[3, 115] > red[55, 115] + 50
    assert blue[55, 5] > red[55, 5] and (green[55, 5] < 128)
    objects = [ImageObject((10, 10, 50, 50), "dog", 0.9), ImageObject((-5, 20, 200, 58), "cat", 0.5)]
    drawn = np.asarray(draw(grey, heat, objects, [1, 0])).tolist()
    assert drawn[57][100] == [80, 255, 80]  # the first's lower edge, in green
    assert drawn[45][10] == [255, 255, 255]  # the second's left edge
    assert max(draw(Image.new("RGB", (4000, 1000)), heat, objects, [0]).size) == 1600


def test_the_command_draws_the_stores_boxes(
    model: str, image: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from scanner_jax.knowledge.clip import load_clip

    image.save(tmp_path / "17.png")
    objects = [ImageObject((0, 0, 40, 40), "red dog", 0.9), ImageObject((50, 10, 110, 55), "lake", 0.8)]
    write_kind(tmp_path / "store", "objects", [("17", objects_value(objects))], {})
    command = ["gradcam", str(tmp_path / "17.png"), "Mira Okafor", str(tmp_path / "out.png")]
    in_store = [*command, "--store", str(tmp_path / "store")]
    assert main([*in_store, "--model", model]) == 0
    first = capsys.readouterr().out
    clip = load_clip(model)
    crops = [image.crop((0, 0, 40, 40)), image.crop((50, 10, 110, 55))]
    similar = clip.encode_images(crops) @ clip.encode_texts([TEXT])[0]
    best = int(similar.argmax())
    assert first.splitlines()[0].endswith(objects[best].label) and f"{similar[best]:.2f}" in first.splitlines()[0]
    assert f"'{TEXT}' -> {tmp_path / 'out.png'}" in first
    picture = Image.open(tmp_path / "out.png")
    assert picture.format == "PNG" and picture.size == image.size

    # With the store's own vectors and model the order is the same; another model's is refused.
    assert main(["clip", str(tmp_path), str(tmp_path / "store"), "--model", model]) == 0
    capsys.readouterr()
    assert main(in_store) == 0
    labels = [[line.split(")  ")[-1] for line in said.splitlines()[:2]] for said in (first, capsys.readouterr().out)]
    assert labels[0] == labels[1]


def test_the_command_draws_boxes_given_by_hand(
    model: str, image: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image.save(tmp_path / "a.png")
    command = ["gradcam", str(tmp_path / "a.png"), "x", str(tmp_path / "out.png"), "--model", model]
    assert main([*command, "--box", "0,0,40,40", "--box", "50,10,110,55"]) == 0
    boxes = {line[line.index("(") : line.index(")") + 1] for line in capsys.readouterr().out.splitlines()[:2]}
    assert boxes == {"(0, 0, 40, 40)", "(50, 10, 110, 55)"}
    assert main(command) == 0  # without any
    with pytest.raises(SystemExit):
        main([*command, "--box", "9,9,1,1"])
    assert "left,top,right,bottom" in capsys.readouterr().err


def test_what_the_command_lacks_is_said(
    model: str, image: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.png"
    assert main(["gradcam", str(tmp_path / "none.png"), "x", str(out), "--model", model]) == 1
    assert f"{tmp_path / 'none.png'}: missing file" in capsys.readouterr().err
    image.save(tmp_path / "17.png")
    write_kind(tmp_path / "store", "objects", [("18", objects_value([]))], {})
    store = ["--store", str(tmp_path / "store")]
    assert main(["gradcam", str(tmp_path / "17.png"), "x", str(out), "--model", model, *store]) == 1
    assert "no objects of an image '17'" in capsys.readouterr().err
    assert not out.exists()


def test_other_image_towers_are_refused(clip: Clip, image: Image.Image) -> None:
    import torch

    from scanner_jax.knowledge.gradcam import relevance
    from scanner_jax.knowledge.loading import ModelError

    class Other(torch.nn.Module):
        visual = torch.nn.Linear(1, 1)

    with pytest.raises(ModelError, match="its image tower is a Linear; Grad-CAM reads open_clip's VisionTransformer"):
        relevance(dataclasses.replace(clip, model=Other()), image, TEXT)
