"""Checks ONNX graphs of unknown origin before a runtime loads them.

An accepted graph reads weights only from files in its own folder, named without a path, and never beyond the end of a
file. It is a single graph with only the allowed operators: no control flow, no functions, no operators of domains other
than ONNX's own. Its outputs have the shapes that the manifest states, and no intermediate value is far larger than a
network's feature maps.

Runtimes check only some of this: ONNX Runtime 1.20 reads ``../../x`` as weights, later versions do not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polypath.core.extras import need
from polypath.deploy.graph_scales import check_scales
from polypath.deploy.graph_sizes import sizes_of
from polypath.storage.files import read_regular

IMAGES, LOGITS = "images", "logits"
"""Names of the input and the output of a path's graph."""
OPSETS = range(13, 26)
LARGEST = 2**31 - 1  # maximum bytes of a graph, the format's limit
MOST_NODES = 2**16
MOST_MAPS = 4096  # maximum size of a value in a graph, in feature maps of the image's size
SMALLEST_BOUND = 2**20  # number of elements that any value may have, however small the image is
OPERATORS = frozenset({
    # convs, products, norms, pools
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "MatMul",
    "MaxPool",
    # element by element
    "Abs", "Add", "And", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Max",
    "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
    "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "Where", "Xor",
    # quantisation
    "DequantizeLinear", "QuantizeLinear",
    # reductions and ranges
    "ArgMax", "ArgMin", "Range", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
    # shapes
    "Cast", "CastLike", "Concat", "Constant", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements",
    "Identity", "Pad", "Reshape", "Resize", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
})  # fmt: skip
"""Operators that a graph may contain: those in exports of all families and of timm's convolutional networks and
transformers, and elementary functions. None of them branches, loops, generates random numbers or reads files. The sizes
of all their outputs are known before a graph runs."""


class GraphRefused(ValueError):
    """The error for a graph that failed the check. No runtime loads it."""


@dataclass(frozen=True)
class Value:
    """An input or output of a graph: float32 ``(batch, *shape)``. None stands for any name or any shape."""

    name: str | None = None
    shape: tuple[int, ...] | None = None


def check_graph(file: Path, beside: Collection[str], inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
    """Check an ONNX file without running it or reading weights.

    Args:
        beside: names of files in the graph's folder. The graph may read weights from the ``.safetensors`` files among
            these.
        inputs, outputs: the inputs and outputs that the graph must have.

    Raises:
        GraphRefused: the graph breaks a rule. The message contains the file name.
        ImportError: onnx is missing.
    """
    onnx = need("onnx", "checking a bundle's graphs")
    try:
        data = read_regular(file, LARGEST + 1)
    except OSError as error:
        raise GraphRefused(f"{file}: {error.strerror or error}") from error
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's exceptions differ between its versions
        raise GraphRefused(f"{file}: the file is damaged, or is not an ONNX file") from error
    weights = frozenset(name for name in beside if name.endswith(".safetensors"))
    try:
        _check(onnx, model, file.parent, weights, inputs, outputs)
    except (ValueError, TypeError) as error:  # names that are not UTF-8 arrive as bytes
        raise GraphRefused(f"{file} is refused: {error}") from error


def check_operators(nodes: Collection[tuple[str, str]]) -> None:
    """Raise ``ValueError`` unless all nodes, given as (domain, operator), are allowed by :data:`OPERATORS`."""
    for domain, kind in nodes:
        if kind in ("If", "Loop", "Scan") and domain in ("", "ai.onnx"):
            raise ValueError(f"the graph has the operator {kind!r}, but control flow is not allowed")
        if domain not in ("", "ai.onnx") or kind not in OPERATORS:
            raise ValueError(f"the graph has the operator {f'{domain}.{kind}'.strip('.')!r}, which is not allowed")


def _check(
    onnx: Any, model: Any, folder: Path, beside: Collection[str], inputs: Sequence[Value], outputs: Sequence[Value]
) -> None:
    graph = model.graph
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    if len(opsets) != 1 or opsets[0][0] not in ("", "ai.onnx") or opsets[0][1] not in OPSETS:
        raise ValueError(f"the operator sets are {opsets!r}: must be ONNX's own, {OPSETS[0]} to {OPSETS[-1]}")
    for part in (model.functions, model.training_info, graph.sparse_initializer):
        if len(part):
            raise ValueError("functions, training information and sparse weights are not allowed")
    if len(graph.node) > MOST_NODES:
        raise ValueError(f"the graph has {len(graph.node):,} nodes: at most {MOST_NODES:,} are allowed")
    check_operators([(node.domain, node.op_type) for node in graph.node])
    for node in graph.node:
        names = (node.name, *node.input, *node.output, *(attribute.name for attribute in node.attribute))
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"node {node.name!r}: its name, or one of its inputs, outputs or attributes, is not UTF-8")
        for attribute in node.attribute:
            _check_attribute(onnx, node, attribute)
    for tensor in graph.initializer:
        _check_tensor(onnx, tensor, f"weight {tensor.name!r}", folder, beside)
    _check_values("inputs", graph.input, inputs, onnx)
    _check_values("outputs", graph.output, outputs, onnx)
    _check_names(graph)
    _check_sizes(onnx, model, outputs)


def _check_names(graph: Any) -> None:
    """Refuse two values with the same name, since a runtime and these checks might use different ones."""
    given = [*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)]
    given += [name for node in graph.node for name in node.output if name]
    if twice := [name for name, times in Counter(given).items() if times > 1]:
        raise ValueError(f"two values have the name {twice[0]!r}")


def _check_attribute(onnx: Any, node: Any, attribute: Any) -> None:
    what = f"{attribute.name!r} of node {node.name!r} ({node.op_type})"
    kinds = onnx.AttributeProto
    plain = (kinds.FLOAT, kinds.INT, kinds.STRING, kinds.TENSOR, kinds.FLOATS, kinds.INTS, kinds.STRINGS)
    others = (attribute.graphs, attribute.tensors, attribute.sparse_tensors, attribute.type_protos)
    single = any(attribute.HasField(name) for name in ("g", "sparse_tensor", "tp"))
    if attribute.type not in plain or attribute.ref_attr_name or single or any(map(len, others)):
        raise ValueError(f"{what} must be a number, a text, or an array of numbers or texts")
    if attribute.type == kinds.TENSOR:
        _check_tensor(onnx, attribute.t, what, Path(), ())


def _check_tensor(onnx: Any, tensor: Any, what: str, folder: Path, beside: Collection[str]) -> None:
    """Check that a tensor has as many bytes as its shape needs, in the graph or in an allowed file."""
    kinds = onnx.TensorProto
    widths = {kinds.FLOAT: 4, kinds.DOUBLE: 8, kinds.INT32: 4, kinds.INT64: 8, kinds.BOOL: 1}
    widths |= {kinds.INT8: 1, kinds.UINT8: 1}
    width = widths.get(tensor.data_type)
    if width is None or tensor.HasField("segment") or any(size < 0 for size in tensor.dims):
        raise ValueError(f"{what} has type {tensor.data_type} and shape {list(tensor.dims)}, which is not supported")
    count = math.prod(tensor.dims)
    if tensor.data_location == kinds.EXTERNAL:
        _check_place(tensor.external_data, width * count, what, folder, beside)
        return
    fields = {kinds.FLOAT: "float_data", kinds.DOUBLE: "double_data", kinds.INT64: "int64_data"}
    held = len(getattr(tensor, fields.get(tensor.data_type, "int32_data"))) * width + len(tensor.raw_data)
    if tensor.external_data or held != width * count:
        raise ValueError(f"{what} has {held:,} bytes, but its shape {list(tensor.dims)} needs {width * count:,}")


def _check_place(entries: Any, needed: int, what: str, folder: Path, beside: Collection[str]) -> None:
    place = {entry.key: entry.value for entry in entries}
    location = place.get("location", "")
    if len(place) < len(entries) or location not in beside:
        legal = ", ".join(sorted(beside)) or "none"
        raise ValueError(f"{what} is read from {location!r}; the allowed files are: {legal}")
    numbers = [place.get(key, "") for key in ("offset", "length")]
    if not all(text.isascii() and text.isdigit() and len(text) < 19 for text in numbers):
        raise ValueError(f"{what} has offset {numbers[0]!r} and length {numbers[1]!r}: must be whole numbers")
    offset, length = map(int, numbers)
    there = (folder / location).stat().st_size
    if length != needed or offset + length > there:
        raise ValueError(
            f"{what} is read from {length:,} bytes at offset {offset:,} of {location}, a file of {there:,} bytes; "
            f"its shape needs {needed:,} bytes"
        )


def _check_values(kind: str, found: Any, wanted: Sequence[Value], onnx: Any) -> None:
    if len(found) != len(wanted):
        raise ValueError(f"the graph has {len(found)} {kind}: must have {len(wanted)}")
    for value, known in zip(found, wanted, strict=True):
        tensor = value.type.tensor_type
        sizes = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
        fits = known.shape is None or tuple(sizes[1:]) == known.shape
        if known.name not in (None, value.name) or tensor.elem_type != onnx.TensorProto.FLOAT or not sizes or not fits:
            legal = "any" if known.shape is None else f"(batch, {', '.join(map(str, known.shape))})"
            raise ValueError(
                f"the graph's {kind} contain {value.name!r} of type {tensor.elem_type} and shape {sizes}: must have "
                f"name {known.name or 'any'}, type float32, shape {legal}"
            )
        if isinstance(sizes[0], int):
            raise ValueError(
                f"the graph's {kind} contain {value.name!r} of batch size {sizes[0]}: must allow any batch size"
            )


def _check_sizes(onnx: Any, model: Any, outputs: Sequence[Value]) -> None:
    """Check that every value has a known size for one image, and that no value is far larger than feature maps."""
    sizes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input]
    pixels = max((math.prod(shape[2:]) for shape in sizes), default=1)
    bound = max(SMALLEST_BOUND, MOST_MAPS * pixels)
    found = sizes_of(onnx, model, bound)
    check_scales(onnx, model.graph, found)
    for node in model.graph.node:
        for name in filter(None, node.output):
            if name not in found:
                raise ValueError(f"the size of {name!r} ({node.op_type}) is not known before the graph runs")
    for value, wanted in zip(model.graph.output, outputs, strict=True):
        if wanted.shape is not None and (shape := found.get(value.name)) != (1, *wanted.shape):
            raise ValueError(f"{value.name!r} has shape {shape} for one image: must be {(1, *wanted.shape)}")
