"""PathNet: run a wiring lazily, take any of its paths out as a network of its own."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn

from polypath.dynamic import run_switch
from polypath.paths import Paths, Words
from polypath.plan import Step, check_gates, make_plan
from polypath.statistics import Statistics, bake
from polypath.wiring import INPUT, Unit, Wiring, WiringBuilder

HEAD = "head."


@dataclass
class Trace:
    """What one forward saw, for whoever asks: pass one as ``net(x, trace=Trace())``.

    ``values`` fills with the outputs of the nodes named in ``nodes``; ``gates`` with every gate's decisions,
    in order of running, as ``(switch, label, reached, open)``: two ``(N,)`` tensors of 0 and 1, the samples that
    reached the gate and those of them that it let pass, in training differentiable. Inside the loops of a gated switch
    a value has, in evaluation, the samples that ran it.
    """

    nodes: frozenset[str] = frozenset()
    values: dict[str, Tensor] = field(default_factory=dict)
    gates: list[tuple[str, str, Tensor, Tensor]] = field(default_factory=list)


class PathNet(nn.Module):
    """A wiring and its units.

    ``net(x)`` runs the whole network, ``net(x, paths=p)`` only the nodes that are alive under ``p``; the choice is
    an argument and never a state of the module. A unit is any module called as ``unit(x)``, or as
    ``unit(x, variant=...)`` by nodes that name a variant.

    Args:
        wiring: the diagram. Nodes called ``head.*`` form the classifier; the last of them ends in logits.
        modules: module path to module, exactly those that the wiring names.
        words: the family's words for choices, see :meth:`Paths.parse`.
        names: texts of the family's standard choices, see :meth:`named_paths`.
        min_size: the smallest image side, in pixels, at which no map vanishes.
        config: how to build this network again (JSON values); saved with it.

    Raises:
        ValueError: modules that the wiring does not name, or the other way round.
    """

    def __init__(
        self,
        wiring: Wiring,
        modules: Mapping[str, nn.Module],
        *,
        words: Words | None = None,
        names: Sequence[str] = (),
        min_size: int = 1,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if missing := [path for path in wiring.modules if path not in modules]:
            raise ValueError(f"the wiring names module {missing[0]!r}, which is not given")
        if spare := [path for path in modules if path not in wiring.modules]:
            raise ValueError(f"module {spare[0]!r} is given, and no node of the wiring names it")
        check_gates(wiring)
        self.wiring = wiring
        self.words: Words = dict(words or {})
        self.names = tuple(names)
        self.min_size = min_size
        self.config: dict[str, Any] = dict(config or {})
        for path, module in modules.items():
            set_module(self, path, module)
        self._plans: dict[Paths, tuple[Step, ...]] = {}

    # --- choosing ----------------------------------------------------------------------------------------

    def paths(self, text: str) -> Paths:
        """Read a choice (``branches=1,3``, ``column=2``, ``block1.join=1,3``, ``whole``); see :class:`Paths`.

        Raises:
            ValueError: unknown or impossible choices, with the legal ones.
        """
        return Paths.parse(text, self.wiring, self.words)

    def named_paths(self) -> dict[str, Paths]:
        """The family's standard choices that this network still has, ``whole`` first."""
        found = {"whole": Paths()}
        for text in self.names:
            try:
                paths = self.paths(text)
            except ValueError:  # an extracted network has lost this one
                continue
            if paths not in found.values():
                found[text] = paths
        return found

    # --- running -----------------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        paths: Paths | str | None = None,
        *,
        trace: Trace | None = None,
        generator: torch.Generator | None = None,
        frozen: Collection[str] = (),
    ) -> Tensor:
        """Logits ``(N, num_classes)`` of images ``(N, C, H, W)``, running only what is alive under ``paths``.

        ``generator`` draws what a dynamic network samples in training; ``trace`` collects intermediate values;
        modules whose paths are in ``frozen`` run without gradient, and nothing is held for their backward.

        Raises:
            ValueError: images that are no 4-D batch or smaller than the network can take, an illegal choice.
        """
        self._check(x)
        return self._run(self.plan(paths), {INPUT: x}, trace, generator, frozen)[self.wiring.output]

    def forward_features(self, x: Tensor, paths: Paths | str | None = None) -> Tensor:
        """The maps ``(N, C, H, W)`` that the head reads."""
        self._check(x)
        steps = [step for step in self.plan(paths) if not step.node.name.startswith(HEAD)]
        return self._run(steps, {INPUT: x}, None, None)[self._features]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of maps given by :meth:`forward_features`; with ``pre_logits``, what the last layer reads."""
        steps = [step for step in self.plan(None) if step.node.name.startswith(HEAD)]
        if pre_logits:
            steps = steps[:-1]
        last = steps[-1].node.name if steps else self._features
        return self._run(steps, {self._features: x}, None, None)[last]

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4:
            raise ValueError(f"images of shape {tuple(x.shape)}: expected (N, C, H, W)")
        if min(x.shape[-2:]) < self.min_size:
            height, width = x.shape[-2:]
            raise ValueError(
                f"images of {height}x{width} pixels: this network needs at least {self.min_size}x{self.min_size}"
            )

    @property
    def _features(self) -> str:
        for node in self.wiring.nodes:
            if isinstance(node, Unit) and node.name.startswith(HEAD):
                return node.source
        raise ValueError("this network has no nodes called 'head.*'")

    def plan(self, paths: Paths | str | None) -> tuple[Step, ...]:
        """The steps that run under ``paths``, each releasing what nobody reads after it. Cached."""
        if paths is None:
            paths = Paths()
        elif isinstance(paths, str):
            paths = self.paths(paths)
        steps = self._plans.get(paths)
        if steps is None:
            if len(self._plans) >= 4096:  # sampled paths are many; plans are cheap to make again
                self._plans.clear()
            steps = self._plans[paths] = make_plan(self.wiring, Paths.of(self.wiring, paths))
        return steps

    def _run(
        self,
        steps: Sequence[Step],
        values: dict[str, Tensor],
        trace: Trace | None,
        generator: torch.Generator | None,
        frozen: Collection[str] = (),
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        for step in steps:
            node, inputs = step.node, [values[source] for source in step.sources]
            if isinstance(node, Unit):
                out = self._call(node.module, inputs[0], node.variant, frozen=frozen, mask=mask)
            elif step.loops:
                out = run_switch(self, step, values, trace, generator, frozen)
            else:
                out = join(node.kind, inputs, step.scales if not self.training else None)
            values[node.name] = out
            if trace is not None and node.name in trace.nodes:
                trace.values[node.name] = out
            for name in step.free:
                del values[name]
        return values

    def _call(
        self,
        module: str,
        x: Tensor,
        variant: str | None = None,
        *,
        frozen: Collection[str] = (),
        mask: Tensor | None = None,
    ) -> Tensor:
        unit = attrgetter(module)(self)  # get_submodule takes three times as long, at each of a hundred units
        options: dict[str, Any] = {} if variant is None else {"variant": variant}
        if mask is not None and getattr(unit, "takes_mask", False):
            options["mask"] = mask  # which samples the gates let pass, in training
        if module in frozen:
            with torch.no_grad():
                return unit(x, **options)
        return unit(x, **options)

    # --- the classifier, in timm's words -----------------------------------------------------------------

    @property
    def _classifier_path(self) -> str:
        last = self.wiring.by_name.get(self.wiring.output)
        if not isinstance(last, Unit):
            raise ValueError("this network does not end in a unit")
        return last.module

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.get_submodule(self._classifier_path)

    @property
    def num_classes(self) -> int:
        last = self.get_classifier()
        return last.out_features if isinstance(last, nn.Linear) else 0

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network a new last layer; 0 classes takes it away (the network then gives pre-logits).

        Raises:
            ValueError: a negative number, or another pool than the network's own.
        """
        if global_pool not in (None, "", "avg"):
            raise ValueError(f"global_pool {global_pool!r}: this network keeps its own pool; pass None")
        if num_classes < 0:
            raise ValueError(f"num_classes {num_classes} is negative")
        old = self.get_classifier()
        width = getattr(old, "in_features", None)
        if width is None:
            raise ValueError("the last layer was taken away earlier; build the network anew to classify")
        like = next(self.parameters())
        new = nn.Linear(width, num_classes, device=like.device, dtype=like.dtype) if num_classes else Identity(width)
        set_module(self, self._classifier_path, new)
        self.config = {**self.config, "arguments": {**self.config.get("arguments", {}), "num_classes": num_classes}}

    @property
    def head_hidden_size(self) -> int:
        """Width of what the last layer reads."""
        return int(getattr(self.get_classifier(), "in_features", 0))

    @property
    def num_features(self) -> int:
        """Channels of the maps that :meth:`forward_features` gives; found by a run on the meta device."""
        from polypath.meta import feature_chans

        return feature_chans(self)

    # --- saving ------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Write the network into a folder; options and errors as for :func:`polypath.saving.save`."""
        from polypath.saving import save

        save(self, folder, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the network, return its address; options and errors as for :func:`polypath.saving.push_to_hub`."""
        from polypath.saving import push_to_hub

        return push_to_hub(self, repo_id, **options)

    def __deepcopy__(self, memo: dict) -> PathNet:
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        for key, value in self.__dict__.items():
            # wiring and words are immutable, plans can be made again
            new.__dict__[key] = (
                {} if key == "_plans" else value if key in ("wiring", "words") else copy.deepcopy(value, memo)
            )
        return new


class Identity(nn.Identity):
    """Stands where a classifier was; remembers the width that it passes on."""

    def __init__(self, width: int = 0) -> None:
        super().__init__()
        self.in_features = width


def join(kind: str, inputs: Sequence[Tensor], scales: Sequence[float] | None = None) -> Tensor:
    """Merge alive operands, in their order: element-wise mean, sum or max over them, or concatenated channels.

    ``scales`` multiply the operands of a sum (stochastic depth in evaluation).
    """
    if scales is not None and any(scale != 1.0 for scale in scales):
        inputs = [x if scale == 1.0 else x * scale for x, scale in zip(inputs, scales, strict=True)]
    if kind == "concat":
        return torch.cat(tuple(inputs), dim=1)
    if len(inputs) == 1:
        return inputs[0]
    if kind == "max":
        out = torch.maximum(inputs[0], inputs[1])
        for x in inputs[2:]:
            out = torch.maximum(out, x)
        return out
    out = inputs[0] + inputs[1]
    for x in inputs[2:]:
        out += x  # the sum is our own buffer, and addition keeps nothing for backward
    return out.div_(len(inputs)) if kind == "mean" else out


def extract(net: PathNet, paths: Paths | str, *, stats: Statistics | None = None) -> PathNet:
    """A standalone network with just the weights that ``paths`` needs.

    It equals ``net(x, paths=paths)`` to the bit in eager float32; its state-dict keys are a subset of the parent's;
    it holds copies and no reference to the parent. Labels stay, so what is left to choose is chosen as before.
    With ``stats``, the statistics re-estimated for this path are baked into the copies, and the config says so.

    Raises:
        ValueError: unknown or impossible choices, statistics that lack this path.
    """
    paths = net.paths(paths) if isinstance(paths, str) else Paths.of(net.wiring, paths)
    wiring = net.wiring.prune(paths)
    variants: dict[str, set[str]] = {}
    for node in wiring.nodes:
        if isinstance(node, Unit) and node.variant is not None:
            variants.setdefault(node.module, set()).add(node.variant)
    modules = {}
    for path in wiring.modules:
        module = copy.deepcopy(net.get_submodule(path))
        if path in variants:
            cast(Any, module).keep_variants(variants[path])
        modules[path] = module
    child = PathNet(
        wiring, modules, words=net.words, names=net.names, min_size=net.min_size, config=copy.deepcopy(net.config)
    )
    child.config["paths"] = str(_composed(net, paths))
    if stats is not None:
        bake(child, stats[paths])
        child.config["statistics"] = stats.record
    child.train(net.training)
    return child


def _composed(net: PathNet, paths: Paths) -> Mapping[str, tuple[str, ...]]:
    """The choice on the family's full wiring that ``paths`` on this (perhaps extracted) net amounts to."""
    earlier = net.config.get("paths")
    if not earlier or earlier == "whole":
        return paths
    chosen = dict(part.partition("=")[::2] for part in earlier.split(";"))
    chosen.update({name: ",".join(labels) for name, labels in paths.items()})
    return Paths(tuple((name, tuple(labels.split(","))) for name, labels in chosen.items()))


def set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at a dotted path under ``root``, making plain containers on the way."""
    *parents, last = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(last, module)


class NetBuilder(WiringBuilder):
    """Writes a wiring down together with its modules: the tool that families are built with."""

    def __init__(self) -> None:
        super().__init__()
        self.modules: dict[str, nn.Module] = {}

    def add(
        self,
        name: str,
        source: str,
        module: nn.Module,
        *,
        depth: int = 0,
        at: str | None = None,
        variant: str | None = None,
    ) -> str:
        """Add a unit node and its module; ``at`` is the module's path where it is not the node's name."""
        self.modules.setdefault(at or name, module)
        return self.unit(name, source, depth=depth, module=at, variant=variant)

    def chain(self, prefix: str, source: str, modules: Sequence[nn.Module], *, depth: int = 1) -> str:
        """Add ``prefix.unit1``, ``prefix.unit2``, … one after the other."""
        for i, module in enumerate(modules, 1):
            source = self.add(f"{prefix}.unit{i}", source, module, depth=depth)
        return source

    def net(self, output: str, **options: Any) -> PathNet:
        return PathNet(self.wiring(output), self.modules, **options)
