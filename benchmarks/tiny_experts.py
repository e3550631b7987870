"""Random experts of the real classes, small enough for a laptop: to try the commands, and for tests and benchmarks.

    python benchmarks/tiny_experts.py FOLDER

writes FOLDER/blip2, FOLDER/dfine, FOLDER/detr and FOLDER/clip, each as `--model` takes it. What they say means nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from scanner_jax.knowledge.loading import import_transformers

WORDS = (
    "a an the two of on in at with and man woman people dog cat car boat house tree street lake player team band stage "
    "red blue green old young small large playing holding standing riding photo sign logo screen shirt hat ball"
).split()
LABELS = "person car dog boat hat ball sign tree chair lamp".split()
QUERY_TOKENS = 4


def write_blip2(folder: Path, *, width: int = 32, layers: int = 2, image_size: int = 28, seed: int = 1) -> None:
    """Write a BLIP-2 of a ViT, a Q-Former and OPT, with a tokenizer of whole words."""
    import torch

    transformers = import_transformers()
    tokenizer = _word_tokenizer(transformers)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4}
    config = transformers.Blip2Config(
        vision_config={**sizes, "intermediate_size": 2 * width, "image_size": image_size, "patch_size": 14},
        qformer_config={
            **sizes, "intermediate_size": 2 * width, "encoder_hidden_size": width, "vocab_size": 30,
            "cross_attention_frequency": 1,
        },
        text_config={
            **sizes, "model_type": "opt", "ffn_dim": 2 * width, "word_embed_proj_dim": width,
            "vocab_size": len(tokenizer), "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 2,
            "pad_token_id": 1,
        },
        num_query_tokens=QUERY_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.Blip2ForConditionalGeneration(config)
    _widen(model)
    images = transformers.BlipImageProcessor(size={"height": image_size, "width": image_size})
    _save(model, folder)
    transformers.Blip2Processor(images, tokenizer, num_query_tokens=QUERY_TOKENS).save_pretrained(folder)


def write_dfine(folder: Path, *, image_size: int = 64, seed: int = 1) -> None:
    """Write a D-FINE, which scales every image to one size."""
    import torch

    transformers = import_transformers()
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8], stage_in_channels=[8, 16, 16, 16], stage_mid_channels=[8] * 4,
        stage_out_channels=[16] * 4, stage_num_blocks=[1] * 4, stage_numb_of_layers=[1] * 4, embedding_size=8,
        hidden_sizes=[16] * 4, out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.DFineConfig(
        backbone_config=backbone, encoder_in_channels=[16] * 3, encoder_hidden_dim=32, encoder_ffn_dim=32,
        encoder_attention_heads=2, d_model=32, decoder_in_channels=[32] * 3, decoder_ffn_dim=32, decoder_layers=2,
        decoder_attention_heads=2, num_queries=30, num_denoising=0, id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.DFineForObjectDetection(config)
    _widen(model)
    _save(model, folder)
    transformers.RTDetrImageProcessor(size={"height": image_size, "width": image_size}).save_pretrained(folder)


def write_detr(folder: Path, *, image_size: int = 48, seed: int = 1) -> None:
    """Write a DETR, which keeps an image's proportions and pads within a batch."""
    import torch

    transformers = import_transformers()
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_attention_heads=2, num_queries=20, id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.DetrForObjectDetection(config)
    _widen(model)
    _save(model, folder)
    size = {"shortest_edge": image_size, "longest_edge": 2 * image_size}
    transformers.DetrImageProcessor(size=size).save_pretrained(folder)


def write_clip(folder: Path, *, seed: int = 3, **model_cfg: Any) -> None:
    """Write an open_clip model: a ViT over 32 x 32 pixels and OpenAI's tokenizer; `model_cfg` goes into its config."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text, **model_cfg}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    rng = torch.Generator().manual_seed(seed)
    noise = {name: torch.randn(value.shape, generator=rng) * 0.7 for name, value in model.state_dict().items()}
    save_file(noise, str(folder / "open_clip_model.safetensors"))


def _word_tokenizer(transformers: Any) -> Any:
    """Each word a token, behind a begin-of-text token as OPT has it."""
    import tokenizers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate([*special, *WORDS])}, unk_token="<unk>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


def _widen(model: Any) -> None:
    """Make weights so large that what a random model says depends on the image."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)


def _save(model: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)


def write_experts(folder: Path) -> None:
    """Write them all."""
    write_blip2(folder / "blip2")
    write_dfine(folder / "dfine")
    write_detr(folder / "detr")
    write_clip(folder / "clip")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    write_experts(parser.parse_args().folder)


if __name__ == "__main__":
    main()
