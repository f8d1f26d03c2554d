"""Dynamic networks, exported step by step: each stretch between gates and each loop is a graph of its own.

A gate is asked by the graph that makes what it reads, or is a graph of its own where that is a switch. It decides
outside of the graphs, so a loop that a sample skips costs nothing: samples that go on are gathered into a smaller
batch, the others wait for the end of the switch, as :mod:`polypath.core.execute` has it.

config.json, model.safetensors    the network, as :mod:`polypath.storage.saving` writes it
NAME.onnx                         a graph; weights that loops share stand once, in ``model.safetensors``
steps.json                        which graph runs when

    write_stepwise(net, "steps/")
    logits, loops = Stepwise.open("steps/").run(x)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polypath.core.execute import Trace, call_module, run_steps
from polypath.core.inputs import sides
from polypath.core.network import PathNet
from polypath.core.plan import Loop, Step
from polypath.core.wiring import INPUT
from polypath.deploy import check, onnx_graph
from polypath.storage.config import WEIGHTS
from polypath.storage.files import new_folder, write_json
from polypath.storage.saving import save

STEPS, FORMAT, VERSION = "steps.json", "polypath-steps", 1
LOG = logging.getLogger(__name__)
Run = Callable[..., list[np.ndarray]]


@dataclass(frozen=True)
class Piece:
    """A graph: its file and the values that it reads and gives, by node name."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class LoopPiece:
    """A loop of a switch: what it runs, and who goes on: ``gate`` says it, or the piece before has said it as
    ``logits``; where both are None all samples do."""

    label: str
    begin: str
    end: str
    gate: Piece | None
    body: Piece
    logits: str | None = None


@dataclass(frozen=True)
class Stage:
    """A stretch without gates (``piece``) or a switch, ``name``, with its ``loops``; then ``free`` is forgotten."""

    free: tuple[str, ...]
    piece: Piece | None = None
    name: str = ""
    loops: tuple[LoopPiece, ...] = ()


class Part(nn.Module):
    """Some steps of a network as a module of its own: the values that they read to those that others read. With
    ``asks``, (a gate, the value that it reads), the gate's logits come last."""

    def __init__(self, net: PathNet, steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.net, self.steps, self.inputs, self.outputs = net, tuple(steps), tuple(inputs), tuple(outputs)
        self.asks: tuple[str, str] | None = None

    def forward(self, *values: Tensor) -> Tensor | tuple[Tensor, ...]:
        held = dict(zip(self.inputs, values, strict=True))
        held = run_steps(self.net, self.steps, held)
        found = tuple(held[name] for name in self.outputs)
        if self.asks is not None:
            gate, source = self.asks
            found += (call_module(self.net, gate, held[source]),)
        return found[0] if len(found) == 1 else found


class GatePart(nn.Module):
    """A gate: its source's value to logits ``(N, 2)``."""

    def __init__(self, net: PathNet, gate: str) -> None:
        super().__init__()
        self.net, self.gate = net, gate

    def forward(self, x: Tensor) -> Tensor:
        return call_module(self.net, self.gate, x)


# --- cutting -------------------------------------------------------------------------------------------------


def cut(net: PathNet) -> tuple[list[Stage], dict[str, nn.Module]]:
    """The stages of a gated network, and the module of each piece by its file's stem.

    Raises:
        ValueError: a network without gates.
    """
    steps = net.plan(None)
    if not any(step.loops for step in steps):
        raise ValueError("this network has no gates: export its paths as static graphs")
    modules: dict[str, nn.Module] = {}
    stages: list[Stage] = []
    straight: list[Step] = []
    for i, step in enumerate(steps):
        if not step.loops:
            straight.append(step)
            continue
        if straight:
            stages.append(_straight(net, straight, steps[i:], modules, f"stretch{len(stages) + 1}"))
            straight = []
        stages.append(_switch(net, step, modules))
    if straight:
        stages.append(_straight(net, straight, (), modules, "end"))
    return _asked_early(stages, modules), modules


def _asked_early(stages: Sequence[Stage], modules: dict[str, nn.Module]) -> list[Stage]:
    """Have each gate asked by the piece that makes what it reads, where one does: a call less for each."""
    found: list[Stage] = []
    for stage in stages:
        loops: list[LoopPiece] = []
        for loop in stage.loops:
            before = loops[-1].body if loops else found[-1].piece if found else None
            if loop.gate is not None and before is not None and loop.gate.inputs[0] in before.outputs:
                name = loop.gate.file.removesuffix(".onnx")
                part, gate = modules[before.file.removesuffix(".onnx")], modules.pop(name)
                assert isinstance(part, Part)
                assert isinstance(gate, GatePart)
                part.asks = gate.gate, loop.gate.inputs[0]
                asking = replace(before, outputs=(*before.outputs, name))
                if loops:
                    loops[-1] = replace(loops[-1], body=asking)
                else:
                    found[-1] = replace(found[-1], piece=asking)
                loop = replace(loop, gate=None, logits=name)
            loops.append(loop)
        found.append(replace(stage, loops=tuple(loops)))
    return found


def _straight(
    net: PathNet, steps: Sequence[Step], after: Sequence[Step], modules: dict[str, nn.Module], stem: str
) -> Stage:
    made = [step.node.name for step in steps]
    inputs = dict.fromkeys(source for step in steps for source in step.sources if source not in made)
    wanted = {source for step in after for source in step.sources} | {net.wiring.output}
    outputs = tuple(name for name in made if name in wanted)
    free = tuple(name for step in steps for name in step.free if name in inputs)
    kept = [Step(s.node, s.sources, s.scales, tuple(n for n in s.free if n in made), s.loops) for s in steps]
    modules[stem] = Part(net, kept, tuple(inputs), outputs)
    return Stage(free, Piece(f"{stem}.onnx", tuple(inputs), outputs))


def _switch(net: PathNet, step: Step, modules: dict[str, nn.Module]) -> Stage:
    loops = []
    for loop in step.loops:
        stem = f"{step.node.name}.{loop.label}"
        gate = None
        if loop.gate is not None:
            gate = Piece(f"{stem}.gate.onnx", (loop.gate.source,), ("gate",))
            modules[f"{stem}.gate"] = GatePart(net, loop.gate.module)
        inputs = _read(loop)
        inner = [Step(s.node, s.sources, s.scales, tuple(n for n in s.free if n in loop.nodes), ()) for s in loop.steps]
        modules[stem] = Part(net, inner, inputs, (loop.end,))
        loops.append(LoopPiece(loop.label, loop.begin, loop.end, gate, Piece(f"{stem}.onnx", inputs, (loop.end,))))
    return Stage(step.free, None, step.node.name, tuple(loops))


def _read(loop: Loop) -> tuple[str, ...]:
    """What a loop's own nodes read from outside of it."""
    read = dict.fromkeys(source for step in loop.steps for source in step.sources)
    return tuple(name for name in read if name not in loop.nodes)


# --- writing -------------------------------------------------------------------------------------------------


def write_stepwise(
    net: PathNet,
    folder: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
) -> list[check.Check]:
    """Write a gated network step by step into a new folder; each graph, and then all together, compared with eager.

    Args:
        size: of the images; None takes the network's own, else 32.

    Raises:
        ValueError: no gates, a folder that is there, answers that differ from eager.
        ImportError: the exporter's packages are missing.
    """
    net = net.eval()
    target = Path(folder)
    if target.exists():
        raise ValueError(f"{target}: exists; choose another folder")
    own = (net.config.get("image") or {}).get("size")
    height, width = sides(size if size is not None else tuple(own) if own else max(32, net.min_size))
    stages, modules = cut(net)
    values = _values(net, stages, check.images(2, (net.in_chans, height, width)))
    with new_folder(target) as made:
        save(net, made / "net")
        for file in list((made / "net").iterdir()):
            file.rename(made / file.name)
        (made / "net").rmdir()
        shared = onnx_graph.places(made / WEIGHTS)
        for piece in _pieces(stages):
            stem = piece.file.removesuffix(".onnx")
            module, inputs = modules[stem], [values[name] for name in piece.inputs]
            _write_piece(module, inputs, piece, shared, made)
            LOG.info("wrote %s", piece.file)
        files = {}
        for file in sorted(made.iterdir()):
            data = file.read_bytes()
            files[file.name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
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
                "files": files,
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


def _pieces(stages: Sequence[Stage]) -> list[Piece]:
    found = []
    for stage in stages:
        if stage.piece is not None:
            found.append(stage.piece)
        for loop in stage.loops:
            found += [loop.body] if loop.gate is None else [loop.gate, loop.body]
    return found


def _values(net: PathNet, stages: Sequence[Stage], x: Tensor) -> dict[str, Tensor]:
    """An example of every value that a piece reads, all loops run."""
    read = frozenset(name for piece in _pieces(stages) for name in piece.inputs)
    trace = Trace(read)
    with torch.no_grad():
        run_steps(net, net.plan(None), {INPUT: x}, gates="all", trace=trace)
    return {INPUT: x, **trace.values}


# --- running -------------------------------------------------------------------------------------------------


class Stepwise:
    """Runs what :func:`write_stepwise` wrote; make one with :meth:`open`."""

    def __init__(self, stages: Sequence[Stage], runs: Mapping[str, Run], names: tuple[str, str]) -> None:
        self.stages, self.runs = tuple(stages), dict(runs)
        self.input, self.output = names

    @classmethod
    def open(cls, folder: str | os.PathLike[str], threads: int | None = None, *, verify: bool = True) -> Stepwise:
        """The network in ``folder``, in ONNX Runtime.

        Raises:
            ValueError: no such folder, a damaged or missing file, a later version of the format.
            ImportError: ONNX Runtime is missing.
        """
        from polypath.deploy.runtimes import cores
        from polypath.deploy.runtimes.onnxruntime_ import make_session

        place = Path(folder)
        values = _read_steps(place, verify)
        stages = [_stage(row) for row in values["stages"]]
        runs = {}
        for piece in _pieces(stages):
            session = make_session(str(place / piece.file), threads or cores(), spin=False)
            runs[piece.file] = _caller(session)
        return cls(stages, runs, (values["input"], values["output"]))

    @classmethod
    def of(cls, net: PathNet) -> Stepwise:
        """A gated network run step by step in eager torch: the same stages, for comparison."""
        stages, modules = cut(net.eval())
        runs = {f"{stem}.onnx": _eager(module) for stem, module in modules.items()}
        return cls(stages, runs, (INPUT, net.wiring.output))

    def run(self, x: np.ndarray, *, force_open: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Logits ``(N, classes)`` of images ``(N, C, H, W)``, and how many gated loops each has run ``(N,)``.

        Args:
            force_open: ask the gates, and let everybody pass whatever they say; what dynamic running is measured
                against.
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
        rows, out = None, None  # rows None: all samples still run
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
    """The samples that go on, and their rows; in place, the last ones move to where others have left."""
    goes = np.flatnonzero(opened)
    if not in_place:
        return x.take(goes, 0), rows[goes]
    count = len(goes)
    left, last = np.flatnonzero(~opened[:count]), goes[goes >= count]
    x[left] = x.take(last, 0)
    rows[left] = rows[last]
    return x[:count], rows[:count]


def _caller(session: Any) -> Run:
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _eager(module: nn.Module) -> Run:
    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            out = module(*map(torch.from_numpy, inputs))
        return [t.numpy() for t in ((out,) if isinstance(out, Tensor) else out)]

    return run


def _read_steps(folder: Path, verify: bool) -> dict[str, Any]:
    file = folder / STEPS
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{folder}: no stepwise network ({error.strerror or error}: {STEPS})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: damaged, or no JSON ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("format_version") != VERSION:
        raise ValueError(f'{file}: no "format": "{FORMAT}" of version {VERSION}')
    for name, facts in values["files"].items():
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder}: {name} is missing")
        if verify and hashlib.sha256((folder / name).read_bytes()).hexdigest() != facts["sha256"]:
            raise ValueError(f"{folder / name}: damaged, its checksum is another")
    return values


def _stage(row: Mapping[str, Any]) -> Stage:
    loops = tuple(
        LoopPiece(one["label"], one["begin"], one["end"], _piece(one["gate"]), _piece(one["body"]), one["logits"])  # type: ignore[arg-type]
        for one in row["loops"]
    )
    return Stage(tuple(row["free"]), _piece(row["piece"]), row["name"], loops)


def _piece(row: Mapping[str, Any] | None) -> Piece | None:
    return None if row is None else Piece(row["file"], tuple(row["inputs"]), tuple(row["outputs"]))
