"""Record a network as a flat ``torch.fx`` graph without choices, which TorchScript can compile."""

from __future__ import annotations

from torch import Tensor, fx, nn

from polypath.core.execute import run_steps
from polypath.core.plan import Step
from polypath.core.wiring import INPUT


class _Flat(nn.Module):
    """A module that runs the steps of one plan."""

    def __init__(self, net: nn.Module, steps: tuple[Step, ...], output: str) -> None:
        super().__init__()
        self.steps, self.output = steps, output
        for name, module in net.named_children():
            self.add_module(name, module)
        self.training = False  # only for this module; the modules inside keep their mode

    def forward(self, x: Tensor) -> Tensor:
        return run_steps(self, self.steps, {INPUT: x})[self.output]


class _IntoOurs(fx.Tracer):
    """A tracer that looks into modules of this package only. TorchScript compiles all other modules itself."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.partition(".")[0] != __name__.partition(".")[0]


def flat(net: nn.Module, steps: tuple[Step, ...], output: str) -> fx.GraphModule:
    """Record the steps of a plan as a ``torch.fx`` graph over the network's own modules.

    The graph runs as in evaluation: all gated loops run, but a sample whose gate is closed keeps its value. Survival
    rates of stochastic depth scale the operands. Batch-norm and dropout follow the returned module's mode.
    """
    root = _Flat(net, steps, output)
    graph = follow_mode(_IntoOurs().trace(root))
    for node in graph.nodes:
        node.type = None  # TorchScript cannot resolve the type names that come from the source code
    module = fx.GraphModule(root, graph, type(net).__name__)
    module.training = net.training
    return module


def follow_mode(graph: fx.Graph) -> fx.Graph:
    """Make functions that were recorded with a fixed mode, such as dropout, read the mode from their module."""
    for node in list(graph.nodes):
        if isinstance(node.kwargs.get("training"), bool):
            with graph.inserting_before(node):
                node.kwargs = {**node.kwargs, "training": graph.get_attr("training")}
    return graph
