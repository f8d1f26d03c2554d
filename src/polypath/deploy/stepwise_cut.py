"""Cuts a gated network into pieces: each part between gates and each loop becomes a separate module.

A gate runs at the end of the piece that computes the gate's input. If this input comes from a switch, the gate is a
separate piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from polypath.core.execute import call_module, run_steps
from polypath.core.network import PathNet
from polypath.core.plan import Loop, Step


@dataclass(frozen=True)
class Piece:
    """A graph of a gated network: its file, and its inputs and outputs by node name."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class LoopPiece:
    """A loop of a switch: the graph ``body`` and its gate. The gate is the graph ``gate``, or its logits are the value
    ``logits`` of the previous piece. If both are None, all samples run the loop."""

    label: str
    begin: str
    end: str
    gate: Piece | None
    body: Piece
    logits: str | None = None


@dataclass(frozen=True)
class Stage:
    """A part without gates (``piece``), or the switch ``name`` with its ``loops``. ``free`` lists the values to free
    after the stage."""

    free: tuple[str, ...]
    piece: Piece | None = None
    name: str = ""
    loops: tuple[LoopPiece, ...] = ()


def pieces_of(stages: Sequence[Stage]) -> list[Piece]:
    """Return every graph of the stages, in the order in which they run."""
    found = []
    for stage in stages:
        if stage.piece is not None:
            found.append(stage.piece)
        for loop in stage.loops:
            found += [loop.body] if loop.gate is None else [loop.gate, loop.body]
    return found


class Part(nn.Module):
    """A module that runs some steps of a network. Its inputs are the values that these steps read, and its outputs are
    the values that later steps read. ``asks`` may be a gate and the value that the gate reads. The gate's logits are
    then the last output."""

    def __init__(self, net: PathNet, steps: Sequence[Step], inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.net, self.steps, self.inputs, self.outputs = net, tuple(steps), tuple(inputs), tuple(outputs)
        self.asks: tuple[str, str] | None = None

    def forward(self, *values: Tensor) -> Tensor | tuple[Tensor, ...]:
        held = dict(zip(self.inputs, values, strict=True))
        held = run_steps(self.net, self.steps, held)
        # the caller may write to outputs, but not to inputs
        found = tuple(held[name].clone() if name in self.inputs else held[name] for name in self.outputs)
        if self.asks is not None:
            gate, source = self.asks
            found += (call_module(self.net, gate, held[source]),)
        return found[0] if len(found) == 1 else found


class GatePart(nn.Module):
    """A module that runs one gate. It computes logits ``(N, 2)`` from the value that the gate reads."""

    def __init__(self, net: PathNet, gate: str) -> None:
        super().__init__()
        self.net, self.gate = net, gate

    def forward(self, x: Tensor) -> Tensor:
        return call_module(self.net, self.gate, x)


def cut(net: PathNet) -> tuple[list[Stage], dict[str, nn.Module]]:
    """Return the stages of a gated network, and the modules of the pieces by file name without the ending.

    Raises:
        ValueError: the network has no gates.
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
    """Move each gate into the piece that computes the gate's input, if a piece does so. This saves a call per gate."""
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
    """Return the values that a loop's nodes read from outside. A loop without nodes reads the value that it returns."""
    read = dict.fromkeys([*(source for step in loop.steps for source in step.sources), loop.end])
    return tuple(name for name in read if name not in loop.nodes)
