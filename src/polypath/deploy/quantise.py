"""Quantises a path's graph to int8 after training, with NNCF and training images.

Source: R. Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, arXiv:1806.08342, sections 2
and 3. Weights have a scale for each channel, and activations have a scale for each tensor. Ranges are estimated from a
few hundred images. Weights use only half of the int8 range: AVX2 and early AVX512 add two products in 16 bits, and
their sum must fit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polypath.core.checks import check, whole
from polypath.core.extras import installed, need, version_of
from polypath.core.quiet import quiet
from polypath.deploy.graph_check import IMAGES

IMAGES_NEEDED = 300
"""The default number of images from which ranges are estimated. It is NNCF's default."""


@dataclass(frozen=True)
class Calibration:
    """Training images from which the ranges of activations are estimated.

    Args:
        images: images ``(N, C, H, W)``, prepared as for the network, without augmentation.
        seed: random seed with which the images were chosen.
    """

    images: Tensor
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or not len(self.images):
            raise ValueError(f"calibration: images have shape {tuple(self.images.shape)}: must be (N, C, H, W)")

    @classmethod
    def of(cls, batches: Iterable[Any], images: int, seed: int) -> Calibration:
        """Take the first ``images`` images from batches ``(images, …)``.

        Raises:
            ValueError: there are no images.
        """
        check("calibration images", images, whole(1))
        found, count = [], 0
        for batch in batches:
            found.append(batch[0].cpu().float())
            count += len(found[-1])
            if count >= images:
                break
        return cls(torch.cat(found)[:images].contiguous(), seed)

    @property
    def record(self) -> dict[str, Any]:
        """The facts about these images for the manifest."""
        return {"images": len(self.images), "seed": self.seed, "nncf": version_of("nncf")}


def quantised(model: Any, calibration: Calibration) -> Any:
    """Quantise an ONNX model to int8, for both ONNX Runtime and OpenVINO. In the result, activations pass through pairs
    of ``QuantizeLinear`` and ``DequantizeLinear``, and weights are stored as int8.

    Args:
        model: an ``onnx.ModelProto`` with its weights inside. The model is not changed.

    Raises:
        ImportError: NNCF is missing.
        ValueError: NNCF cannot quantise the graph.
    """
    if installed("openvino"):
        need("openvino", "quantisation")  # imported quietly, before NNCF imports it
    with quiet("torch.utils.cpp_extension"):  # silences progress bars, and torch's messages about compilers
        nncf = need("nncf", "--precision int8", "quantize")
        nncf.set_log_level(logging.ERROR)
        images: Iterable[np.ndarray] = calibration.images.numpy()
        try:
            return nncf.quantize(
                model,
                nncf.Dataset([{IMAGES: image[None]} for image in images]),
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(calibration.images),
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
            )
        except Exception as error:  # NNCF and ONNX Runtime raise many types
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ValueError(f"NNCF cannot quantise {model.graph.name!r} ({first})") from error
