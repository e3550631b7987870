"""Find pretrained experts and load them: device, precision, provenance; batches that shrink when memory runs out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import torch

from scanner_jax.store.sources import file_sha256

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
"""What is fetched of a model: its configuration, weights without pickle, and the tokenizer's files."""

TORCHVISION_AHEAD = 15
"""torch 2.x goes with torchvision 0.(x + 15)."""


class ModelError(ValueError):
    """A model that can't be found, loaded or run; the message says what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pretrained:
    """A model's files.

    Attributes:
        name: on the hub, or a local folder's without what it lies in, which may differ between machines.
        folder: where they lie.
        revision: the hub's commit, or `sha256:` and a fingerprint of a local folder's files.
    """

    name: str
    folder: Path
    revision: str


def find_model(name: str, revision: str | None = None) -> Pretrained:
    """Find a model: a local folder as it is, anything else by its name on the Hugging Face hub.

    What the hub's cache holds works offline.

    Raises:
        ModelError: no such folder, and the hub does not give it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"--revision {revision}: {name} is a folder; revisions are the hub's")
        return Pretrained(folder.resolve().name, folder, _fingerprint(folder))
    advice = "give a folder with config.json and safetensors files, or a name on the Hugging Face hub"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ModelError(f"--model {name}: no such folder; {advice}")
    try:
        fetched = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"--model {name}: no such folder, and the Hugging Face hub did not give it ({reason}); "
            f"check name, --revision and connection, or {advice}"
        ) from error
    return Pretrained(name, fetched, fetched.name)  # the cache's folders are named after the commit


def _fingerprint(folder: Path) -> str:
    """A sha256 over the names and contents of the files that are loaded."""
    paths = sorted({path for pattern in FILES for path in folder.glob(pattern)})
    sums = [f"{file_sha256(path)} {path.name}\n" for path in paths]
    return f"sha256:{hashlib.sha256(''.join(sums).encode()).hexdigest()}"


def choose_device(name: str | None) -> torch.device:
    """The device of that name; by default the first GPU, or the CPU where there is none.

    Raises:
        ModelError: torch doesn't know it, or has none of it.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or "not there").splitlines()[0]
        raise ModelError(f"--device {name}: {reason}; take cpu, cuda or cuda:1, as this machine has them") from error
    return device


def choose_precision(name: str | None, device: torch.device) -> str:
    """The precision of that name; by default bf16 on a GPU and fp32 on a CPU. fp32 means it: TF32 is switched off."""
    if name is None:
        name = "bf16" if device.type == "cuda" else "fp32"
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return name


def import_transformers() -> ModuleType:
    """Import Hugging Face's package, whose classes for images need a torchvision that fits torch.

    Raises:
        ModelError: it doesn't, or is missing; says what to install.
    """
    check_torchvision()
    transformers = importlib.import_module("transformers")
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    return transformers


def check_torchvision() -> None:
    """See that torchvision fits torch.

    Raises:
        ModelError: it doesn't, or is missing; says what to install.
    """
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{torchvision_advice(torch.__version__)} ({reason})") from error


def torchvision_advice(torch_version: str) -> str:
    """What to install where torchvision does not fit, such as a CUDA build beside torch's CPU build."""
    release, _, build = torch_version.partition("+")
    major, minor = release.split(".")[:2]
    wanted = f"torchvision 0.{int(minor) + TORCHVISION_AHEAD}" if major == "2" else "the torchvision of its release"
    of_build = f", the {build} build" if build else ""
    return (
        f"torchvision does not fit torch {torch_version}: install {wanted}{of_build}; "
        f"both in one call and from one index, so that neither replaces the other: "
        f"pip install torch=={release} torchvision"
    )


def load(kind: Any, model: Pretrained, *, device: torch.device, precision: str) -> Any:
    """Load a transformers model from safetensors, ready to run.

    Args:
        kind: the class.
        model: its files.
        device: where it goes.
        precision: one of `PRECISIONS`.

    Raises:
        ModelError: files or weights are missing, or don't fit.
    """
    with reading(model):
        loaded, found = kind.from_pretrained(
            model.folder,
            dtype=PRECISIONS[precision],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    # transformers fills them with noise, and warns.
    weights = {name for name, _ in loaded.named_parameters(remove_duplicate=False)}
    if missing := sorted(weights & set(found["missing_keys"])):
        raise ModelError(f"--model {model.folder}: its files lack {len(missing)} weights, such as {missing[0]}")
    return loaded.to(device).eval()


@contextlib.contextmanager
def reading(model: Pretrained) -> Iterator[None]:
    """Turn what loading raises into a ModelError that names the model."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"--model {model.folder} cannot be loaded: {reason}") from error


class BatchRunner:
    """Run a function over items in batches, smaller ones from when memory first ran out.

    Args:
        function: a batch's results from its items.
        size: items that a batch has at most.
    """

    def __init__(self, function: Callable[[Sequence[Any]], Sequence[Any]], size: int) -> None:
        self._function = function
        self.size = size

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        """All items' results, in their order.

        Raises:
            ModelError: memory runs out even for one item.
        """
        results: list[Any] = []
        while len(results) < len(items):
            rest = items[len(results) :]
            batches = -(-len(rest) // self.size)
            count = -(-len(rest) // batches)  # of equal size, rather than a small one at the end
            found = self._attempt(rest[:count])
            if found is None:
                self._shrink(count)
            else:
                results += found
        return results

    def _attempt(self, items: Sequence[Any]) -> Sequence[Any] | None:
        """Results, None where memory ran out; the error, which holds on to it, is gone by then."""
        try:
            with torch.inference_mode():
                return self._function(items)
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            return None

    def _shrink(self, count: int) -> None:
        if count == 1:
            raise ModelError(
                "memory ran out with a batch of one; take a smaller model, --precision bf16 or --device cpu"
            )
        self.size = count // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning("memory ran out with a batch of %d; going on with %d", count, self.size)
