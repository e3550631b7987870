"""Which files are taken as VinVL's weights, and what is said of others; on tensors that share one small storage."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from vinvl_case import KEYS

from scanner_jax.knowledge.loading import ModelError
from scanner_jax.knowledge.vinvl.network import Network
from scanner_jax.knowledge.vinvl.weights import load_network

State = dict[str, Any]
COPY = "attribute.feature_extractor.head.layer4.0.conv1.weight"
ORIGINAL = "roi_heads.box.feature_extractor.head.layer4.0.conv1.weight"


@pytest.fixture(scope="module")
def state() -> State:
    """The published file's keys and shapes; a tensor is one number repeated, so that files are small."""
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in Network().state_dict().items()}
    single = {key: torch.full((), 0.01 * place).expand(shape) for place, (key, shape) in enumerate(shapes.items())}
    copied = {key: value for key, value in single.items() if ".feature_extractor." in key}
    return single | {key.replace("roi_heads.box", "attribute"): value for key, value in copied.items()}


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], Network]:
    def save_and_load(held: Any) -> Network:
        torch.save(held, tmp_path / "weights.pth")
        return load_network(tmp_path / "weights.pth")

    return save_and_load


@pytest.mark.skipif(not KEYS.is_file(), reason=f"{KEYS} is not there")
def test_names_and_shapes_are_the_published_ones(state: State) -> None:
    assert {key: list(value.shape) for key, value in state.items()} == json.loads(KEYS.read_text())


def test_what_is_accepted(state: State, load: Callable[[Any], Network]) -> None:
    prefixed = {f"module.{key}": value for key, value in state.items()}
    without_copy = {key: value for key, value in state.items() if not key.startswith("attribute.feature_extractor.")}
    assert len(state) == 841 and len(without_copy) == 791
    for held in ({"model": prefixed, "optimizer": {"lr": 0.1}, "iteration": 7}, without_copy):
        network = load(held)
        found = network.state_dict()
        assert found.keys() == without_copy.keys()
        for key, value in found.items():
            assert torch.equal(value.flatten()[:1], state[key].flatten()[:1]), key
        assert not any(weight.requires_grad for weight in network.parameters())


def test_safetensors(tmp_path: Path) -> None:
    """Refused here for what it lacks: a whole one would be 600 MB."""
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"rpn.head.cls_logits.bias": torch.zeros(15)}, path)
    with pytest.raises(ModelError, match="790 problems"):
        load_network(path)


def test_all_offenders_are_one_error(state: State, load: Callable[[Any], Network]) -> None:
    broken = dict(state)
    del broken["rpn.head.conv.bias"]
    broken["rpn.head.extra"] = torch.zeros(1)
    broken["attribute.predictor.fc_attr.bias"] = torch.zeros(511)
    broken["rpn.head.cls_logits.bias"] = torch.full((15,), float("nan"))
    broken["rpn.head.bbox_pred.bias"] = torch.zeros(60, dtype=torch.int64)
    broken["attribute.predictor.attr_score.bias"] = "text"
    broken[COPY] = torch.ones(()).expand(state[COPY].shape)
    with pytest.raises(ModelError) as caught:
        load(broken)
    said = str(caught.value)
    for line in (
        "7 problems",
        "rpn.head.conv.bias: missing",
        "rpn.head.extra: unknown",
        "attribute.predictor.fc_attr.bias: shape (511,) instead of (512,)",
        "rpn.head.cls_logits.bias: not finite",
        "rpn.head.bbox_pred.bias: torch.int64, not floating point",
        "attribute.predictor.attr_score.bias: str, not a tensor",
        f"{COPY}: differs from {ORIGINAL}, whose copy it should be",
    ):
        assert line in said
    assert len(said.splitlines()) == 8


def test_a_prefix_on_some_keys(state: State, load: Callable[[Any], Network]) -> None:
    mixed = {(f"module.{key}" if key.startswith("rpn") else key): value for key, value in state.items()}
    with pytest.raises(ModelError, match="some keys begin with `module.`"):
        load(mixed)


class Code:
    """What a pickle could do when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"model": {"x": Code()}}, "cannot be read: .* Only tensors are read"),
        ([1, 2], 'expected a state dict, alone or under "model"; found list'),
        ({}, "expected a state dict"),
    ],
)
def test_files_of_another_kind(load: Callable[[Any], Network], held: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load(held)


def test_no_file_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(ModelError, match=f"{re.escape(str(path))}: no such file"):
        load_network(path)
    for data in (b"", b"text", b"PK\x03\x04cut"):
        path.write_bytes(data)
        with pytest.raises(ModelError, match="cannot be read"):
            load_network(path)
