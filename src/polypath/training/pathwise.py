"""Path-wise training of CrescendoNet (§II-B): branch n of every block learns, from the shortest to the longest, again
and again; the parameters of the other branches are frozen, and what no branch owns (the linear layers) always learns.

Frozen branches run with batch statistics and update their running ones. Two readings of the backward pass:

* *exact*: gradient flows through frozen branches to what stands before them. The gradients are the whole network's,
  to the bit, less those of frozen parameters.
* *truncated*: frozen branches run without gradient, so their activations are not held either; what stands before a
  block learns through the active branch alone.

In a hand-written loop::

    active = active_branch(net.wiring, epoch, phase_epochs=5)
    loss = criterion(path_wise_forward(net, x, active, backward="truncated"), y)
    loss.backward()

and where the active branch changes, :func:`release` lets go of the gradients and the momentum of the frozen ones.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from torch import Tensor, nn
from torch.optim import Optimizer

from polypath.core.checks import check, one_of, whole
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.core.wiring import Wiring
from polypath.training.sampling import SELECTABLE

Backward = Literal["exact", "truncated"]


@functools.lru_cache(maxsize=64)
def branches(wiring: Wiring) -> dict[str, frozenset[str]]:
    """Label of each branch to the paths of the modules that it alone owns, in all blocks, shortest first.

    A module is branch n's where everything that it feeds passes operand n of some join.

    Raises:
        ValueError: a wiring without joins to choose at, or whose joins do not share one set of labels.
    """
    joins = [join for join in wiring.joins.values() if join.kind in SELECTABLE]
    labels = max((join.labels for join in joins), key=len, default=())
    if len(labels) < 2 or any(not set(join.labels) <= set(labels) for join in joins):
        raise ValueError("path-wise training needs blocks with the same branches, and this network has none such")
    owned: dict[str, set[str]] = {label: set() for label in labels}
    for join in joins:
        for label in join.labels:
            others = tuple(other for other in join.labels if other != label)
            left = wiring.prune({join.name: others}).modules if others else ()
            owned[label].update(path for path in wiring.modules if path not in left)
    return {label: frozenset(paths) for label, paths in owned.items()}


def active_branch(wiring: Wiring, epoch: int, phase_epochs: int = 1) -> str:
    """Label of the branch that learns in ``epoch`` (from 0): each for ``phase_epochs``, then the next, round and round.

    Raises:
        ValueError: a negative epoch, a phase of no epochs, a wiring without branches.
    """
    check("epoch", epoch, whole(0))
    check("phase_epochs", phase_epochs, whole(1))
    labels = list(branches(wiring))
    return labels[epoch // phase_epochs % len(labels)]


def frozen_modules(wiring: Wiring, active: str) -> frozenset[str]:
    """Paths of the modules that belong to other branches than ``active``.

    Raises:
        ValueError: a label that is no branch.
    """
    owned = branches(wiring)
    check("active", active, one_of(*owned))
    return frozenset(path for label, paths in owned.items() if label != active for path in paths)


def learning_parameters(net: PathNet, active: str) -> frozenset[str]:
    """Names of the parameters that learn while ``active`` does: its own, and those that no branch owns."""
    frozen = frozen_modules(net.wiring, active)
    return frozenset(
        name for name, _ in net.named_parameters() if not any(name.startswith(f"{path}.") for path in frozen)
    )


def path_wise_forward(
    net: PathNet, x: Tensor, active: str, *, backward: Backward = "exact", paths: Paths | None = None
) -> Tensor:
    """Logits ``(N, classes)`` whose backward reaches the parameters that learn with ``active``, and no others.

    ``paths`` may be a sample of drop-path that keeps ``active``
    (:func:`polypath.training.sampling.local_drop_path` with ``keep``).

    Raises:
        ValueError: an unknown branch or reading.
    """
    check("backward", backward, one_of(*get_args(Backward)))
    frozen = frozen_modules(net.wiring, active)
    if backward == "truncated":
        return net(x, paths=paths, frozen=frozen)
    with without_gradient(net, frozen):
        return net(x, paths=paths)


@contextlib.contextmanager
def without_gradient(net: PathNet, modules: Iterable[str]) -> Iterator[None]:
    """Forwards inside the block ask no gradient for the parameters of ``modules``; gradient flows through them."""
    held = [p for path in modules for p in net.get_submodule(path).parameters() if p.requires_grad]
    try:
        for p in held:
            p.requires_grad_(False)
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


def release(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Forget the gradients and the optimiser's state (momentum, moments) of parameters that stop learning.

    Without it they would stay in memory; a parameter without gradient is not stepped by PyTorch's optimisers, so
    neither weight decay nor old momentum moves it. When it learns again, its momentum starts from nothing.
    """
    for p in parameters:
        p.grad = None
        optimizer.state.pop(p, None)
