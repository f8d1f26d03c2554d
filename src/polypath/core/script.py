"""A network as one flat forward without a choice, as ``torch.fx`` and TorchScript read it."""

from __future__ import annotations

from torch import Tensor, fx, nn

from polypath.core.execute import run_steps
from polypath.core.plan import Step
from polypath.core.wiring import INPUT


class _Flat(nn.Module):
    """The steps of one plan, in a row."""

    def __init__(self, net: nn.Module, steps: tuple[Step, ...], output: str) -> None:
        super().__init__()
        self.steps, self.output = steps, output
        for name, module in net.named_children():
            self.add_module(name, module)
        self.training = False  # its own mode; its modules keep theirs

    def forward(self, x: Tensor) -> Tensor:
        return run_steps(self, self.steps, {INPUT: x})[self.output]


class _IntoOurs(fx.Tracer):
    """Looks into modules of this package alone: TorchScript reads others by itself, as their packages mean it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.partition(".")[0] != __name__.partition(".")[0]


def flat(net: nn.Module, steps: tuple[Step, ...], output: str) -> fx.GraphModule:
    """The steps of a plan as ``torch.fx`` records them, over the network's own modules.

    It runs as in evaluation: gated loops all run, and where a gate is shut a sample keeps what it had; stochastic depth
    scales. Batch-norm and dropout follow the mode of the module that is returned.
    """
    root = _Flat(net, steps, output)
    graph = follow_mode(_IntoOurs().trace(root))
    for node in graph.nodes:
        node.type = None  # names of types as they stand in the source, which TorchScript cannot look up
    module = fx.GraphModule(root, graph, type(net).__name__)
    module.training = net.training
    return module


def follow_mode(graph: fx.Graph) -> fx.Graph:
    """Let functions that were recorded with a mode, such as dropout's, ask their module for it."""
    for node in list(graph.nodes):
        if isinstance(node.kwargs.get("training"), bool):
            with graph.inserting_before(node):
                node.kwargs = {**node.kwargs, "training": graph.get_attr("training")}
    return graph
