"""A network as one flat forward without a choice, for ``torch.fx`` and TorchScript."""

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
    """Traces into modules of this package only: TorchScript compiles the others itself."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.partition(".")[0] != __name__.partition(".")[0]


def flat(net: nn.Module, steps: tuple[Step, ...], output: str) -> fx.GraphModule:
    """The steps of a plan as a ``torch.fx`` graph over the network's own modules.

    It runs as in evaluation: all gated loops run, a sample whose gate is shut keeps its value, and stochastic depth
    scales. Batch-norm and dropout follow the mode of the returned module.
    """
    root = _Flat(net, steps, output)
    graph = follow_mode(_IntoOurs().trace(root))
    for node in graph.nodes:
        node.type = None  # type names from the source, which TorchScript cannot resolve
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
