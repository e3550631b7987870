"""CLIP through open_clip: unit vectors of pictures and of texts in one space, and what tells text towers apart.

Everything is open_clip's own: architectures, weights (safetensors, or torch files read with `weights_only`),
preprocessing and tokenizers.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError

from scanner_jax.knowledge.ledger import LOADED_FROM
from scanner_jax.knowledge.loading import PRECISIONS, ModelError, check_torchvision
from scanner_jax.retrieval import CLIP_TEMPLATE

MODEL = "ViT-L-14:openai"
"""What is loaded by default: the largest of OpenAI's models for 224 pixels."""

_PROBES = ("a photo of Steve Kerr", "#SteveKerr @NBA!! it's 2-1 :)", "Zürich ÉTÉ 東京 🙂", "long " * 200)
"""Texts whose token ids tell tokenizers apart: case, marks, scripts, and where a long one is cut."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """A CLIP model ready to encode. Make one with `load_clip`.

    Attributes:
        name: as given to `load_clip`.
        precision: a key of `PRECISIONS`.
        device: where it runs.
        width: of its vectors.
        text_tower: what its texts' vectors depend on, a sha256 in hex; the same in every precision and on every device.
        image_tower: the same of its pictures.
        model: open_clip's, in float32.
        preprocess: a picture to pixels, (3, height, width).
        tokenizer: texts to token ids.
    """

    name: str
    precision: str
    device: torch.device
    width: int
    text_tower: str
    image_tower: str
    model: Any
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenizer: Callable[[list[str]], torch.Tensor]

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is loaded anew, once, rather than sent there with its weights."""
        return functools.partial(load_clip, device=str(self.device), precision=self.precision), (self.name,)

    def encode_images(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n d"]:
        """The unit vector of each picture, as one batch."""
        if not images:
            return np.zeros((0, self.width), np.float32)
        return self.encode_pixels(torch.stack([self.preprocess(image) for image in images]))

    def encode_pixels(self, pixels: torch.Tensor) -> Float[np.ndarray, "n d"]:
        """The unit vector of each preprocessed picture, as one batch."""
        return self._unit(self.model.encode_image, pixels)

    def encode_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """The unit vector of each text, as one batch; what exceeds the tower's length is cut by its tokenizer."""
        if not texts:
            return np.zeros((0, self.width), np.float32)
        return self._unit(self.model.encode_text, self.tokenizer(list(texts)))

    def whole(self, image: Image.Image) -> torch.Tensor:
        """A picture to pixels as `preprocess`, but squashed to the model's shape where that cuts edges off."""
        transform = importlib.import_module("open_clip.transform")
        settings = {**self.model.visual.preprocess_cfg, "resize_mode": "squash"}
        pixels: torch.Tensor = transform.image_transform_v2(transform.PreprocessCfg(**settings), is_train=False)(image)
        return pixels

    def autocast(self) -> torch.autocast:
        """Computes products in the model's precision while it is entered."""
        low = self.precision != "fp32"
        return torch.autocast(self.device.type, PRECISIONS[self.precision] if low else torch.bfloat16, enabled=low)

    def provenance(self) -> dict[str, str]:
        """What a store keeps of the model; of one that lies on this machine the name, a fingerprint, and where."""
        towers = {"text_tower": self.text_tower, "image_tower": self.image_tower}
        own = {"model": self.name, "precision": self.precision, **towers}
        architecture, _, weights = self.name.rpartition(":")
        path = Path(self.name.removeprefix("local-dir:"))
        if path.is_dir():
            own["model"] = path.resolve().name
        elif architecture and Path(weights).is_file():
            own["model"] = f"{architecture}:{Path(weights).name}"
        else:
            return own
        fingerprint = hashlib.sha256(f"{self.text_tower} {self.image_tower}".encode()).hexdigest()
        return {**own, "revision": f"sha256:{fingerprint}", LOADED_FROM: self.name}

    def _unit(self, encode: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> Float[np.ndarray, "n d"]:
        with torch.inference_mode(), self.autocast():
            vectors = encode(batch.to(self.device))
        return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def made_by(provenance: Mapping[str, Any]) -> str:
    """What `load_clip` takes to load the model that made a store's vectors, from their provenance."""
    return str(provenance.get(LOADED_FROM) or provenance.get("model", MODEL))


def load_clip(name: str = MODEL, *, device: torch.device | str = "cpu", precision: str = "fp32") -> Clip:
    """Load a CLIP model.

    Args:
        name: an open_clip name with the tag or the file of its weights, as in `ViT-L-14:openai`; a name on the Hugging
            Face hub; or a folder with open_clip_config.json, weights and the files of a tokenizer of its own, if any.
        device: where it shall run.
        precision: a key of `PRECISIONS`.

    Raises:
        ModelError: there is no such model, or its weights can't be had or read; or torchvision does not fit torch.
    """
    open_clip = _open_clip()
    source, weights = _source(name)
    tag = open_clip.get_pretrained_cfg(source, weights) if weights else {}
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            source,
            weights,
            # OpenAI's weights need the activation that they were trained with; open_clip only warns.
            force_quick_gelu=bool(tag.get("quick_gelu")),
        )
        tokenizer = open_clip.get_tokenizer(source)
        width = int(open_clip.get_model_config(source)["embed_dim"])
    except (OSError, RuntimeError, ValueError, KeyError, UnpicklingError, SafetensorError) as error:
        raise ModelError(_refusal(name, source, error)) from error
    model.eval().requires_grad_(False)
    return Clip(
        name=name,
        precision=precision,
        device=torch.device(device),
        width=width,
        text_tower=text_fingerprint(model, tokenizer),
        image_tower=_fingerprint(model, image=True).hexdigest(),
        model=model.to(device),
        preprocess=preprocess,
        tokenizer=tokenizer,
    )


def _open_clip() -> ModuleType:
    """open_clip, which needs a torchvision that fits torch."""
    check_torchvision()
    return importlib.import_module("open_clip")


def text_fingerprint(model: torch.nn.Module, tokenizer: Callable[[list[str]], torch.Tensor]) -> str:
    """What a text's vector depends on, as a sha256 in hex.

    It covers names and bytes of all parameters but the picture's and those of the logits (scale and bias, which
    change no order), the kind of activation, which weights do not tell, and what the tokenizer makes of some texts.
    """
    digest = _fingerprint(model, image=False)
    digest.update(tokenizer(list(_PROBES)).numpy().data)
    return digest.hexdigest()


def _fingerprint(model: torch.nn.Module, *, image: bool) -> hashlib._Hash:
    """A digest of one tower's parameters and activations."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith("visual.") == image and name not in ("logit_scale", "logit_bias"):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
    kinds = {type(module).__name__ for name, module in model.named_modules() if name.startswith("visual.") == image}
    digest.update(" ".join(sorted(kind for kind in kinds if "GELU" in kind)).encode())
    return digest


def add_template_option(parser: argparse.ArgumentParser) -> None:
    """Let a command choose what CLIP is asked, as the recipe's knowledge.clip_template does."""
    text = "what CLIP is asked, with the text for {} (%(default)r)"
    parser.add_argument("--template", type=_template, default=CLIP_TEMPLATE, metavar="TEXT", help=text)


def _template(text: str) -> str:
    if text.count("{}") != 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {{}} once, where the text goes")
    return text


def _source(name: str) -> tuple[str, str | None]:
    """What open_clip calls a model, and the tag or file of its weights where the name does not say it all."""
    if Path(name).is_dir():
        return f"local-dir:{name}", None
    if name.startswith(("local-dir:", "hf-hub:")):
        return name, None
    open_clip = _open_clip()
    architecture, _, weights = name.partition(":")
    architecture = architecture.replace("/", "-") if weights else architecture
    known = architecture in open_clip.list_models()
    return (f"hf-hub:{name}", None) if "/" in name and not known else (architecture, weights or None)


def _refusal(name: str, source: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    tags = _open_clip().list_pretrained_tags_by_model(source)
    known = f"; weights of {source} are {', '.join(tags)}, or a file" if tags else ""
    return (
        f"--model {name} cannot be loaded: {reason}{known}. Accepted are an open_clip name with its weights, such as "
        f"{MODEL}, a name on the Hugging Face hub (download it beforehand where there is no network), and a folder "
        "with open_clip_config.json and weights"
    )
