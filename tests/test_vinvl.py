"""VinVL's detector against the arrays that VinVL's own code gave on the same pictures with the same weights.

C is a picture at 150 x 200 and A one at full size; B is made by a formula. Arrays and pictures are not the project's:
where they are missing these tests are skipped. Tolerances: 1e-4 for maps and scores, 1e-3 for logits,
1e-2 pixels for boxes; another number of threads alone moves them by a tenth of that.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from vinvl_case import ARRAYS, MISSING, PHOTOS, formula_network, golden, made_image, prepared, worst

from scanner_jax.knowledge.vinvl.boxes import CLASS_WEIGHTS, best_per_proposal, decode, propose
from scanner_jax.knowledge.vinvl.detector import Detections, Detector, Options, Regions, crops
from scanner_jax.knowledge.vinvl.preprocessing import Prepared, pixels_to_input

needs_arrays = pytest.mark.skipif(not ARRAYS.is_file(), reason=MISSING)

MAP, LOGIT, SCORE, PIXEL = 1e-4, 1e-3, 1e-4, 1e-2


class Case:
    """One image on its way through the detector, compared at every step."""

    def __init__(self, name: str) -> None:
        self.name, self.image = name, prepared(name)
        self.detector = Detector(formula_network())

    def array(self, name: str) -> np.ndarray:
        return golden()[f"{self.name}/{name}"]

    def close(self, name: str, found: Any, tolerance: float) -> None:
        difference = worst(found, self.array(name))
        assert difference <= tolerance, f"{self.name}/{name}: off by {difference}, allowed are {tolerance}"

    def preprocessing(self) -> None:
        assert digest(self.image.pixels) == self.array("resized_sha256")
        x = pixels_to_input(self.image.pixels, torch.device("cpu")).contiguous().numpy()
        assert x.shape == tuple(self.array("x_shape")) and digest(x) == self.array("x_sha256")

    @torch.inference_mode()
    def maps(self) -> torch.Tensor:
        """The backbone, a stage at a time; returns the C4 map."""
        seen: dict[str, torch.Tensor] = {}
        body = self.detector.network.body
        layers = ("stem", "layer1", "layer2", "layer3")
        hooks = [keep_output(getattr(body, name), name, seen) for name in layers]
        c4, extent = self.detector.features([self.image])
        for hook in hooks:
            hook.remove()
        assert extent.sizes == [tuple(c4.shape[2:])]
        for name in layers:
            found = seen[name][0]
            assert found.shape == tuple(self.array(f"{name}_shape"))
            self.close(f"{name}_slice", found[:8, 5:9, 4:8], MAP)
            self.close(f"{name}_chmean", found.mean((1, 2)), MAP)
            self.close(f"{name}_stats", stats(found), MAP)
        if self.name == "C":
            self.close("c4_full", c4, MAP)
        return c4

    @torch.inference_mode()
    def proposals(self, c4: torch.Tensor) -> torch.Tensor:
        """The proposals; returned in the reference's order, of which equal scores may differ."""
        logits, deltas = self.detector.network.proposal_head(c4)
        self.close("rpn_objectness", logits, LOGIT)
        self.close("rpn_deltas_s4", deltas[:, :, ::4, ::4], LOGIT)
        self.close("rpn_deltas_stats", stats(deltas), MAP)
        boxes, scores = propose(logits[0], deltas[0], self.detector.network.anchors, self.image.size, 300)
        self.close("proposals_objectness", scores, SCORE)
        distances = torch.cdist(torch.from_numpy(self.array("proposals")), boxes, p=float("inf"))
        nearest = distances.argmin(1)
        assert sorted(nearest.tolist()) == list(range(300))
        self.close("proposals", boxes[nearest], PIXEL)
        return boxes[nearest]

    @torch.inference_mode()
    def regions(self, c4: torch.Tensor, boxes: torch.Tensor) -> Regions:
        """ROIAlign, stage 4 and the predictors."""
        cut = crops(c4[0], boxes)
        self.close("roialign_first4_ch", cut[:4, :: 32 if self.name == "C" else 128], MAP)
        self.close("roialign_mean", cut.mean((1, 2, 3)), MAP)
        layer4 = self.detector.network.region_head.layer4
        self.close("layer4_first4_ch", layer4(cut[:4])[:, ::64], 2 * MAP)
        regions = self.detector.classify(c4[0], boxes)
        self.close("pooled_first20", regions.features[:20], MAP)
        self.close("pooled_mean", regions.features.mean(1), MAP)
        self.close("cls_logits_first20", regions.logits[:20], LOGIT)
        self.close("box_regression_first4", regions.deltas[:4], LOGIT)
        likely = regions.logits.softmax(1)
        self.close("cls_prob_top5", likely.topk(5).values, SCORE)
        top = torch.from_numpy(self.array("cls_prob_top5_idx").astype(np.int64))  # of equals the order may differ
        self.close("cls_prob_top5", likely.gather(1, top), SCORE)
        label = self.array("top1fg").astype(int)
        np.testing.assert_array_equal(likely[:, 1:].argmax(1) + 1, label)
        deltas = regions.deltas.reshape(300, -1, 4)[torch.arange(300), torch.from_numpy(label)]
        self.close("decoded_unclipped_top1fg", decode(boxes, deltas, CLASS_WEIGHTS), PIXEL)
        return regions

    def objects(self, variant: str, found: Detections) -> None:
        """What is kept of an image, with features and attributes."""
        np.testing.assert_array_equal(found.labels, self.array(f"final/{variant}/labels"))
        self.close(f"final/{variant}/boxes", found.resized_boxes, PIXEL)
        self.close(f"final/{variant}/scores", found.scores, SCORE)
        self.close(f"final/{variant}/boxes_original_size", found.boxes, PIXEL)
        self.close(f"final/{variant}/box_features_first5", found.features[:5], MAP)
        self.close(f"final/{variant}/box_features_mean", found.features.mean(1), MAP)
        self.close(f"final/{variant}/attr_scores", found.attribute_scores, SCORE)
        known = self.array(f"final/{variant}/attr_scores") > 0
        expected = self.array(f"final/{variant}/attr_labels")[known]
        np.testing.assert_array_equal(found.attributes[known], expected)
        assert known.any() and (found.attributes > 0)[known].all()


def stats(values: torch.Tensor) -> list[torch.Tensor]:
    """Mean, standard deviation, largest size and root of the mean square."""
    values = values.double()
    return [values.mean(), values.std(correction=0), values.abs().max(), values.square().mean().sqrt()]


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def keep_output(module: torch.nn.Module, name: str, seen: dict[str, torch.Tensor]) -> Any:
    """A stage's blocks are called one by one, so that its last one's output is the stage's."""
    last = module[-1] if isinstance(module, torch.nn.Sequential) else module
    return last.register_forward_hook(lambda _module, _inputs, output: seen.update({name: output.clone()}))


def run_case(name: str) -> tuple[Case, torch.Tensor, torch.Tensor, Regions]:
    case = Case(name)
    case.preprocessing()
    c4 = case.maps()
    boxes = case.proposals(c4)
    regions = case.regions(c4, boxes)
    predictor, seen = case.detector.network.attribute_predictor, {}
    hooks = [keep_output(predictor, "logits", seen), keep_output(predictor.fc_attr, "fc", seen)]
    for variant, regression in (("f1_reg", True), ("f1_noreg", False)):
        case.detector.options = Options(regression=regression)
        with torch.inference_mode():
            case.objects(variant, case.detector.choose(c4[0], boxes, regions, case.image))
        case.close(f"final/{variant}/attr_fc_first5", seen["fc"][:5].relu(), LOGIT)
        case.close(f"final/{variant}/attr_logits_first30", seen["logits"][:30], LOGIT)
    for hook in hooks:
        hook.remove()
    return case, c4, boxes, regions


@needs_arrays
def test_the_small_picture() -> None:
    """Everything on C: one test, as its 300 regions take most of a minute's work on one core."""
    case, _, boxes, regions = run_case("C")
    class_boxes = case.detector.class_boxes(boxes, regions.deltas, case.image.size)
    for threshold, number in ((0.9, 10), (0.01, 100)):
        kept, labels, scores = best_per_proposal(
            regions.logits.softmax(1), class_boxes, boxes, threshold=threshold, fewest=10, most=100
        )
        assert len(kept) == number
        np.testing.assert_array_equal(labels, case.array(f"final/f1_reg_thr{threshold}/labels"))
        case.close(f"final/f1_reg_thr{threshold}/boxes", class_boxes[kept, labels], PIXEL)
        case.close(f"final/f1_reg_thr{threshold}/scores", scores, SCORE)
    best = regions.logits[:, 1:].argmax(1) + 1
    case.detector.options = Options(regression=True)
    kept, labels, _ = best_per_proposal(
        regions.logits.softmax(1), class_boxes, boxes, threshold=0.2, fewest=10, most=100
    )
    assert int((best[kept] != labels).sum()) == 2  # a class that was suppressed gave way to the next


@needs_arrays
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in "AB"])
def test_the_full_pictures(name: str) -> None:
    run_case(name)


@needs_arrays
@pytest.mark.parametrize("name", ["A", "B"])
def test_preprocessing_of_the_full_pictures(name: str) -> None:
    case = Case(name) if name in PHOTOS else Case("B")
    case.preprocessing()
    if name == "B":
        assert digest(made_image()) == golden()["B/rgb_sha256"]


@needs_arrays
def test_weights_are_the_formulas() -> None:
    """Names, shapes and sums of all 841."""
    state, known = formula_network().state_dict(), golden()
    keys = known["wcheck/keys"].tolist()
    copied = {key.replace("roi_heads.box", "attribute"): key for key in state if ".feature_extractor." in key}
    assert sorted([*state, *copied]) == sorted(keys) and len(keys) == 841
    for key, total, absolute, first in zip(
        keys, known["wcheck/sum"], known["wcheck/abssum"], known["wcheck/first"], strict=True
    ):
        values = state[copied.get(key, key)].numpy().astype(np.float64)
        assert values.flat[0] == first, key
        np.testing.assert_allclose([values.sum(), np.abs(values).sum()], [total, absolute], rtol=1e-9, atol=1e-9)


def test_a_batch_of_unlike_sizes_gives_what_single_images_give() -> None:
    rng = np.random.default_rng(1)
    sizes = [(52, 65), (33, 50)]  # sides that halve unevenly
    images = [Prepared(rng.integers(0, 256, (*size, 3), dtype=np.uint8), (size[1], size[0])) for size in sizes]
    detector = Detector(formula_network(), options=Options(fewest=3, proposals=4))
    together = detector(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector([image])
        assert len(alone.scores) >= 3
        np.testing.assert_array_equal(found.labels, alone.labels)
        for name, tolerance in (("boxes", 1e-3), ("scores", 1e-5), ("features", 1e-4), ("attribute_scores", 1e-5)):
            assert worst(getattr(found, name), getattr(alone, name)) < tolerance, name


@pytest.mark.slow
def test_low_precision_is_near() -> None:
    """Convolutions alone are computed in bf16: on a CPU, as no test has a GPU."""
    image = Prepared(np.random.default_rng(2).integers(0, 256, (48, 64, 3), dtype=np.uint8), (64, 48))
    lower = Detector(copy.deepcopy(formula_network()), dtype=torch.bfloat16, options=Options(proposals=4))
    with torch.inference_mode():
        exact, _ = Detector(formula_network()).features([image])
        rough, _ = lower.features([image])
    assert rough.dtype == torch.bfloat16 and exact.dtype == torch.float32
    assert float((rough.float() - exact).norm() / exact.norm()) < 0.05
    (found,) = lower([image])
    assert found.features.dtype == np.float32 and np.isfinite(found.features).all()
