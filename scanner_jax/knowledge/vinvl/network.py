"""The layers: ResNeXt-152 32x8d to stage 3, region proposals, and the heads for boxes and attributes.

Modules are named so that `Network.state_dict()` has the published checkpoint's keys. Letters: b images, n boxes, c
classes, h and w of the feature map, a anchors of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scanner_jax.knowledge.vinvl.boxes import cell_anchors

CLASSES, ATTRIBUTES = 1595, 525
"""With the background, and with no attribute: index 0 of each."""

STRIDE = 16
"""Pixels of the image to a cell of the feature map."""

WIDTH = 2048
"""Of a region's feature."""

CROP = 14
"""Cells of a region's crop, to either side."""

_GROUPS = 32
_STAGES = ((3, 64, 256, 1), (8, 256, 512, 2), (36, 512, 1024, 2))
"""Blocks, channels in, channels out, stride of the first block."""
_ANCHORS = 15


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by stored statistics, in float32 whatever the input is; without an epsilon."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * self.running_var.rsqrt()
        shift = self.bias - self.running_mean * scale
        return (x * scale.to(x.dtype)[:, None, None]).add_(shift.to(x.dtype)[:, None, None])


class Extent:
    """How much of a padded batch's feature maps is image: outside it must be 0 where a convolution looks.

    A convolution pads its input with zeros at the edge of the map. Where the map goes on beyond an image's edge, zeros
    written there make the image's own values those that it has alone.

    Args:
        sizes: height and width of each image.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        self.sizes = list(sizes)
        self.uneven = len(set(self.sizes)) > 1

    def halved(self) -> Extent:
        """After a layer of stride 2."""
        return Extent([(-(-height // 2), -(-width // 2)) for height, width in self.sizes])

    def clear(self, x: Tensor) -> Tensor:
        """Write zeros outside the images, in place."""
        if self.uneven:
            for image, (height, width) in zip(x, self.sizes, strict=True):
                image[:, height:] = 0
                image[:, :, width:] = 0
        return x


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 with the stride, 1x1, and what came in."""

    def __init__(self, width_in: int, inner: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(width_in, inner, 1, bias=False)
        self.bn1 = FrozenBatchNorm(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=_GROUPS, bias=False)
        self.bn2 = FrozenBatchNorm(inner)
        self.conv3 = nn.Conv2d(inner, width_out, 1, bias=False)
        self.bn3 = FrozenBatchNorm(width_out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), FrozenBatchNorm(width_out))
            if width_in != width_out
            else None
        )

    def forward(self, x: Tensor, extent: Extent | None = None) -> Tensor:
        y = self.bn1(self.conv1(x)).relu_()
        if extent is not None:
            extent.clear(y)
        y = self.bn2(self.conv2(y)).relu_()
        y = self.bn3(self.conv3(y))
        return y.add_(x if self.downsample is None else self.downsample(x)).relu_()


class Stage(nn.Sequential):
    """Blocks of one width; the first has the stride."""

    def __init__(self, blocks: int, width_in: int, width_out: int, stride: int) -> None:
        # 8 channels a group in stage 1, and twice as many in each further one.
        rest = [Bottleneck(width_out, width_out, width_out, 1) for _ in range(blocks - 1)]
        super().__init__(Bottleneck(width_in, width_out, width_out, stride), *rest)


class Stem(nn.Module):
    """7x7 with stride 2, then the largest of 3x3 with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm(64)

    def forward(self, x: Tensor, extent: Extent) -> Tensor:
        x = extent.halved().clear(self.bn1(self.conv1(x)).relu_())
        return F.max_pool2d(x, 3, 2, 1)


class Body(nn.Module):
    """Pixels (b, 3, height, width) to the C4 map (b, 1024, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.layer1, self.layer2, self.layer3 = (Stage(*stage) for stage in _STAGES)

    def forward(self, x: Tensor, extent: Extent) -> tuple[Tensor, Extent]:
        x, extent = self.stem(x, extent), extent.halved().halved()
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                x = block(x, extent)
                extent = extent.halved() if block.stride == 2 else extent
        return x, extent


class ProposalHead(nn.Module):
    """The C4 map to objectness logits (b, a, h, w) and deltas (b, 4a, h, w) of the anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1024, 1024, 3, 1, 1)
        self.cls_logits = nn.Conv2d(1024, _ANCHORS, 1)
        self.bbox_pred = nn.Conv2d(1024, 4 * _ANCHORS, 1)

    def forward(self, c4: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.conv(c4).relu_()
        return self.cls_logits(hidden), self.bbox_pred(hidden)


class RegionHead(nn.Module):
    """Crops (n, 1024, 14, 14) to features (n, 2048): stage 4, then the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = Stage(3, 1024, WIDTH, 2)

    def forward(self, crops: Tensor) -> Tensor:
        features: Tensor = self.layer4(crops)
        return features.float().mean((2, 3))


class BoxPredictor(nn.Module):
    """Features to class logits (n, c) and deltas (n, 4c) of each class's box."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_score = nn.Linear(WIDTH, CLASSES)
        self.bbox_pred = nn.Linear(WIDTH, 4 * CLASSES)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(features), self.bbox_pred(features)


class AttributePredictor(nn.Module):
    """Features and labels (n) to attribute logits (n, 525)."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_embedding = nn.Embedding(CLASSES, 256)
        self.fc_attr = nn.Linear(WIDTH + 256, 512)
        self.attr_score = nn.Linear(512, ATTRIBUTES)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        hidden = self.fc_attr(torch.cat([features, self.cls_embedding(labels)], 1)).relu_()
        logits: Tensor = self.attr_score(hidden)
        return logits


class Network(nn.Module):
    """All weights; `Detector` runs them. The attribute head's stage 4 is the box head's, and is not here twice."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _group(body=Body())
        anchors = nn.Module()
        anchors.register_buffer("0", cell_anchors())
        self.rpn = _group(anchor_generator=_group(cell_anchors=anchors), head=ProposalHead())
        box = _group(feature_extractor=_group(head=RegionHead()), predictor=BoxPredictor())
        self.roi_heads = _group(box=box)
        self.attribute = _group(predictor=AttributePredictor())

    @property
    def body(self) -> Body:
        """Pixels to the C4 map."""
        return cast(Body, self.get_submodule("backbone.body"))

    @property
    def anchors(self) -> Tensor:
        """The 15 anchors of the cell at the origin, (15, 4)."""
        return self.get_buffer("rpn.anchor_generator.cell_anchors.0")

    @property
    def proposal_head(self) -> ProposalHead:
        """The C4 map to what is said of anchors."""
        return cast(ProposalHead, self.get_submodule("rpn.head"))

    @property
    def region_head(self) -> RegionHead:
        """Crops to features."""
        return cast(RegionHead, self.get_submodule("roi_heads.box.feature_extractor.head"))

    @property
    def box_predictor(self) -> BoxPredictor:
        """Features to classes and boxes."""
        return cast(BoxPredictor, self.get_submodule("roi_heads.box.predictor"))

    @property
    def attribute_predictor(self) -> AttributePredictor:
        """Features and labels to attributes."""
        return cast(AttributePredictor, self.get_submodule("attribute.predictor"))

    def lower(self, dtype: torch.dtype) -> Network:
        """Compute convolutions in another precision; statistics, anchors and the last linear layers stay in float32."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.to(dtype)
        return self


def _group(**members: nn.Module) -> nn.ModuleDict:
    """Modules under names, which are those of the published state dict."""
    return nn.ModuleDict(members)
