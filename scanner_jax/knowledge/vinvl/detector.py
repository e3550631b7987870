"""Pictures to objects with features and attributes: the network's parts in their order, for batches of unlike sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scanner_jax.knowledge.loading import ModelError, check_torchvision, torchvision_advice
from scanner_jax.knowledge.vinvl.boxes import CLASS_WEIGHTS, best_per_proposal, clip, decode, propose
from scanner_jax.knowledge.vinvl.network import CLASSES, CROP, STRIDE, WIDTH, Extent, Network
from scanner_jax.knowledge.vinvl.preprocessing import Prepared, pixels_to_input

ATTRIBUTES_KEPT = 16
LEAST_ATTRIBUTE = 0.05
"""The likeliest attributes of an object, none of which is less likely."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How boxes are chosen.

    Attributes:
        regression: boxes are the classes', as in VinVL's demo; otherwise the proposals themselves, whose features the
            results' then are, as in its released features.
        proposals: regions that the heads look at, at most.
        score: see `boxes.best_per_proposal`.
        fewest: likewise.
        most: likewise.
    """

    regression: bool = True
    proposals: int = 300
    score: float = 0.2
    fewest: int = 10
    most: int = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Detections:
    """An image's objects, best first; n of them.

    Attributes:
        boxes: (n, 4), x1, y1, x2, y2 in pixels of the original image.
        resized_boxes: the same in the resized one.
        scores: (n), from 0 to 1.
        labels: (n), from 1 to 1594.
        features: (n, 2048), float32: of the proposals, which are the boxes only where there is no regression.
        attributes: (n, 16), from 0 (none) to 524, likeliest first.
        attribute_scores: (n, 16); 0 where there is no further attribute.
    """

    boxes: np.ndarray
    resized_boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    attributes: np.ndarray
    attribute_scores: np.ndarray


class Regions(NamedTuple):
    """Of an image's proposals: features (n, 2048), class logits (n, c), and each class's deltas (n, 4c)."""

    features: Tensor
    logits: Tensor
    deltas: Tensor


class Detector:
    """VinVL's detector.

    ROIAlign and non-maximum suppression are torchvision's operators; there is no other implementation in this package.

    A batch gives what its images give alone, up to the order of sums. VinVL's own code lets what it pads a batch with
    change features near an image's edge and adds anchors there; here the padding is kept at zero before every
    convolution that would see it (`network.Extent`), and each image is cut out of the maps.

    Args:
        network: with weights; moved to the device, and its convolutions to the precision.
        device: where it runs.
        dtype: of the convolutions. Boxes, scores, features and attributes are computed in float32.
        options: how boxes are chosen.

    Raises:
        ModelError: torchvision's operators cannot run on the device; says what to install.
    """

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        options: Options | None = None,
    ) -> None:
        self._device, self._dtype = torch.device(device), dtype
        check_operators(self._device)
        self.network = network.to(self._device).lower(dtype).eval()
        self.options = options or Options()

    @torch.inference_mode()
    def __call__(self, images: Sequence[Prepared]) -> list[Detections]:
        """The objects of each image.

        Raises:
            ModelError: values exceed the precision's range.
        """
        c4, extent = self.features(images)
        logits, deltas = self.network.proposal_head(extent.clear(c4))
        found = []
        for place, (image, (height, width)) in enumerate(zip(images, extent.sizes, strict=True)):
            own = [maps[place, :, :height, :width] for maps in (c4, logits, deltas)]
            proposals, _ = propose(
                own[1].float(), own[2].float(), self.network.anchors, image.size, self.options.proposals
            )
            found.append(self.choose(own[0], proposals, self.classify(own[0], proposals), image))
        return found

    def features(self, images: Sequence[Prepared]) -> tuple[Tensor, Extent]:
        """The C4 maps of images, padded at the right and the bottom with zeros after the mean is taken off."""
        extent = Extent([image.size for image in images])
        height, width = (max(sides) for sides in zip(*extent.sizes, strict=True))
        batch = torch.zeros(len(images), 3, height, width, device=self._device)
        for place, image in enumerate(images):
            batch[place, :, : image.size[0], : image.size[1]] = pixels_to_input(image.pixels, self._device)
        maps: tuple[Tensor, Extent] = self.network.body(batch.to(self._dtype), extent)
        return maps

    def classify(self, c4: Tensor, proposals: Tensor) -> Regions:
        """What the heads say of proposals (n, 4) on one image's map (1024, h, w)."""
        features = self.region_features(c4, proposals)
        regions = Regions(features, *self.network.box_predictor(features))
        if not bool(regions.logits.isfinite().all()):
            raise ModelError("values exceed the range of this precision; take --precision bf16 or fp32")
        return regions

    def choose(self, c4: Tensor, proposals: Tensor, regions: Regions, image: Prepared) -> Detections:
        """The objects of an image, from its map, its proposals and what was said of them."""
        options, features = self.options, regions.features
        class_boxes = self.class_boxes(proposals, regions.deltas, image.size).cpu() if options.regression else None
        kept, labels, scores = best_per_proposal(
            regions.logits.softmax(1).cpu(), class_boxes, proposals.cpu(),
            threshold=options.score, fewest=options.fewest, most=options.most,
        )  # fmt: skip
        rows = kept.to(self._device)
        boxes = proposals[rows] if class_boxes is None else class_boxes[kept, labels].to(self._device)
        # Attributes are of the final boxes, features of the proposals.
        seen = features[rows] if class_boxes is None else self.region_features(c4, boxes)
        attributes, likely = self._attributes(seen, labels.to(self._device))
        width, height = image.original
        ratio = np.array([width / image.size[1], height / image.size[0]] * 2, np.float32)
        corners = boxes.cpu().numpy()
        return Detections(
            boxes=corners * ratio,
            resized_boxes=corners,
            scores=scores.numpy(),
            labels=labels.numpy(),
            features=features[rows].cpu().numpy(),
            attributes=attributes.cpu().numpy(),
            attribute_scores=likely.cpu().numpy(),
        )

    def region_features(self, c4: Tensor, boxes: Tensor) -> Tensor:
        """The features (n, 2048) of boxes (n, 4) on one image's map (1024, h, w)."""
        if not len(boxes):
            return c4.new_zeros(0, WIDTH).float()
        features: Tensor = self.network.region_head(crops(c4, boxes).to(self._dtype))
        return features

    @staticmethod
    def class_boxes(proposals: Tensor, deltas: Tensor, size: tuple[int, int]) -> Tensor:
        """Every class's box of every proposal, (n, c, 4), cut to the image."""
        repeated = proposals.repeat_interleave(CLASSES, 0)
        return clip(decode(repeated, deltas.reshape(-1, 4), CLASS_WEIGHTS), size).reshape(-1, CLASSES, 4)

    def _attributes(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest attributes of objects, (n, 16), and how likely they are, (n, 16)."""
        likely = self.network.attribute_predictor(features, labels).softmax(1)
        likely[:, 0] = 0
        scores, attributes = likely.where(likely > LEAST_ATTRIBUTE, 0).topk(ATTRIBUTES_KEPT)
        return attributes, scores


def crops(c4: Tensor, boxes: Tensor) -> Tensor:
    """Crops (n, 1024, 14, 14) of boxes (n, 4) in pixels from one image's map (1024, h, w), in float32.

    Without the half pixel of newer detectors, and with as many samples a cell as it has cells of the map.
    """
    from torchvision.ops import roi_align

    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    found: Tensor = roi_align(
        c4[None].float().contiguous(), rois, (CROP, CROP), spatial_scale=1 / STRIDE, sampling_ratio=0, aligned=False
    )
    return found


def check_operators(device: torch.device) -> None:
    """See that torchvision's operators run on a device.

    Raises:
        ModelError: they don't; says what to install.
    """
    check_torchvision()
    from torchvision.ops import nms

    try:
        nms(torch.zeros(1, 4, device=device), torch.zeros(1, device=device), 0.5)
        crops(torch.zeros(1, 2, 2, device=device), torch.zeros(1, 4, device=device))
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise ModelError(f"{torchvision_advice(torch.__version__)} ({str(error).splitlines()[0]})") from error
