"""Runs gated networks that were exported step by step: each part between gates and each loop is a separate graph.

A gate runs at the end of the graph that computes the gate's input. If this input comes from a switch, the gate is a
separate graph. Decisions are applied outside the graphs, so a loop that a sample skips costs nothing. Samples that
continue are gathered into a smaller batch. The other samples wait for the end of the switch, as in
:mod:`polypath.core.execute`.

config.json, model.safetensors    the network, written by :mod:`polypath.storage.saving`
NAME.onnx                         a graph; weights that loops share are stored once, in ``model.safetensors``
steps.json                        the order in which the graphs run

    write_stepwise(net, "steps/")
    logits, loops = Stepwise.open("steps/").run(x)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polypath.core.network import PathNet
from polypath.core.wiring import INPUT
from polypath.deploy.graph_check import Value, check_graph
from polypath.deploy.manifest import FileFacts, check_file, check_files
from polypath.deploy.plain_files import PlainFiles
from polypath.deploy.stepwise_cut import Stage, cut, pieces_of
from polypath.storage.decode import decode
from polypath.storage.files import read_json

STEPS, FORMAT, VERSION = "steps.json", "polypath-steps", 1
Run = Callable[..., list[np.ndarray]]


class Stepwise:
    """A network written by :func:`polypath.deploy.write_stepwise`. :meth:`open` opens such a network."""

    def __init__(self, stages: Sequence[Stage], runs: Mapping[str, Run], names: tuple[str, str]) -> None:
        self.stages, self.runs = tuple(stages), dict(runs)
        self.input, self.output = names

    @classmethod
    def open(cls, folder: str | os.PathLike[str], threads: int | None = None, *, verify: bool = True) -> Stepwise:
        """Open the network in ``folder`` in ONNX Runtime.

        Args:
            verify: whether to compare every file with its checksum.

        Raises:
            ValueError: the folder does not exist, a file is damaged or missing, or the format's version is too new.
            ImportError: ONNX Runtime is missing.
        """
        from polypath.deploy.runtimes.onnxruntime_ import caller, make_session
        from polypath.profiling.cores import cores

        place = Path(folder)
        steps = _read_steps(place, verify)
        files, runs = PlainFiles(place, steps.files), {}
        for piece in pieces_of(steps.stages):
            file = files.folder / piece.file
            check_graph(file, steps.files, [Value()] * len(piece.inputs), [Value(name) for name in piece.outputs])
            runs[piece.file] = caller(make_session(str(file), threads or cores(), spin=False), file)
        return cls(steps.stages, runs, (steps.input, steps.output))

    @classmethod
    def of(cls, net: PathNet) -> Stepwise:
        """Make a stepwise network that runs the stages of ``net`` in eager PyTorch, for comparison."""
        stages, modules = cut(net.eval())
        runs = {f"{stem}.onnx": _eager(module) for stem, module in modules.items()}
        return cls(stages, runs, (INPUT, net.wiring.output))

    def run(self, x: np.ndarray, *, force_open: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return logits ``(N, classes)`` for images ``(N, C, H, W)``, and each image's number of gated loops ``(N,)``.

        Args:
            force_open: run the gates, but ignore their decisions and run every loop, as a baseline for measurements.
        """
        values, loops = {self.input: x}, np.zeros(len(x), np.int64)
        for stage in self.stages:
            if stage.piece is not None:
                found = self.runs[stage.piece.file](*(values[name] for name in stage.piece.inputs))
                values.update(zip(stage.piece.outputs, found, strict=True))
            else:
                values[stage.name] = self._switch(stage, values, loops, force_open)
            for name in stage.free:
                values.pop(name, None)
        return values[self.output], loops

    def _switch(self, stage: Stage, values: dict[str, np.ndarray], loops: np.ndarray, force_open: bool) -> Any:
        begin = stage.loops[0].begin
        forgotten = begin in stage.free and begin != self.input
        own = forgotten and not any(begin in loop.body.inputs for loop in stage.loops[1:])  # x may be written to
        x = values[begin]
        total, ran = len(x), 0
        rows, out = None, None  # rows is None while all samples run
        logits = values.pop(stage.loops[0].logits or "", None)
        for loop in stage.loops:
            if loop.gate is not None:
                source = loop.gate.inputs[0]
                logits = self.runs[loop.gate.file](x if source == loop.begin else _at(values[source], rows))[0]
            if logits is not None:
                opened = logits[:, 1] > logits[:, 0]
                going = len(x) if force_open else np.count_nonzero(opened)
                if not going:
                    break
                if going < len(x):
                    if rows is None or out is None:
                        rows, out = np.arange(total), np.empty((total, *x.shape[1:]), x.dtype)
                    stops = np.flatnonzero(~opened)
                    out[rows[stops]] = x.take(stops, 0)
                    loops[rows[stops]] += ran
                    x, rows = _closed_up(x, rows, opened, own)
                ran += 1
            inputs = (x if name == loop.begin else _at(values[name], rows) for name in loop.body.inputs)
            x, *asked = self.runs[loop.body.file](*inputs)
            logits, own = asked[0] if asked else None, True
        if rows is None or out is None:
            loops += ran
            return x if forgotten or x is not values[begin] else x.copy()
        out[rows] = x
        loops[rows] += ran
        return out


def _at(value: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    return value if rows is None else value.take(rows, 0)


def _closed_up(x: np.ndarray, rows: np.ndarray, opened: np.ndarray, in_place: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples that continue, and their rows. With ``in_place``, the last samples are moved to the places of
    the samples that stop."""
    goes = np.flatnonzero(opened)
    if not in_place:
        return x.take(goes, 0), rows[goes]
    count = len(goes)
    left, last = np.flatnonzero(~opened[:count]), goes[goes >= count]
    x[left] = x.take(last, 0)
    rows[left] = rows[last]
    return x[:count], rows[:count]


def _eager(module: nn.Module) -> Run:
    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            out = module(*map(torch.from_numpy, inputs))
        return [t.numpy() for t in ((out,) if isinstance(out, Tensor) else out)]

    return run


@dataclass(frozen=True)
class _Steps:
    """The contents of ``steps.json``."""

    input: str
    output: str
    stages: tuple[Stage, ...]
    files: dict[str, FileFacts]


def _read_steps(folder: Path, verify: bool) -> _Steps:
    file = folder / STEPS
    if not file.is_file():
        raise ValueError(f"{folder} is not a stepwise network: {STEPS} is missing")
    values = read_json(file)
    if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("format_version") != VERSION:
        raise ValueError(f'{file}: must have "format": "{FORMAT}" and "format_version": {VERSION}')
    steps = decode(values, _Steps, str(file), others=True)
    try:
        check_files(steps.files)
        _check_order(steps)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    for name, facts in steps.files.items():
        check_file(folder / name, facts, verify)
    return steps


def _check_order(steps: _Steps) -> None:
    """Raise ``ValueError`` if a stage reads a value that no earlier stage computes, or a file has no checksum."""
    held = {steps.input}
    for stage in steps.stages:
        if (stage.piece is None) != bool(stage.loops):
            raise ValueError(f"stages: {stage.name!r} must have either a piece or loops")
        read = set(stage.piece.inputs) if stage.piece is not None else set[str]()
        for loop in stage.loops:
            names = {loop.begin, *loop.body.inputs, *(loop.gate.inputs if loop.gate else ())}
            first = loop is stage.loops[0]
            read |= names if first else names - {loop.begin}  # the previous loop computes loop.begin
            read |= {loop.logits} if first and loop.logits is not None else set()
        if lost := sorted(read - held):
            raise ValueError(f"stages: {lost[0]!r} is read, but no earlier stage computes it")
        made = stage.piece.outputs if stage.piece is not None else (stage.name,)
        held = (held | set(made)) - set(stage.free)
    if steps.output not in held:
        raise ValueError(f"output = {steps.output!r}: no stage computes this value")
    if lost := [piece.file for piece in pieces_of(steps.stages) if piece.file not in steps.files]:
        raise ValueError(f"files: {lost[0]!r} is used, but has no checksum")
