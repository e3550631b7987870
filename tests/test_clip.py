"""CLIP: its vectors are open_clip's own, alone or in batches, and its text tower is known by what texts depend on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TEXTS = ["a photo of Mira Okafor", "Lake Tamsin", "#reds", "a very long text " * 30]


@pytest.fixture(scope="module")
def folder(tiny_clip: Callable[..., Path]) -> Path:
    return tiny_clip()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = [(40, 40), (90, 25), (7, 61), (1, 1)]
    noise = [rng.normal(rng.integers(0, 256, 3), 40, (high, wide, 3)) for wide, high in sizes]
    return [Image.fromarray(values.clip(0, 255).astype(np.uint8)) for values in noise]


def test_vectors_are_open_clips_own(folder: Path, pictures: list[Image.Image]) -> None:
    import open_clip
    import torch

    from scanner_jax.knowledge.clip import load_clip

    clip = load_clip(str(folder))
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    np.testing.assert_allclose(clip.encode_images(pictures), images.numpy(), atol=1e-6)
    np.testing.assert_allclose(clip.encode_texts(TEXTS), texts.numpy(), atol=1e-6)
    assert clip.encode_images(pictures).dtype == np.float32
    assert np.ptp(clip.encode_images(pictures), axis=0).max() > 0.1  # the pictures do differ


def test_another_process_loads_it_anew(folder: Path, pictures: list[Image.Image]) -> None:
    from scanner_jax.knowledge.clip import load_clip

    clip = load_clip(str(folder), precision="bf16")
    again = copy.deepcopy(clip)  # as pickle does it
    assert again.model is not clip.model
    assert again.provenance() == clip.provenance()
    np.testing.assert_array_equal(again.encode_images(pictures), clip.encode_images(pictures))


def test_batches_equal_one_at_a_time(folder: Path, pictures: list[Image.Image]) -> None:
    from scanner_jax.knowledge.clip import load_clip

    clip = load_clip(str(folder))
    alone = np.concatenate([clip.encode_images([picture]) for picture in pictures])
    np.testing.assert_allclose(clip.encode_images(pictures), alone, atol=1e-5)
    alone = np.concatenate([clip.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(clip.encode_texts(TEXTS), alone, atol=1e-5)
    assert clip.encode_images([]).shape == clip.encode_texts([]).shape == (0, 8)


def test_low_precision_is_near_and_its_text_tower_the_same(folder: Path, pictures: list[Image.Image]) -> None:
    from scanner_jax.knowledge.clip import load_clip

    full, low = load_clip(str(folder)), load_clip(str(folder), precision="bf16")
    found = low.encode_images(pictures)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.abs(found - full.encode_images(pictures)).max() < 0.05
    assert np.any(found != full.encode_images(pictures))
    assert low.text_tower == full.text_tower and low.provenance()["precision"] == "bf16"


def test_the_fingerprint_follows_what_texts_depend_on(folder: Path, tiny_clip: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    from scanner_jax.knowledge.clip import load_clip, text_fingerprint

    clip = load_clip(str(folder))
    assert clip.text_tower == load_clip(str(folder)).text_tower != load_clip(str(tiny_clip(seed=1))).text_tower
    # OpenAI's activation has no weights of its own.
    assert clip.text_tower != load_clip(str(tiny_clip(quick_gelu=True))).text_tower
    assert clip.text_tower != text_fingerprint(clip.model, lambda texts: clip.tokenizer(texts) + 1)

    def changed(name: str) -> tuple[str, str]:
        other = tiny_clip()
        weights = load_file(other / "open_clip_model.safetensors")
        weights[name] = weights[name] + 1
        save_file(weights, str(other / "open_clip_model.safetensors"))
        loaded = load_clip(str(other))
        return loaded.text_tower, loaded.image_tower

    text, image = clip.text_tower, clip.image_tower
    assert changed("logit_scale") == (text, image)
    assert changed("visual.proj")[0] == text and changed("visual.proj")[1] != image
    assert changed("text_projection")[0] != text and changed("text_projection")[1] == image


def test_what_cannot_be_loaded_is_said(tmp_path: Path, folder: Path) -> None:
    from scanner_jax.knowledge.clip import load_clip
    from scanner_jax.knowledge.loading import ModelError

    cases = {
        "ViT-L-14:no-such-tag": "weights of ViT-L-14 are openai, ",
        "ViT-L-14": "Accepted are an open_clip name with its weights, such as ViT-L-14:openai",
        "ViT-L-14:openai": "download it beforehand",
        "someone/some-clip": "hub",
        "no-such-model:openai": "no-such-model",
        str(tmp_path): "open_clip_config.json",
    }
    for name, said in cases.items():
        with pytest.raises(ModelError, match=said) as caught:
            load_clip(name)
        assert f"--model {name} cannot be loaded" in str(caught.value)
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_clip(str(tmp_path))  # no weights
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_clip(str(tmp_path))


def test_openais_weights_get_their_activation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    from scanner_jax.knowledge.clip import load_clip
    from scanner_jax.knowledge.loading import ModelError

    asked = {}

    def create(name: str, weights: str | None, *, force_quick_gelu: bool) -> object:
        asked[name, weights] = force_quick_gelu
        raise RuntimeError("seen enough")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    for name in ("ViT-L-14:openai", "ViT-L/14:openai", "ViT-L-14:laion2b_s32b_b82k", "hf-hub:a/b", "a/b", str(folder)):
        with pytest.raises(ModelError):
            load_clip(name)
    assert asked == {
        ("ViT-L-14", "openai"): True,
        ("ViT-L-14", "laion2b_s32b_b82k"): False,
        ("hf-hub:a/b", None): False,
        (f"local-dir:{folder}", None): False,
    }
