"""What `growth.py` measures, each stage in a process of its own, since a process knows its highest memory alone.

    python benchmarks/growth_stages.py STAGE FOLDER

FOLDER holds `corpus/` and `tokenizer/`; `store_write` leaves `store/` there for `store_read`.
The last line is JSON: `seconds`, `cpu_seconds`, `base_mb` (memory before the stage: imports, the inputs that it is
handed, compiled programs) and `peak_mb` (the highest during the stage; where there is no Linux to reset it, the highest
until its end).
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from invented import SPLITS

from scanner_jax.types import Example

STEPS, BATCH_SIZE = 200, 8

Measured = Callable[[], contextlib.AbstractContextManager[None]]


def read(folder: Path, measured: Measured) -> None:
    """Read and check the source, prepare it with TFDS, and read the prepared data back."""
    import tensorflow_datasets as tfds

    from scanner_jax.corpora import load_corpus

    tfds.core.GeneratorBasedBuilder  # noqa: B018  # imports what it takes, before the clock runs
    with measured():
        load_corpus(folder / "corpus", prepared_dir=folder / "prepared")


def store_write(folder: Path, measured: Measured) -> None:
    """Import a file of captions, one for each sentence."""
    from scanner_jax.store import importers, write_kind

    with measured():
        imported = importers.read_captions([folder / "corpus" / "captions.txt"])
        write_kind(folder / "store", "captions", imported.records, {})


def store_read(folder: Path, measured: Measured) -> None:
    """Open the store and look every image's caption up, in another order than they were written in."""
    from scanner_jax.store import Store

    with measured():
        store = Store.open(folder / "store")
        count = len(store.keys("captions"))
        keys = (str(number * 7919 % count) for number in range(count))  # a prime: every key comes once
        missing = sum(not store.caption(key) for key in keys)
    assert not missing, f"{missing} captions are not in the store"


def evaluate(folder: Path, measured: Measured) -> None:
    """Read predictions of every split and score them, as `python -m scanner_jax.evaluate` does."""
    from scanner_jax.corpora import read_corpus
    from scanner_jax.predictions import read_predictions
    from scanner_jax.scoring import evaluate

    corpus = read_corpus(folder / "corpus")
    with measured():
        for split in SPLITS:
            predictions = read_predictions(folder / "corpus" / f"{split}-predictions.jsonl")
            scores, _ = evaluate(corpus, split, predictions, trained_on=["train"])
            assert scores["span"]["f1"] == 100 > scores["micro"]["f1"] > 50, scores


def tokenise(folder: Path, measured: Measured) -> None:
    """Make the detector's features of the training split."""
    detection, splits = _detection(folder), _splits(folder)
    from scanner_jax.pipeline import detector_features

    with measured():
        detector_features(splits["train"], detection.tokenizer, max_tokens=detection.max_tokens)


def train(folder: Path, measured: Measured) -> None:
    """Train the detector for `STEPS` steps, on sentences drawn from all the training split; compiled before."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "compiled"))

    from scanner_jax import loop
    from scanner_jax.detection import detector_loss
    from scanner_jax.models import init_detector
    from scanner_jax.pipeline import collate_detector, detector_features, length_buckets
    from scanner_jax.settings import paper_settings, training_settings
    from scanner_jax.vocabulary import Vocabulary

    detection, splits = _detection(folder), _splits(folder)
    section = paper_settings().detector
    section.batch_size = BATCH_SIZE
    features = detector_features(splits["train"], detection.tokenizer, max_tokens=detection.max_tokens)
    vocabulary = Vocabulary.of((item.token_ids for item in features), size=detection.encoder.vocab_size)
    buckets = length_buckets(detection.max_tokens)
    training = functools.partial(
        loop.train,
        name="growth",
        params=init_detector(detection.encoder, _encoder_params(detection), jax.random.key(1)),
        loss_fn=detector_loss(detection.model, alpha=None),
        features=_Drawn(features, STEPS * BATCH_SIZE),
        collate=functools.partial(collate_detector, buckets=buckets, pack_width=section.pack_width),
        settings=training_settings(section, epochs=1),
        evaluate=None,
        seed=1,
        vocabulary=vocabulary,
    )
    with tempfile.TemporaryDirectory() as run:
        training(folder=Path(run) / "compiling")
        with measured():
            training(folder=Path(run) / "measured")


def predict(folder: Path, measured: Measured) -> None:
    """Tag every sentence with the detector, decode the spans and score them; its first batches compile."""
    import jax

    from scanner_jax.detection import span_scores, spans_of, tag
    from scanner_jax.models import init_detector

    detection, splits = _detection(folder), _splits(folder)
    params = init_detector(detection.encoder, _encoder_params(detection), jax.random.key(1))
    with measured():
        for examples in splits.values():
            span_scores(examples, spans_of(tag(detection, params, examples)))


STAGES: dict[str, Callable[[Path, Measured], None]] = {
    stage.__name__: stage for stage in (read, store_write, store_read, evaluate, tokenise, train, predict)
}
FOR_ALL_SIZES = ("read", "store_write", "store_read", "evaluate")


class _Drawn(Sequence[Any]):
    """`count` items spread over all that there are; some come twice where there are fewer."""

    def __init__(self, items: Sequence[Any], count: int) -> None:
        self._items, self._count = items, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._items[index * len(self._items) // self._count]


def _splits(folder: Path) -> dict[str, Sequence[Example]]:
    from scanner_jax.corpora import read_corpus

    return dict(read_corpus(folder / "corpus").splits)


def _detection(folder: Path) -> Any:
    from scanner_jax.detection import Detection
    from scanner_jax.encoder import EncoderConfig
    from scanner_jax.settings import paper_settings
    from scanner_jax.tokens import load_tokenizer

    tokenizer = load_tokenizer(folder / "tokenizer")
    encoder = EncoderConfig(  # with the usual dropout: 0.1, hidden and attention
        model_type="roberta",
        vocab_size=tokenizer.largest_id + 1,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        pad_token_id=tokenizer.pad,
    )
    section = paper_settings().detector
    return Detection(
        encoder=encoder,
        tokenizer=tokenizer,
        max_tokens=encoder.max_tokens,
        eval_batch_size=section.eval_batch_size,
        pack_width=section.pack_width,
    )


def _encoder_params(detection: Any) -> Any:
    import jax

    from scanner_jax.encoder import init_encoder

    return init_encoder(detection.encoder, jax.random.key(0))


def _forget_peak() -> None:
    """Let the process's highest memory begin anew at what it holds now."""
    gc.collect()
    with contextlib.suppress(OSError):  # no Linux, or it is not allowed here
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):  # of this process alone, where getrusage's begins at its parent's
            return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Run a stage and print what it took."""
    logging.disable(logging.WARNING)  # an invented corpus is no known variant, which reading warns of
    name, folder = sys.argv[1], Path(sys.argv[2])
    taken: dict[str, float] = {}

    @contextlib.contextmanager
    def measured() -> Iterator[None]:
        _forget_peak()
        base, cpu, started = _peak_mb(), time.process_time(), time.perf_counter()
        yield
        taken.update(seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu)
        taken.update(base_mb=base, peak_mb=_peak_mb())

    STAGES[name](folder, measured)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
