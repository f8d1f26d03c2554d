"""Converts networks without choices to ONNX graphs with torch's dynamo exporter, with weights in shared files."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polypath.core.extras import need
from polypath.core.quiet import quiet
from polypath.deploy.graph_check import IMAGES, LOGITS, check_operators
from polypath.storage.files import write_file

OPSET = 20


def exported(net: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Export ``net`` with ``torch.export``, for batches of any size. ``example`` ``(N, …)`` has two samples or more.

    Raises:
        ValueError: torch cannot export the network as one graph.
    """
    return exported_many(net, [example])


def exported_many(net: nn.Module, examples: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """Export a module with several inputs of the same batch size, as :func:`exported` does."""
    if min(map(len, examples)) < 2:
        raise ValueError(
            "an example has fewer than two samples: give two or more, since torch treats a batch of one as a constant"
        )
    batch = torch.export.Dim("batch", max=2**16)
    shapes: Any = tuple({0: batch} for _ in examples)
    several = any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(net.forward).parameters.values())
    try:
        with torch.no_grad():
            return torch.export.export(net.eval(), tuple(examples), dynamic_shapes=(shapes,) if several else shapes)
    except Exception as error:  # torch._dynamo raises many types
        raise ValueError(f"torch cannot export this network ({_first_line(error)})") from error


def to_onnx(program: torch.export.ExportedProgram, *, fold: bool, name: str, outputs: Sequence[str] = (LOGITS,)) -> Any:
    """Convert a program to an ``onnx_ir.Model``. Its input is called ``images``, further inputs ``input2``, ….

    Args:
        program: the exported program. It is modified: memory formats, which ONNX does not have, are removed.
        fold: let the exporter merge norms into convs. Otherwise weights keep the network's names and values.
        name: name of the graph.

    Raises:
        ImportError: the exporter's packages are missing.
        ValueError: the program has operators that ONNX does not have, or control flow (``If``).
    """
    need("onnx", "export to ONNX")
    need("onnxscript", "export to ONNX")
    from onnxscript import optimizer

    _forget_memory_formats(program)
    with quiet("torch.onnx", "onnxscript", "onnx_ir"):
        try:
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                optimize=fold,
                input_names=[IMAGES, *(f"input{i + 2}" for i in range(_inputs(program) - 1))],
                output_names=list(outputs),
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:  # torch.onnx raises many types
            raise ValueError(f"torch cannot write this network as ONNX ({_first_line(error)})") from error
        assert made is not None
        model = made.model
        if not fold:
            optimizer.fold_constants(model)
            optimizer.remove_unused_nodes(model)
    _strip(model, name)
    check_static(model)
    return model


def _forget_memory_formats(program: torch.export.ExportedProgram) -> None:
    """Remove memory formats: ONNX has only one, and torch 2.11 would write loops that copy to another one."""
    aten = torch.ops.aten
    for node in list(program.graph.nodes):
        if node.target is aten.contiguous.default:
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
        elif node.target is aten.adaptive_avg_pool2d.default and list(node.args[1]) == [1, 1]:
            node.target, node.args = aten.mean.dim, (node.args[0], [-1, -2], True)
    program.graph_module.recompile()


def _inputs(program: torch.export.ExportedProgram) -> int:
    return len(program.graph_signature.user_inputs)


def check_static(model: Any) -> None:
    """Raise ``ValueError`` if a graph has control flow (choices are made outside of graphs), or an operator that is
    refused when the graph is read."""
    check_operators([(node.domain, node.op_type) for node in model.graph.all_nodes()])


@dataclass(frozen=True)
class Place:
    """The place where a tensor is stored: ``length`` bytes of ``file``, from ``offset`` on."""

    file: str
    offset: int
    length: int


def places(file: Path) -> dict[str, Place]:
    """Return the places of the float32 tensors of a safetensors file, by name."""
    with open(file, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    found = {}
    for name, facts in header.items():
        if name != "__metadata__" and facts["dtype"] == "F32":
            begin, end = facts["data_offsets"]
            found[name] = Place(file.name, 8 + size + begin, end - begin)
    return found


def point_at(model: Any, known: Mapping[str, Place], folder: Path) -> int:
    """Replace weights in the graph by references to files in ``folder``, and return the number of these weights.

    ``known`` contains the place of each weight, by its name in the graph. A weight stays in the graph if its bytes
    differ from those at this place (the exporter may change a layout).
    """
    import onnx_ir as ir

    moved = 0
    for name, value in model.graph.initializers.items():
        place, tensor = known.get(name), value.const_value
        if place is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        data = np.ascontiguousarray(tensor.numpy()).tobytes()
        with open(folder / place.file, "rb") as stream:
            stream.seek(place.offset)
            if stream.read(place.length) != data:
                continue
        value.const_value = ir.ExternalTensor(
            place.file,
            place.offset,
            place.length,
            ir.DataType.FLOAT,
            shape=value.shape,
            name=name,
            base_dir=os.fspath(folder),
        )
        moved += 1
    return moved


def write(model: Any, file: Path) -> None:
    """Write a model atomically. Weights in other files are not copied."""
    import onnx_ir as ir

    write_file(file, ir.to_proto(model).SerializeToString())


def _strip(model: Any, name: str) -> None:
    """Set the graph's name, and remove the exporter's records of source lines, which are half of the file."""
    model.graph.name = name
    model.graph.doc_string = model.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        values += node.outputs
    for value in values:
        value.metadata_props.clear()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
