"""Networks as backbones of a detector and of a segmenter, trained under sampled paths on shapes made here."""

from __future__ import annotations

import random
from collections import OrderedDict
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, box_iou

import polypath as pp
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fusenet import MergeAndRun

SIDE = 32


def shapes(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise with a red square or a green disc: images, masks (0 none, 1 square, 2 disc), boxes, labels (1, 2)."""
    g = torch.Generator().manual_seed(seed)
    ys, xs = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    images, masks, boxes = 0.3 * torch.randn(n, 3, SIDE, SIDE, generator=g), [], []
    labels = torch.randint(1, 3, (n,), generator=g)
    for image, label in zip(images, labels, strict=True):
        r, x, y = (int(torch.randint(a, b, (1,), generator=g)) for a, b in ((5, 9), (9, 24), (9, 24)))
        inside = ((xs - x).abs() < r) & ((ys - y).abs() < r) if label == 1 else (xs - x) ** 2 + (ys - y) ** 2 < r * r
        image[label - 1] += 2.0 * inside
        masks.append(inside * label)
        boxes.append([x - r, y - r, x + r, y + r])
    return images, torch.stack(masks), torch.tensor(boxes, dtype=torch.float32), labels


class Pyramid(nn.Module):
    """The last stages of a network under the current path, followed by torchvision's FPN."""

    def __init__(self, net: pp.PathNet, stages: int, out_channels: int):
        super().__init__()
        self.net, self.stages, self.out_channels, self.paths = net, stages, out_channels, "whole"
        net.prune_intermediate_layers(stages)
        self.fpn = FeaturePyramidNetwork([info["num_chs"] for info in net.feature_info][-stages:], out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.net.forward_intermediates(x, self.stages, intermediates_only=True, paths=self.paths)
        return self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps)))


@pytest.mark.slow
def test_a_detector_learns_under_sampled_paths():
    torch.manual_seed(0)
    draw = random.Random(0)
    net = MergeAndRun(blocks=(1, 2, 2), depth=0, width=8).build(seed=0)
    paths = list(net.named_paths())
    assert len(paths) >= 3
    anchors = AnchorGenerator(((10, 13), (16, 20)), ((1.0,),) * 2)
    backbone = Pyramid(net, 2, 24)
    still: dict[str, Any] = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    detector = RetinaNet(backbone, 3, SIDE, SIDE, anchor_generator=anchors, detections_per_img=5, **still).train()
    optimiser = torch.optim.AdamW(detector.parameters(), lr=1e-3)
    images, _, boxes, labels = shapes(96, seed=1)
    losses: list[float] = []
    for step in range(90):
        backbone.paths = draw.choice(paths)
        batch = [(step * 8 + i) % len(images) for i in range(8)]
        targets = [{"boxes": boxes[i : i + 1], "labels": labels[i : i + 1]} for i in batch]
        loss = torch.stack([*detector([images[i] for i in batch], targets).values()]).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert median(losses[-20:]) < 0.6 * median(losses[:8])
    detector.eval()
    images, _, boxes, _ = shapes(16, seed=2)
    for backbone.paths in paths:
        with torch.inference_mode():
            found: Any = detector(list(images))
        overlaps = [box_iou(f["boxes"][:1], boxes[i : i + 1]).sum() for i, f in enumerate(found)]
        assert torch.stack(overlaps).mean() > 0.5, backbone.paths


class Segmenter(nn.Module):
    """All stages of a network, resized to the image, followed by one conv."""

    def __init__(self, net: pp.PathNet):
        super().__init__()
        self.net = net
        net.prune_intermediate_layers(None)
        self.last = nn.Conv2d(sum(info["num_chs"] for info in net.feature_info), 3, 1)

    def forward(self, x: Tensor, paths: str) -> Tensor:
        maps = self.net.forward_intermediates(x, intermediates_only=True, paths=paths)
        return self.last(torch.cat([F.interpolate(m, x.shape[2:], mode="bilinear") for m in maps], 1))


@pytest.mark.slow
def test_a_segmenter_learns_under_sampled_paths():
    torch.manual_seed(0)
    draw = random.Random(0)
    net = CrescendoNet(widths=(8, 12, 16), scale=2, hidden=(8,)).build(seed=0)
    model = Segmenter(net).train()
    paths = list(net.named_paths())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    images, masks, _, _ = shapes(96, seed=1)
    for step in range(100):
        batch = torch.arange(step * 8, step * 8 + 8) % len(images)
        loss = F.cross_entropy(model(images[batch], draw.choice(paths)), masks[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    images, masks, _, _ = shapes(24, seed=2)
    for text in paths:
        with torch.inference_mode():
            found = model(images, text).argmax(1)
        for label in (1, 2):
            both, either = ((found == label) & (masks == label)).sum(), ((found == label) | (masks == label)).sum()
            assert both / either > 0.8, (text, label)
