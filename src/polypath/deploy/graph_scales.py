"""Checks scales and zero points of quantised values in an ONNX graph of unknown origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

KINDS = ("QuantizeLinear", "DequantizeLinear")
LARGEST = 1e30  # the largest allowed scale; times 255 it is still a finite float32


def check_scales(onnx: Any, graph: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``ValueError`` unless scales and zero points are stored in the graph itself, and fit the shapes of the
    quantised values. All scales must be finite and above 0.

    Args:
        shapes: the shapes of all node outputs, for one image.
    """
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in KINDS:
            _check(onnx, node, held, shapes)


def _check(onnx: Any, node: Any, held: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    what = f"{node.op_type} of {node.output[0] if node.output else '?'!r}"
    numbers = [held[name] for name in node.input[1:] if name in held and not held[name].external_data]
    if len(node.input) != 3 or len(numbers) != 2:
        raise ValueError(f"{what} must have a scale and a zero point in the graph itself")
    scale, zero = numbers
    kinds = onnx.TensorProto
    whole = (kinds.INT8, kinds.UINT8, *((kinds.INT32,) if node.op_type == "DequantizeLinear" else ()))
    if scale.data_type != kinds.FLOAT or zero.data_type not in whole:
        raise ValueError(
            f"{what} has a scale of type {scale.data_type} and a zero point of type {zero.data_type}; these types are "
            "not supported"
        )
    if strange := [attribute.name for attribute in node.attribute if attribute.name != "axis"]:
        raise ValueError(f"{what} has the attribute {strange[0]!r}, which is not allowed")
    values = onnx.numpy_helper.to_array(scale)
    if not (np.isfinite(values) & (values > 0) & (values <= LARGEST)).all():
        raise ValueError(f"{what} has a scale that is not a finite number above 0")
    if list(scale.dims) != list(zero.dims) or len(scale.dims) > 1:
        raise ValueError(
            f"{what} has scales of shape {list(scale.dims)} and zero points of shape {list(zero.dims)}: "
            "must have equal shapes with at most one dimension"
        )
    if scale.dims and list(scale.dims) != [1]:
        axis = next((attribute.i for attribute in node.attribute), 1)
        source = node.input[0]
        shape = tuple(held[source].dims) if source in held else shapes.get(source, ())
        if not -len(shape) <= axis < len(shape) or shape[axis] != scale.dims[0]:
            raise ValueError(f"{what} has {scale.dims[0]} scales, which do not fit axis {axis} of shape {shape}")
