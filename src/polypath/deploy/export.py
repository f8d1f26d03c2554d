"""Exports one path to a file with only the path's weights. Norms are folded. The file is compared with eager PyTorch.

onnx        PATH.onnx                weights inside
openvino    PATH.xml and PATH.bin    float32
torch       PATH.pt2                 written by ``torch.export``, for processes that have torch but not this package;
                                     Polypath never loads such a file, since loading runs pickle
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from polypath.core.arguments import takes
from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import PLACE, TEXT, check, one_of, optional
from polypath.core.deprecation import notes_are_logged
from polypath.core.extract import extract
from polypath.core.extras import need
from polypath.core.inputs import sides
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK, STATISTICS
from polypath.core.paths import Paths
from polypath.deploy import onnx_graph
from polypath.deploy.check import Check, compare, images
from polypath.deploy.needs import check_installed
from polypath.deploy.onnx_files import check_onnx
from polypath.deploy.runtimes.torch_ import folded
from polypath.profiling.cores import cores
from polypath.storage.files import write_file

FORMATS = ("onnx", "openvino", "torch")
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """The result of an export: the ``files``, their total size in ``bytes``, and the comparisons with eager PyTorch."""

    files: tuple[Path, ...]
    bytes: int
    checks: tuple[Check, ...]


@notes_are_logged
@takes(net=NETWORK, folder=PLACE, stats=STATISTICS, name=optional(TEXT))
def export_path(
    net: PathNet,
    paths: Paths | str,
    folder: str | os.PathLike[str],
    format: str = "onnx",
    *,
    stats: BatchNormStatistics | None = None,
    size: int | tuple[int, int] | None = None,
    name: str | None = None,
) -> Exported:
    """Write one path of ``net`` for another runtime, for any batch size and images of one size.

    If gates decide in the path, the graph runs every loop on every image, and the gates select among the results.
    :func:`polypath.deploy.write_stepwise` writes graphs that skip loops.

    Args:
        folder: the folder to write to; created if missing. Existing files are not overwritten.
        format: ``onnx``, ``openvino`` or ``torch``.
        stats: recalibrated batch-norm statistics to use for the path.
        size: image size in pixels; None means the network's own size, see :func:`image_size`.
        name: file name without the ending; by default made from the path's text.

    Raises:
        ValueError: the format is unknown, the path is illegal, a file exists, or the outputs differ from eager PyTorch
            by more than :data:`polypath.deploy.check.TOLERANCE` (nothing is written then).
        ImportError: a package that the format needs is missing.
    """
    check("format", format, one_of(*FORMATS))
    check_installed(format)
    child = extract(net, paths, stats=stats).eval().cpu()
    if any(join.gates for join in child.wiring.joins.values()):
        LOG.info(
            "this path has gates, but in one graph every image runs every loop; a stepwise export skips loops "
            "(polypath.deploy.write_stepwise, or polypath export --format onnx without --paths)"
        )
    shape = (net.in_chans, *image_size(net, size))
    target = Path(folder)
    stem = name or file_stem(str(child.config.get("paths", "whole")))
    endings = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "torch": (".pt2",)}[format]
    files = tuple(target / f"{stem}{ending}" for ending in endings)
    if there := [file for file in files if file.exists()]:
        raise ValueError(f"{there[0]}: this file exists; choose another folder")
    program = onnx_graph.exported(folded(child), images(2, shape))
    if format == "torch":
        checks, datas = _torch(program, child, shape, stem)
    else:
        checks, datas = _onnx(program, child, shape, stem, openvino=format == "openvino")
    target.mkdir(parents=True, exist_ok=True)
    for file, data in zip(files, datas, strict=True):
        write_file(file, data)
    for one in checks:
        LOG.info("%s: %s", stem, one)
    return Exported(files, sum(len(data) for data in datas), tuple(checks))


def file_stem(text: str) -> str:
    """Return a file name, without the ending, for a path's text."""
    plain = "".join(c if c.isalnum() or c in "=,-" else "-" for c in text)
    return plain if len(plain) <= 80 else "path"


def image_size(net: PathNet, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width of the exported input: ``size`` if given, otherwise the network's own size.

    If the network has no size of its own, the result is 32 or, if that is too small, the smallest size that the network
    accepts.
    """
    own = (net.config.get("image") or {}).get("size")
    return sides(size if size is not None else tuple(own) if own else max(32, net.min_size))


def _torch(program, child, shape, stem) -> tuple[list[Check], list[bytes]]:
    module = program.module()

    def run(x):
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    found = [compare("torch.export", run, child, shape, f"{stem}.pt2")]
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return found, [stream.getvalue()]


def _onnx(program, child, shape, stem, *, openvino: bool) -> tuple[list[Check], list[bytes]]:
    """Make and check the files in a temporary folder. Return the checks and the files' contents."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / f"{stem}.onnx"
        onnx_graph.write(onnx_graph.to_onnx(program, fold=True, name=stem), file)
        if not openvino:
            return check_onnx(file, child, shape), [file.read_bytes()]
        ov = need("openvino", "export to OpenVINO")
        from polypath.deploy.runtimes.openvino_ import compiled, options

        made = Path(place) / f"{stem}.xml"
        ov.save_model(ov.Core().read_model(file), made, compress_to_fp16=False)
        run = compiled(ov.Core(), str(made), options(cores()), None)
        found = [compare("openvino", run, child, shape, made.name)]
        return found, [made.read_bytes(), made.with_suffix(".bin").read_bytes()]
