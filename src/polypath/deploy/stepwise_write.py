"""Writes a gated network step by step: a graph for each piece, and the order in which they run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from polypath.core.deprecation import notes_are_logged
from polypath.core.execute import Trace, run_steps
from polypath.core.network import PathNet
from polypath.core.wiring import INPUT
from polypath.deploy import check, onnx_graph
from polypath.deploy.export import image_size
from polypath.deploy.needs import check_installed
from polypath.deploy.stepwise import FORMAT, STEPS, VERSION, Stepwise
from polypath.deploy.stepwise_cut import Piece, Stage, cut, pieces_of
from polypath.storage.digests import folder_digests
from polypath.storage.files import new_folder, write_json
from polypath.storage.layout import WEIGHTS
from polypath.storage.saving import save

LOG = logging.getLogger(__name__)


@notes_are_logged
def write_stepwise(
    net: PathNet,
    folder: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
) -> list[check.Check]:
    """Write a gated network step by step into a new folder, and compare its answers with eager PyTorch's.

    Args:
        size: image size in pixels; None means the network's own size, see :func:`polypath.deploy.export.image_size`.

    Raises:
        ValueError: the network has no gates, the folder exists, or answers differ from eager PyTorch's.
        ImportError: the exporter's packages are missing.
    """
    net = net.eval()
    target = Path(folder)
    if target.exists():
        raise ValueError(f"{target}: this folder exists; choose another one")
    check_installed("steps")
    height, width = image_size(net, size)
    stages, modules = cut(net)
    values = _values(net, stages, check.images(2, (net.in_chans, height, width)))
    with new_folder(target) as made:
        save(net, made / "net")
        for file in list((made / "net").iterdir()):
            file.rename(made / file.name)
        (made / "net").rmdir()
        shared = onnx_graph.places(made / WEIGHTS)
        for piece in pieces_of(stages):
            stem = piece.file.removesuffix(".onnx")
            module, inputs = modules[stem], [values[name] for name in piece.inputs]
            _write_piece(module, inputs, piece, shared, made)
            LOG.info("wrote %s", piece.file)
        write_json(
            made / STEPS,
            {
                "format": FORMAT,
                "format_version": VERSION,
                "input": INPUT,
                "output": net.wiring.output,
                "size": [height, width],
                "channels": net.in_chans,
                "stages": [asdict(stage) for stage in stages],
                "files": folder_digests(made),
            },
        )
        ready = Stepwise.open(made)
        one = check.compare(
            "onnxruntime, stepwise", lambda x: ready.run(x)[0], net, (net.in_chans, height, width), target.name
        )
        LOG.info("%s", one)
    return [one]


def _write_piece(
    module: nn.Module, inputs: Sequence[Tensor], piece: Piece, shared: Mapping[str, onnx_graph.Place], folder: Path
) -> None:
    program = onnx_graph.exported_many(module, inputs)
    model = onnx_graph.to_onnx(program, fold=False, name=piece.file.removesuffix(".onnx"), outputs=piece.outputs)
    known = {f"net.{name}": place for name, place in shared.items()}
    onnx_graph.point_at(model, known, folder)
    onnx_graph.write(model, folder / piece.file)


def _values(net: PathNet, stages: Sequence[Stage], x: Tensor) -> dict[str, Tensor]:
    """Compute an example of every value that a piece reads, with all loops run."""
    read = frozenset(name for piece in pieces_of(stages) for name in piece.inputs)
    trace = Trace(read)
    with torch.no_grad():
        run_steps(net, net.plan(None), {INPUT: x}, gates="all", trace=trace)
    return {INPUT: x, **trace.values}
