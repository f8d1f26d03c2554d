"""Writes one network of a bundle into its folder: the network, its recalibrated norms, and a graph for each path."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polypath.core.batchnorm import BatchNormStatistics, bake
from polypath.core.extract import extract
from polypath.core.paths import Paths
from polypath.deploy import check, onnx_graph
from polypath.deploy.candidates import BundleNetwork, Candidate
from polypath.deploy.int8 import INT8
from polypath.deploy.manifest import STATISTICS
from polypath.deploy.onnx_files import check_onnx, weights_at
from polypath.storage.batchnorm import save_statistics
from polypath.storage.files import write_file
from polypath.storage.saving import save

LOG = logging.getLogger(__name__)


def write_network(
    one: BundleNetwork,
    kept: Mapping[str, Candidate],
    bank: BatchNormStatistics | None,
    folder: Path,
    *,
    whole: Mapping[str, bytes],
    path_table: Sequence[Mapping[str, Any]],
    dataset: str | None,
    notes: Sequence[str],
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Write the network and the graphs of its paths into ``folder``, which may contain other files. Return the graphs'
    files by path name, and the differences of each graph from eager PyTorch in each installed runtime.

    Args:
        kept: the paths to write, by their names in the bundle.
        bank: the paths' recalibrated batch-norm statistics.
        whole: finished graphs for paths in int8.
    """
    folder.mkdir(exist_ok=True)
    save(one.net, folder / "net", notes=notes, path_table=path_table, dataset=dataset)
    for file in list((folder / "net").iterdir()):
        file.rename(folder / file.name)
    (folder / "net").rmdir()
    if bank is not None:
        save_statistics(bank, folder / STATISTICS)
    files, checks = {}, []
    names = [candidate.name for candidate in kept.values()]
    for n, candidate in kept.items():
        if (graph := whole.get(n)) is not None:
            stem = _file_name(candidate.name.removesuffix(INT8), names)
            files[n] = f"{stem}.int8.onnx"
            write_file(folder / files[n], graph)
            continue
        files[n] = f"{_file_name(candidate.name, names)}.onnx"
        for found in _graph(one, candidate.paths, bank, folder, files[n]):
            LOG.info("%s: %s", n, found)
            checks.append({"path": n, "runtime": found.runtime, "max_abs": found.max_abs})
    return files, checks


def _graph(
    one: BundleNetwork, paths: Paths, bank: BatchNormStatistics | None, folder: Path, file: str
) -> list[check.Check]:
    """Write a path's graph, with weights in the shared files. Compare the graph with eager PyTorch in each installed
    runtime."""
    child = extract(one.net, paths)
    place = list(bank).index(paths) if bank is not None and paths in bank else None
    if bank is not None and place is not None:
        bake(child, bank[paths])
    child.eval()
    prep = one.preparation
    shape = (prep.channels, *prep.size)
    program = onnx_graph.exported(child, check.images(2, shape))
    model = onnx_graph.to_onnx(program, fold=False, name=file.removesuffix(".onnx"))
    onnx_graph.point_at(model, weights_at(folder, place), folder)
    onnx_graph.write(model, folder / file)
    return check_onnx(folder / file, child, shape)


def _file_name(name: str, names: Sequence[str]) -> str:
    plain = "".join(c if c.isalnum() or c in "=,-" else "-" for c in name)
    return plain if len(plain) <= 60 else f"path-{[n.removesuffix(INT8) for n in names].index(name) + 1}"
