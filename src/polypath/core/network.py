"""The class PathNet: a wiring diagram with its modules, which can run under any choice of paths."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polypath.core.checkpointed import run_checkpointed
from polypath.core.checks import FLAG, check, did_you_mean, one_of, whole
from polypath.core.config import NetConfig, check_classes
from polypath.core.deprecation import with_old_methods
from polypath.core.display import html_table, short_count
from polypath.core.execute import NodeHook, Trace, join, run_steps
from polypath.core.groups import depth_groups, undecayed
from polypath.core.meta import weightless
from polypath.core.paths import Paths, Selectors
from polypath.core.plan import Step, check_gates, make_plan
from polypath.core.recording import recording, symbolic
from polypath.core.script import flat
from polypath.core.stages import Indices, Stages, check_stages, chosen_indices
from polypath.core.timm_config import timm_config
from polypath.core.wiring import INPUT, MOST_DRAWN, Join, Unit, Wiring

Choices = tuple[tuple[str, tuple[str, ...]], ...]
HEAD = "head."
LARGE = 1024  # image side in pixels; at this size, padding hardly changes the ratio of image to map
_NAMED = "mark stages with NetBuilder.stage; fusing a network removes them"
_NEVER_CALLED = "this module only contains other modules and is never called"
MOST_NAMED = 12  # the most paths that a notebook lists


@with_old_methods
class PathNet(nn.Module):
    """A network with a choice of paths: a wiring and the modules of its units.

    ``net(x)`` runs the whole network, ``net(x, paths=p)`` only the nodes that are alive under ``p``. The choice is
    an argument, never a state of the module. A unit may be any module. It is called as ``unit(x)``, or as
    ``unit(x, variant=...)`` if its node has a variant.

    Units accept torch's hooks like any module. Their parents (``net.block1``, ``net.head``) are :class:`Container`
    objects, which are never called. To observe a parent's output, register a hook on the last node inside:
    ``net.register_node_hook("block1.join4", hook)``. The node may be a unit or a join.

    Args:
        wiring: the diagram. Nodes called ``head.*`` form the classifier; the last of them returns the logits.
        modules: exactly the modules that the wiring uses, by their dotted paths.
        selectors: the family's own keys for choices (``column=2``), see :meth:`Paths.parse`.
        path_names: texts of the family's standard choices, see :meth:`named_paths`.
        path_sets: named groups of these choices for training and analyses, see :meth:`path_set`.
        stages: for each stage, in order from input to output, the nodes that it may end in, see
            :mod:`polypath.core.stages`.
        min_size: the smallest image side, in pixels, at which no feature map becomes empty.
        config: how to rebuild this network (JSON values); it is saved with the network.

    Raises:
        ValueError: a module that is missing or that no node uses; a stage that some path bypasses.
    """

    def __init__(
        self,
        wiring: Wiring,
        modules: Mapping[str, nn.Module],
        *,
        selectors: Selectors | None = None,
        path_names: Sequence[str] = (),
        path_sets: Mapping[str, Sequence[str]] | None = None,
        stages: Stages | None = None,
        min_size: int = 1,
        config: NetConfig | None = None,
    ) -> None:
        super().__init__()
        if missing := [path for path in wiring.modules if path not in modules]:
            raise ValueError(f"the wiring uses module {missing[0]!r}, which is missing in modules")
        if spare := [path for path in modules if path not in wiring.modules]:
            raise ValueError(f"modules contains {spare[0]!r}, but no node of the wiring uses it")
        check_gates(wiring)
        self.wiring = wiring
        self.selectors: Selectors = dict(selectors or {})
        self.path_names = tuple(path_names)
        self.path_sets = {name: tuple(texts) for name, texts in (path_sets or {}).items()}
        self.stage_nodes = check_stages(wiring, stages or {})
        self.min_size = min_size
        self.checkpointed = False
        self.config: NetConfig = {**config} if config else {}
        for path, module in modules.items():
            set_module(self, path, module)
        self._plans: dict[tuple[Choices, tuple[str, ...]], tuple[Step, ...]] = {}  # the keys are (choices, ends)
        self._num_features: int | None = None
        self._feature_info: list[dict[str, Any]] | None = None
        self._node_hooks: OrderedDict[int, tuple[str, NodeHook]] = OrderedDict()

    def _repr_html_(self) -> str:
        """Show a table of facts and the wiring, in notebooks; ``print(net)`` shows the tree of modules."""
        wiring, named = self.wiring, list(self.named_paths())
        shown = ", ".join(named[:MOST_NAMED]) + (f" and {len(named) - MOST_NAMED} more" if named[MOST_NAMED:] else "")
        shortest, longest = wiring.shortest(), wiring.longest()
        facts = [
            ("parameters", f"{sum(p.numel() for p in self.parameters()):,}"),
            ("nodes", f"{len(wiring.nodes):,}, {len(wiring.joins):,} of them joins"),
            ("paths", f"{short_count(wiring.count_paths())}, of {shortest} to {longest} layers"),
            ("named paths", shown),
        ]
        family, model = (str(self.config.get(key) or "") for key in ("family", "model"))
        title = " ".join(dict.fromkeys(word for word in (type(self).__name__, model, family) if word))
        picture = wiring.to_svg() if len(wiring.nodes) <= MOST_DRAWN else "<p>Too many nodes to draw the wiring.</p>"
        return html_table(title, [], facts) + picture

    # --- choosing ----------------------------------------------------------------------------------------

    def paths(self, choice: str | Mapping[str, Iterable[str]] | None) -> Paths:
        """Convert ``choice`` to a :class:`Paths` of this network.

        ``choice`` may be a text (``branches=1,3``, ``column=2``, ``block1.join=1,3``, ``whole``) or a mapping from
        joins to operands, such as :class:`Paths` of another network. None is the whole network.

        Raises:
            ValueError: an unknown or impossible choice; the message lists the legal choices.
        """
        if isinstance(choice, str):
            return Paths.parse(choice, self.wiring, self.selectors)
        return Paths.of(self.wiring, {} if choice is None else choice)

    def named_paths(self) -> dict[str, Paths]:
        """Return the family's standard choices that this network supports, ``whole`` first, as a dict by text."""
        found = {"whole": Paths()}
        for text in self.path_names:
            try:
                paths = self.paths(text)
            except ValueError:  # an extracted network no longer has this choice
                continue
            if paths not in found.values():
                found[text] = paths
        return found

    def path_set(self, name: str) -> dict[str, Paths]:
        """Return the choices of one group that this network supports, as a dict by text.

        The group ``columns`` contains the paths from which global drop-path draws; ``routes`` contains the component
        networks of an ensemble. The result is empty if the family has no such group.
        """
        found: dict[str, Paths] = {}
        for text in self.path_sets.get(name, ()):
            try:
                found[text] = self.paths(text)
            except ValueError:  # an extracted network no longer has this choice
                continue
        return found

    # --- running -----------------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,
        paths: Paths | str | None = None,
        trace: Trace | None = None,
        generator: torch.Generator | None = None,
        frozen: Collection[str] = (),
    ) -> Tensor:
        """Compute the logits ``(N, num_classes)`` of images ``(N, C, H, W)``; only the nodes alive under ``paths`` run.

        ``generator`` is the random source of sampled gates in training; ``trace`` collects intermediate values.
        Modules whose dotted paths are in ``frozen`` run under ``torch.no_grad()``.

        ``torch.fx`` records the whole network, or with ``concrete_args={"paths": …}`` another path. TorchScript
        (``torch.jit.script(net)``) supports only the whole network: to script a path, extract it first.

        Raises:
            ValueError: images that are not a 4-D batch or are too small for the network, an illegal choice.
        """
        if symbolic(x):
            steps = self.plan(None if symbolic(paths) else paths)
            return run_steps(self, steps, {INPUT: x})[self.wiring.output]
        self.check_images(x)
        options = {"trace": trace, "generator": generator, "frozen": frozen}
        return self._run(self.plan(paths), x, **options)[self.wiring.output]

    def _run(self, steps: tuple[Step, ...], x: Tensor, **options: Any) -> dict[str, Tensor]:
        if self.checkpointed and torch.is_grad_enabled() and not recording():
            return run_checkpointed(self, steps, {INPUT: x}, **options)
        return run_steps(self, steps, {INPUT: x}, **options)

    def __prepare_scriptable__(self) -> nn.Module:
        """Return the module that ``torch.jit.script`` compiles instead of this network."""
        return flat(self, self.plan(None), self.wiring.output)

    def forward_features(self, x: Tensor, paths: Paths | str | None = None) -> Tensor:
        """Compute the feature maps ``(N, C, H, W)`` that the head reads."""
        self.check_images(x)
        return self._run(self.plan(paths, (self._features,)), x)[self._features]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute logits from the maps of :meth:`forward_features`. With ``pre_logits``, stop before the last layer."""
        steps = [step for step in self.plan(None) if step.node.name.startswith(HEAD)]
        if pre_logits:
            steps = steps[:-1]
        last = steps[-1].node.name if steps else self._features
        return run_steps(self, steps, {self._features: x})[last]

    if TYPE_CHECKING:  # torch types a module's call as Any

        def __call__(
            self,
            x: Tensor,
            paths: Paths | str | None = None,
            trace: Trace | None = None,
            generator: torch.Generator | None = None,
            frozen: Collection[str] = (),
        ) -> Tensor: ...

    def check_images(self, x: Tensor) -> None:
        """Check that ``x`` is a batch of images on which the network can run.

        Raises:
            ValueError: ``x`` is not a tensor, not 4-D, not floating point, or its sides are below ``min_size``.
        """
        if not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (callers are not all typed)
            raise ValueError(f"the images have type {type(x).__name__}, but must be a tensor (N, C, H, W)")
        if x.ndim != 4:
            raise ValueError(f"the images have shape {tuple(x.shape)}, but must have shape (N, C, H, W)")
        if not x.is_floating_point():
            raise ValueError(f"the images have type {x.dtype}, but must be floating point, normalised as in training")
        if min(x.shape[-2:]) < self.min_size:
            height, width = x.shape[-2:]
            raise ValueError(
                f"the images have {height}x{width} pixels, but must have at least {self.min_size}x{self.min_size}"
            )

    @property
    def _features(self) -> str:
        for step in self.plan(Paths()):  # the plan of the whole network has no heads of exits
            if isinstance(step.node, Unit) and step.node.name.startswith(HEAD):
                return step.node.source
        return self.wiring.output  # a network without a head returns maps

    def plan(self, paths: Paths | str | None, ends: tuple[str, ...] = ()) -> tuple[Step, ...]:
        """Return the steps that run under ``paths``; each step frees the tensors that no later step reads.

        With ``ends``, the plan has only the steps that these nodes need, and does not free their values. The ends must
        be outside the loops of gated switches. Plans are cached.
        """
        if isinstance(paths, Paths) and (paths.choices, ends) in self._plans:
            return self._plans[paths.choices, ends]
        paths = self.paths(paths)  # the argument may be a text, or Paths of another network
        steps = self._plans.get((paths.choices, ends))
        if steps is None:
            if len(self._plans) >= 4096:  # sampling gives many paths; plans are cheap to rebuild
                self._plans.clear()
            steps = self._plans[paths.choices, ends] = make_plan(self.wiring, paths, ends)
        return steps

    def register_node_hook(self, node: str, hook: NodeHook) -> RemovableHandle:
        """Call ``hook(node, output)`` each time after this node, a unit or a join, has run.

        If the hook returns a tensor, it replaces the output. In evaluation, an output inside the loops of a gated
        switch has only the samples for which the node ran. Copies of the network keep its hooks; extracted and fused
        networks do not. The handle's ``remove()`` removes the hook.

        Raises:
            ValueError: an unknown node; the message lists similar names.
        """
        if node not in self.wiring.by_name:
            raise ValueError(f"node = {node!r}: must be in this wiring; {did_you_mean(node, self.wiring.by_name)}")
        handle = RemovableHandle(self._node_hooks)
        self._node_hooks[handle.id] = node, hook
        return handle

    @property
    def node_hooks(self) -> dict[str, list[NodeHook]]:
        """The registered hooks of each node, in order of registration; nodes without hooks are left out."""
        found: dict[str, list[NodeHook]] = {}
        for node, hook in self._node_hooks.values():
            found.setdefault(node, []).append(hook)
        return found

    # --- stages, timm's interface ------------------------------------------------------------------------

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """A list with one dict per stage: the channels (``num_chs``), the ratio of the image's side to the map's
        (``reduction``), the stage's name (``module``) and ``index``.

        The list is empty for a network without stages. For a timm model, it is the model's own ``feature_info``.
        """
        if self._feature_info is None:
            if (other := self._other_backbone()) is not None:
                path, unit = other
                self._feature_info = [{**info, "module": f"{path}.{info['module']}"} for info in unit.feature_info]
            else:
                self._feature_info = self._measured_stages()
        return [{**info} for info in self._feature_info]

    @overload
    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        *,
        intermediates_only: Literal[True],
        paths: Paths | str | None = None,
        trace: Trace | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor]: ...

    @overload
    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: Literal[False] = False,
        paths: Paths | str | None = None,
        *,
        trace: Trace | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, list[Tensor]]: ...

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        paths: Paths | str | None = None,
        *,
        trace: Trace | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Compute the maps ``(N, C, H, W)`` of some stages under ``paths``, as timm's models do.

        All N images have maps, even if gates stop some images earlier.

        Args:
            indices: None for all stages, n for the last n, or a list of indices. The maps are in the network's order.
            norm: whether to apply the norm after all stages; only for other packages' models that have such a norm.
            stop_early: whether to run nothing after the last requested stage; its maps are then the first result.
            output_fmt: must be ``NCHW``; other packages' models may support more formats.
            intermediates_only: whether to return only the list of maps, and to run only the nodes that it needs.
            trace, generator: as in :meth:`forward`.

        Returns:
            The result of :meth:`forward_features`, and the list of maps.

        Raises:
            ValueError: a network without stages, unknown indices, an unsupported format, an illegal choice or image.
        """
        self.check_images(x)
        if (other := self._other_backbone()) is not None:
            self.paths(paths)  # only the whole network is legal here
            return other[1].forward_intermediates(
                x,
                indices=indices,
                norm=norm,
                stop_early=stop_early,
                output_fmt=output_fmt,
                intermediates_only=intermediates_only,
            )
        check("output_fmt", output_fmt, one_of("NCHW"))
        at = self._stages_under(paths)
        if not at:
            raise ValueError(f"this network has no stages, so it has no intermediates; {_NAMED}")
        wanted = [at[i] for i in chosen_indices(indices, len(at))]
        ends = dict.fromkeys(node for nodes in wanted for node in nodes)
        if not (stop_early or intermediates_only):
            ends[self._features] = None
        values = self._run(self.plan(paths, tuple(ends)), x, trace=trace, generator=generator)
        found = [join("mean", [values[node] for node in nodes]) for nodes in wanted]
        if intermediates_only:
            return found
        return (found[-1] if stop_early else values[self._features]), found

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the modules that the maps of the stages ``indices`` do not need: later modules and the head.

        :meth:`forward_intermediates` still works for these stages, under any choice. ``prune_norm`` has no effect and
        exists only for compatibility with timm. Returns the indices of the stages.

        Raises:
            ValueError: a network without stages of its own, unknown indices.
        """
        if not self.stage_nodes:
            raise ValueError(f"this network has no stages of its own, so nothing can be pruned; {_NAMED}")
        taken = chosen_indices(indices, len(self.stage_nodes))
        if prune_head or taken[-1] < len(self.stage_nodes) - 1:
            ends = [node for i, nodes in enumerate(self.stage_nodes.values()) if i in taken for node in nodes]
            needed = self.wiring.modules_before(ends)
            self._num_features = self.feature_info[taken[-1]]["num_chs"]  # measured while all modules exist
            for path in self.wiring.modules:
                if path not in needed:
                    set_module(self, path, Pruned(path))
        return taken

    def _stages_under(self, paths: Paths | str | None) -> list[list[str]]:
        """Return the nodes of each stage that are alive under ``paths``; no stage's node is inside a loop."""
        alive = {INPUT, *(step.node.name for step in self.plan(paths))}
        found = ([node for node in nodes if node in alive] for nodes in self.stage_nodes.values())
        return [nodes for nodes in found if nodes]  # a path that ends early has fewer stages

    def _other_backbone(self) -> tuple[str, _Backbone] | None:
        """Return path and module of the unit that computes the maps if it is another package's model with stages."""
        node = None if self.stage_nodes else self.wiring.by_name.get(self._features)
        if not isinstance(node, Unit):
            return None
        unit = self.get_submodule(node.module)
        return (node.module, cast(_Backbone, unit)) if getattr(unit, "feature_info", None) else None

    def _measured_stages(self) -> list[dict[str, Any]]:
        at = self._stages_under(None)
        if not at:  # for instance a ViT with skips, which may accept images of one size only
            return []
        side = max(LARGE, self.min_size)
        shapes = self._shapes([nodes[0] for nodes in at], side, side)
        return [
            {"num_chs": int(shape[1]), "reduction": max(1, round(side / shape[-1])), "module": name, "index": i}
            for i, (name, shape) in enumerate(zip(self.stage_nodes, shapes, strict=True))
        ]

    def channels_of(self, nodes: Sequence[str]) -> list[int]:
        """Return the number of channels of each node's output, without computing it. Tokens ``(N, L, C)`` have their
        channels last. The nodes must be alive in the whole network."""
        return [
            int(shape[-1] if len(shape) == 3 else shape[1])
            for shape in self._shapes(nodes, self.min_size, self.min_size)
        ]

    def map_size(self, height: int, width: int) -> tuple[int, ...]:
        """Return height and width of the maps that the head reads for images of this size, or ``()`` if the head reads
        no maps. The maps are not computed."""
        (shape,) = self._shapes([self._features], height, width)
        return tuple(shape[2:]) if len(shape) == 4 else ()

    def _shapes(self, nodes: Sequence[str], height: int, width: int) -> list[torch.Size]:
        """Return the shapes of the nodes' outputs for one image, without computing them."""
        twin = weightless(self)
        like = next((p for p in twin.parameters() if p.is_floating_point()), torch.empty(0))
        x = torch.empty(1, self.in_chans, height, width, dtype=like.dtype, device="meta")
        with torch.no_grad():
            values = run_steps(twin, twin.plan(None, tuple(nodes)), {INPUT: x}, gates="all")
        return [values[node].shape for node in nodes]

    # --- the classifier, timm's interface ----------------------------------------------------------------

    @property
    def _classifier_paths(self) -> tuple[str, ...]:
        """The paths of the last layers: of each exit, if there are exits, and then of the whole network."""
        last = self.wiring.by_name.get(self.wiring.output)
        ends = [last]
        if isinstance(last, Join) and last.kind == "switch" and not last.gates:
            ends = [self.wiring.by_name.get(operand.source) for operand in last.operands]
        paths = tuple(end.module for end in ends if isinstance(end, Unit))
        if len(paths) < len(ends):
            raise ValueError("this network does not end in a unit, so it has no classifier")
        return paths

    def get_classifier(self) -> nn.Module:
        """Return the last layer. In a network with exits, this is the last layer of the whole network."""
        return self.get_submodule(self._classifier_paths[-1])

    @property
    def num_classes(self) -> int:
        last = self.get_classifier()
        return last.out_features if isinstance(last, nn.Linear) else 0

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """The network's description in timm's format: image preparation, first convs, classifier.

        timm reads it in ``resolve_model_data_config(net)``.
        """
        convs, last = tuple(self.first_convs()), self.wiring.by_name.get(self.wiring.output)
        ends: dict[str, Any] = {"num_classes": self.num_classes, "first_conv": convs[0] if len(convs) == 1 else convs}
        if last is not None:
            paths = self._classifier_paths
            ends["classifier"] = paths[0] if len(paths) == 1 else paths
        if "classes" in self.config:
            ends["label_names"] = self.class_names
        return timm_config(self.config, self.in_chans, self.min_size, ends)

    @property
    def default_cfg(self) -> dict[str, Any]:
        """timm's older name for :attr:`pretrained_cfg`."""
        return self.pretrained_cfg

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the outputs, in order: ``classes`` in the config or, by default, ``0``, ``1``, ….

        Raises:
            ValueError: the config has more or fewer names than the head has outputs.
        """
        known = self.config.get("classes")
        return check_classes(known, self.num_classes) if known else tuple(map(str, range(self.num_classes)))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer of the network and of each exit.

        With 0 classes the layer is removed, and the output is the pre-logits. With 0 classes and ``global_pool=""`` the
        complete head is removed, and the output is the maps that the head read. The names of the classes are removed
        from the config, because they belong to the old layer.

        Raises:
            ValueError: a negative number, another pool, a head that was removed earlier or that cannot be removed.
        """
        if global_pool not in (None, "", "avg"):
            raise ValueError(f"global_pool = {global_pool!r}: must be None (keep the pool) or '' (remove the pool)")
        num_classes = check("num_classes", num_classes, whole(0))
        if global_pool == "":
            self._take_head(num_classes)
        like = next(self.parameters())
        for path in self._classifier_paths:
            width = getattr(self.get_submodule(path), "in_features", None)
            if width is None or (num_classes and not self.config.get("arguments", {}).get("pooled", True)):
                raise ValueError("the last layer was removed earlier; build the network again to classify")
            new = (
                nn.Linear(width, num_classes, device=like.device, dtype=like.dtype) if num_classes else Identity(width)
            )
            set_module(self, path, new)
        self.config = {**self.config, "arguments": {**self.config.get("arguments", {}), "num_classes": num_classes}}
        self.config.pop("classes", None)

    def _take_head(self, num_classes: int) -> None:
        nodes = [node for node in self.wiring.nodes if isinstance(node, Unit) and node.name.startswith(HEAD)]
        if num_classes:
            raise ValueError(f"num_classes = {num_classes}: must be 0 without a pool, since a classifier needs a pool")
        if len(self._classifier_paths) > 1 or any(node.variant is not None for node in nodes):
            raise ValueError("global_pool = '': this network's pool cannot be removed; pass None, or use features_only")
        for node in nodes:
            if node.module not in self._classifier_paths:
                set_module(self, node.module, nn.Identity())
        self.config = {**self.config, "arguments": {**self.config.get("arguments", {}), "pooled": False}}

    @property
    def head_hidden_size(self) -> int:
        """The number of inputs of the last layer."""
        return int(getattr(self.get_classifier(), "in_features", 0))

    @property
    def num_features(self) -> int:
        """The number of channels of the maps, or of the tokens, that :meth:`forward_features` returns."""
        if self._num_features is None:
            (self._num_features,) = self.channels_of([self._features])
        return self._num_features

    @property
    def in_chans(self) -> int:
        """The number of channels of the images: ``in_chans`` in the config, by default that of the first conv."""
        if (known := self.config.get("arguments", {}).get("in_chans")) is not None:
            return int(known)
        return next((conv.in_channels for conv in self.first_convs().values()), 3)

    def first_convs(self) -> dict[str, nn.Conv2d]:
        """Return the convs that read the images, by name: the first conv of each unit that reads the input."""
        found: dict[str, nn.Conv2d] = {}
        for node in self.wiring.nodes:
            if isinstance(node, Unit) and node.source == INPUT:
                unit = self.get_submodule(node.module)
                modules = cast(Iterator[tuple[str, nn.Module]], unit.named_modules(prefix=node.module))
                for name, module in modules:
                    if isinstance(module, nn.Conv2d):
                        found[name] = module
                        break
        return found

    # --- training, timm's interface ----------------------------------------------------------------------

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass to save memory, see :mod:`polypath.core.checkpointed`."""
        self.checkpointed = check("enable", enable, FLAG)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return a function from a parameter's name to the parameter's depth, for layer-wise learning rates.

        With ``coarse``, the function returns the parameter's stage instead.
        """
        return depth_groups(self.wiring, self.stage_nodes if coarse else {})

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters, other than biases and vectors, that get no weight decay."""
        return undecayed(self, self.wiring)

    # --- copying -----------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> PathNet:
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        for key, value in self.__dict__.items():
            # wiring and selectors are immutable; plans can be rebuilt
            new.__dict__[key] = (
                {} if key == "_plans" else value if key in ("wiring", "selectors") else copy.deepcopy(value, memo)
            )
        return new


class _Backbone(Protocol):
    """A unit that has stages inside, such as another package's model."""

    @property
    def feature_info(self) -> Sequence[Mapping[str, Any]]: ...

    def forward_intermediates(self, x: Tensor, **options: Any) -> Any: ...


class Pruned(nn.Module):
    """A placeholder for a module that no requested stage needs; see :meth:`PathNet.prune_intermediate_layers`."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        raise ValueError(f"module {self.path!r} was pruned; this network only computes intermediates (features_only)")


class Identity(nn.Identity):
    """A placeholder for a removed classifier; it keeps the width of the classifier's input."""

    def __init__(self, width: int = 0) -> None:
        super().__init__()
        self.in_features = width


class Container(nn.Module):
    """A parent of other modules, such as ``block1``. A network runs node by node and never calls a parent."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError(f"{_NEVER_CALLED}; call the network, net(x, paths=...), or one of its units")

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        return self._told(super().register_forward_hook(*args, **kwargs))

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        return self._told(super().register_forward_pre_hook(*args, **kwargs))

    def register_full_backward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        return self._told(super().register_full_backward_hook(*args, **kwargs))

    def _told(self, handle: RemovableHandle) -> RemovableHandle:
        warnings.warn(f"{_NEVER_CALLED}, so the hook never runs; use net.register_node_hook", stacklevel=3)
        return handle


def set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at a dotted path under ``root``; each missing parent becomes a :class:`Container`."""
    *parents, last = path.split(".")
    for name in parents:
        if not isinstance(getattr(root, name, None), nn.Module):
            root.add_module(name, Container())
        root = root.get_submodule(name)
    root.add_module(last, module)
