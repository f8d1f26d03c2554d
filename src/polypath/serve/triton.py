"""A bundle as a model repository of NVIDIA's Triton Inference Server: one model a path, each in a file of its own.

    REPOSITORY/NAME/config.pbtxt     shapes read from the graph, dynamic batching, what to do with late requests
    REPOSITORY/NAME/1/model.onnx     the graph with its weights inside
    REPOSITORY/NAME/labels.txt       class names, a line each

The choice of a path by budget stays with the client: Triton has no notion of it. Polypath's tests read the
configuration by its protocol buffer definition; they do not run Triton.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from polypath.files import write_file

MAX_BATCH, DELAY_US, QUEUE, TIMEOUT_US = 16, 500, 256, 1_000_000
TYPES = {1: "TYPE_FP32", 2: "TYPE_UINT8", 3: "TYPE_INT8", 6: "TYPE_INT32", 7: "TYPE_INT64", 10: "TYPE_FP16"}
"""Element types of ONNX by their number."""


def model_name(path: str) -> str:
    """A path's name as a folder and as part of a URL: ``branches=1,3`` becomes ``branches-1_3``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.replace("=", "-")).strip("_.") or "path"


def write_repository(
    out: Path, graphs: Mapping[str, Path], classes: Sequence[str], *, max_batch: int = MAX_BATCH
) -> list[Path]:
    """Write a model repository.

    Args:
        out: a new or empty folder.
        graphs: path → its ONNX file, whose first dimension is a free batch; weights may lie in external files.
        classes: names in the order of the output.
        max_batch: images in one batch at most.

    Returns:
        The files written.

    Raises:
        ValueError: ``out`` is not empty, names that fall together, a graph with several inputs or outputs, a fixed
            batch, or another number of classes.
        ImportError: onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("a Triton repository needs onnx: pip install 'polypath[deploy]'") from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: exists and is not empty; choose another folder")
    names = {path: model_name(path) for path in graphs}
    if len(set(names.values())) < len(names):
        raise ValueError(f"paths {sorted(names)}: some have the same name as folders, {sorted(names.values())}")
    if max_batch < 1:
        raise ValueError(f"max_batch {max_batch!r}: expected a whole number of at least 1")
    written = []
    for path, file in graphs.items():
        graph = onnx.load(str(file))  # with its external weights
        text = config(names[path], graph, len(classes), max_batch)
        folder = out / names[path]
        (folder / "1").mkdir(parents=True)
        write_file(folder / "1" / "model.onnx", graph.SerializeToString())
        write_file(folder / "labels.txt", "".join(f"{name}\n" for name in classes))
        write_file(folder / "config.pbtxt", text)
        written += [folder / "1" / "model.onnx", folder / "labels.txt", folder / "config.pbtxt"]
    return written


def config(name: str, graph, classes: int, max_batch: int) -> str:
    """``config.pbtxt`` of one path; ``graph`` is an ``onnx.ModelProto``.

    Raises:
        ValueError: see :func:`write_repository`.
    """
    constants = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.graph.output) != 1:
        counts = f"{len(inputs)} inputs and {len(graph.graph.output)} outputs"
        raise ValueError(f"{name}: the graph has {counts}; expected one of each")
    image, result = _tensor(name, inputs[0]), _tensor(name, graph.graph.output[0])
    if result[2] != [classes]:
        raise ValueError(f"{name}: the graph gives {result[2]} values an image for {classes} classes")
    preferred = ", ".join(str(2**i) for i in range(1, max_batch.bit_length()) if 2**i <= max_batch)
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [ {{ {_text(image)} }} ]
output [ {{ {_text(result)} label_filename: "labels.txt" }} ]
dynamic_batching {{
  {f"preferred_batch_size: [ {preferred} ]" if preferred else ""}
  max_queue_delay_microseconds: {DELAY_US}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {TIMEOUT_US}
    allow_timeout_override: true
    max_queue_size: {QUEUE}
  }}
}}
instance_group [ {{ count: 1 kind: KIND_AUTO }} ]
"""


def _tensor(name: str, value) -> tuple[str, str, list[int]]:
    """(name, type, dimensions without the batch) of an input or output."""
    kind = TYPES.get(value.type.tensor_type.elem_type)
    batch, *rest = value.type.tensor_type.shape.dim
    if kind is None or batch.HasField("dim_value"):
        what = "a fixed batch" if kind else f"element type {value.type.tensor_type.elem_type}"
        raise ValueError(f"{name}: {value.name} has {what}; expected a free batch of {', '.join(TYPES.values())}")
    return value.name, kind, [dim.dim_value if dim.HasField("dim_value") else -1 for dim in rest]


def _text(tensor: tuple[str, str, list[int]]) -> str:
    name, kind, dims = tensor
    return f'name: "{name}" data_type: {kind} dims: [ {", ".join(map(str, dims))} ]'
