"""Small networks with training and held-out images, as bundles with paths in int8."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch

import polypath as pp
from conftest import randomise_norms
from polypath.deploy.candidates import HeldOut
from polypath.deploy.quantise import Calibration
from polypath.families.crescendonet import CrescendoNet

ABOUT: dict[str, Any] = {
    "normalisation": {"mean": [0.5] * 3, "std": [0.2] * 3},
    "image": {"size": [16, 16]},
    "classes": ["one", "two", "three"],
}
PATHS = ("branches=1", "whole")


def small_net(seed: int = 0) -> pp.PathNet:
    net = CrescendoNet(widths=(8, 8), scale=2, hidden=(16,), num_classes=3).build(seed=seed).eval()
    cast(Any, net.config).update(ABOUT)
    return randomise_norms(net)


def images(n: int, seed: int) -> torch.Tensor:
    """Smooth ones, whose values differ more from image to image than noise does."""
    rough = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(rough, size=(16, 16), mode="bilinear").contiguous()


def held_out(net: pp.PathNet, n: int = 200) -> HeldOut:
    """Images with labels that the whole gets right, except every fifth."""
    x = images(n, 1)
    with torch.no_grad():
        labels = net(x).argmax(1)
    labels[::5] = torch.arange(len(labels[::5])) % 3
    return HeldOut([(x, labels)], [(x, labels)])


def calibration() -> Calibration:
    return Calibration(images(64, 2), seed=2)


def weights_only(model: Any, calibration: Calibration) -> Any:
    """A substitute for NNCF if it is not installed: convs' weights in int8, one scale each, activations in float."""
    import onnx

    del calibration
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = {node.input[1] for node in made.graph.node if node.op_type == "Conv"}
    for tensor in [tensor for tensor in made.graph.initializer if tensor.name in weights]:
        array = onnx.numpy_helper.to_array(tensor)
        scale = np.float32(np.abs(array).max() / 63)
        whole = np.round(array / scale).astype(np.int8)
        name = tensor.name
        made.graph.initializer.remove(tensor)
        parts = {f"{name}_int8": whole, f"{name}_scale": np.asarray(scale), f"{name}_zero": np.asarray(0, np.int8)}
        made.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in parts.items())
        made.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", list(parts), [name]))
    return made
