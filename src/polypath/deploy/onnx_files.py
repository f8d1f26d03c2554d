"""Finds where the weights of a bundle's ONNX files are stored, and compares runtimes with eager PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from polypath.core.extras import need
from polypath.deploy import check, onnx_graph
from polypath.deploy.manifest import STATISTICS
from polypath.deploy.needs import checkers
from polypath.profiling.cores import cores
from polypath.storage.layout import WEIGHTS

LOG = logging.getLogger(__name__)


def weights_at(folder: Path, place: int | None) -> dict[str, onnx_graph.Place]:
    """Return the places of a path's weights by name. ``place`` is the index of its norms in the statistics, or None."""
    known = onnx_graph.places(folder / WEIGHTS)
    if place is not None:
        for key, where in onnx_graph.places(folder / STATISTICS).items():
            index, _, rest = key.partition(".")
            norm, _, which = rest.rpartition(".")
            if index == str(place):
                known[f"{norm}.running_{which}"] = where
    return known


def check_onnx(file: Path, net: torch.nn.Module, shape: Sequence[int]) -> list[check.Check]:
    """Compare an ONNX file with eager PyTorch in each installed runtime. A runtime that cannot load the file is skipped
    with a warning.

    Raises:
        ValueError: a runtime differs from eager PyTorch, or no runtime can load the file.
        ImportError: no runtime is installed, so the file could not be checked.
    """
    found: list[check.Check] = []
    refused: list[ValueError] = []
    for runtime in checkers():
        try:
            run = opened(runtime, file)
        except ValueError as error:
            refused.append(error)
            continue
        found.append(check.compare(runtime, lambda x, run=run: run(x)[0], net, shape, file.name))
    if not found:
        raise refused[0]
    for error in refused:
        LOG.warning("%s; other runtimes can load it", error)
    return found


def opened(runtime: str, file: Path, batch: int | None = None) -> Callable[..., list[Any]]:
    """Open an ONNX file, and return it as a function of its inputs. The function accepts any batch size, or only
    ``batch`` if the runtime prepares for one size."""
    if runtime == "onnxruntime":
        from polypath.deploy.runtimes.onnxruntime_ import caller, make_session

        return caller(make_session(str(file), cores()), file)
    from polypath.deploy.runtimes.openvino_ import compiled_many, options

    return compiled_many(need("openvino", "checking an export").Core(), str(file), options(cores()), batch)
