"""Finds the size of every value of an ONNX graph for one image, before the graph runs.

onnx infers most shapes, but no shape that the graph itself computes from the shape of its input. Graphs with a dynamic
batch have such shapes. This module computes them for a batch of one, and puts them into the graph as constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

MOST = 2**20  # maximum number of elements of a shape or an index that a graph computes
MOST_IN_ALL = 2**22
ROUNDS = 8


def sizes_of(onnx: Any, model: Any, bound: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all node outputs by name, without those that cannot be inferred.

    Raises:
        ValueError: shapes do not match, a value has more than ``bound`` elements, or all computed shapes together have
            too many elements.
    """
    one = onnx.ModelProto()
    one.CopyFrom(model)
    del one.graph.value_info[:]
    for value in one.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for value in one.graph.output:
        value.type.tensor_type.ClearField("shape")
    known = {tensor.name: _array(onnx, tensor) for tensor in one.graph.initializer if _is_index(onnx, tensor)}
    found: dict[str, tuple[int, ...]] = {}
    room = MOST_IN_ALL
    for _ in range(ROUNDS):
        try:
            graph = onnx.shape_inference.infer_shapes(one, strict_mode=True).graph
        except Exception as error:  # onnx's own exceptions; some versions raise RuntimeError
            raise ValueError(f"the shapes in the graph do not fit together ({_first_line(error)})") from error
        found |= {value.name: shape for value in graph.value_info if (shape := _shape(value)) is not None}
        found |= {value.name: shape for value in (*graph.input, *graph.output) if (shape := _shape(value)) is not None}
        for name, shape in found.items():
            if math.prod(shape) > bound:
                raise ValueError(f"{name!r} has shape {shape} for one image, which is more than {bound:,} elements")
        left = []
        for node in one.graph.node:
            made = _computed(onnx, node, known, found)
            if made is None:
                left.append(node)
                continue
            if (room := room - made.size) < 0:
                raise ValueError(f"the shapes that the graph computes have more than {MOST_IN_ALL:,} elements in all")
            known[node.output[0]] = made
            one.graph.initializer.append(onnx.numpy_helper.from_array(made, node.output[0]))
        if len(left) == len(one.graph.node):
            break
        del one.graph.node[:]
        one.graph.node.extend(left)
    return found | {name: array.shape for name, array in known.items()}


def _computed(
    onnx: Any, node: Any, known: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]
) -> np.ndarray | None:
    """Return the output of a node that computes integers, or None if the output cannot be computed here."""
    options = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Constant":
        value = options.get("value_ints", options.get("value_int", options.get("value")))
        array = _array(onnx, value) if isinstance(value, onnx.TensorProto) and _is_index(onnx, value) else value
        made = np.asarray(array, np.int64) if isinstance(array, int | list | np.ndarray) else None
    elif node.op_type == "Shape":
        shape = shapes.get(node.input[0])
        made = None if shape is None else np.asarray(shape[options.get("start", 0) : options.get("end")], np.int64)
    elif node.op_type in _COMPUTED and all(name in known for name in node.input):
        arrays = [known[name] for name in node.input]
        try:
            made = np.asarray(_COMPUTED[node.op_type](options, *arrays)) if _room(node.op_type, arrays) else None
        except (TypeError, ValueError, IndexError, np.exceptions.AxisError):  # an invalid node; the runtime reports it
            made = None
    else:
        made = None
    return None if made is None or made.size > MOST or len(node.output) != 1 else made


def _room(kind: str, arrays: list[np.ndarray]) -> bool:
    """Return whether the output has at most :data:`MOST` elements; larger outputs could fill the memory."""
    if kind == "Range":
        begin, end, step = (int(array) for array in arrays)
        return step != 0 and len(range(begin, end, step)) <= MOST
    if kind in ("Add", "Mul", "Sub"):
        return math.prod(np.broadcast_shapes(*(array.shape for array in arrays))) <= MOST
    if kind == "Gather":
        return arrays[0].size * arrays[1].size <= MOST
    return True


def _reshaped(options: dict[str, Any], array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    sizes = [array.shape[i] if size == 0 and not options.get("allowzero") else size for i, size in enumerate(shape)]
    return array.reshape(sizes)


def _sliced(
    options: dict[str, Any],
    array: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> np.ndarray:
    index = [slice(None)] * array.ndim
    over = range(len(begins)) if axes is None else axes
    for axis, begin, end, step in zip(
        over, begins, ends, steps if steps is not None else [1] * len(begins), strict=True
    ):
        index[int(axis)] = slice(int(begin), int(end), int(step))
    return array[tuple(index)]


_COMPUTED: dict[str, Callable[..., Any]] = {
    "Add": lambda _, a, b: a + b,
    "Cast": lambda _, a: a,
    "Concat": lambda options, *arrays: np.concatenate(arrays, options["axis"]),
    "Gather": lambda options, a, index: a.take(index, options.get("axis", 0)),
    "Identity": lambda _, a: a,
    "Mul": lambda _, a, b: a * b,
    "Range": lambda _, begin, end, step: np.arange(int(begin), int(end), int(step), dtype=np.int64),
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Squeeze": lambda _, a, axes=None: a.squeeze(None if axes is None else tuple(axes)),
    "Sub": lambda _, a, b: a - b,
    "Unsqueeze": lambda _, a, axes: np.expand_dims(a, tuple(axes)),
}
"""The operators with which the exporter computes shapes and indices."""


def _is_index(onnx: Any, tensor: Any) -> bool:
    kinds = onnx.TensorProto
    return (
        tensor.data_type in (kinds.INT64, kinds.INT32)
        and tensor.data_location != kinds.EXTERNAL
        and math.prod(tensor.dims) <= MOST
    )


def _array(onnx: Any, tensor: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(tensor).astype(np.int64)


def _shape(value: Any) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return tuple(dim.dim_value for dim in tensor.shape.dim)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
