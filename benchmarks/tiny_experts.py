"""Random experts of the real classes, small enough for a laptop: to try the commands, and for tests and benchmarks.

    python benchmarks/tiny_experts.py FOLDER

writes FOLDER/blip2, FOLDER/dfine and FOLDER/detr, each as `--model` takes it. What they say means nothing.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    write_blip2(folder / "blip2")


if __name__ == "__main__":
    main()
