"""Path-wise training of CrescendoNet (§II-B): one branch of every block learns at a time, from the shortest to the
longest, in cycles. The parameters of the other branches are frozen. Layers outside the branches (the linear layers)
always learn.

Frozen branches still normalise with batch statistics and update their running statistics. The paper's text allows two
versions of the backward pass:

* *exact*: gradient flows through frozen branches to the layers before them. The gradients are bitwise equal to those of
  the whole network, but frozen parameters get no gradient.
* *truncated*: frozen branches run without gradient, so their activations are not stored. Layers before a block get
  gradients only through the active branch.

In a hand-written loop::

    active = active_branch(net.wiring, epoch, phase_epochs=5)
    loss = criterion(path_wise_forward(net, x, active, backward="truncated"), y)
    loss.backward()

When the active branch changes, call :func:`release` to free the gradients and the momentum of the frozen parameters.
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
    """Map the label of each branch to the names of its modules in all blocks, shortest branch first.

    A module belongs to branch n if removing operand n of some join makes the module dead.

    Raises:
        ValueError: the wiring has no joins that can drop operands, or the joins do not share one set of labels.
    """
    joins = [join for join in wiring.joins.values() if join.kind in SELECTABLE]
    labels = max((join.labels for join in joins), key=len, default=())
    if len(labels) < 2 or any(not set(join.labels) <= set(labels) for join in joins):
        raise ValueError("path-wise training needs blocks with the same branches, but this network has no such blocks")
    owned: dict[str, set[str]] = {label: set() for label in labels}
    for join in joins:
        for label in join.labels:
            others = tuple(other for other in join.labels if other != label)
            left = wiring.prune({join.name: others}).modules if others else ()
            owned[label].update(path for path in wiring.modules if path not in left)
    return {label: frozenset(paths) for label, paths in owned.items()}


def active_branch(wiring: Wiring, epoch: int, phase_epochs: int = 1) -> str:
    """Return the label of the branch that learns in ``epoch`` (counted from 0). Each branch learns for ``phase_epochs``
    epochs, in cycles.

    Raises:
        ValueError: ``epoch`` is negative, ``phase_epochs`` is below 1, or the wiring has no branches.
    """
    check("epoch", epoch, whole(0))
    check("phase_epochs", phase_epochs, whole(1))
    labels = list(branches(wiring))
    return labels[epoch // phase_epochs % len(labels)]


def frozen_modules(wiring: Wiring, active: str) -> frozenset[str]:
    """Return the names of the modules that belong to other branches than ``active``.

    Raises:
        ValueError: the branch is unknown.
    """
    owned = branches(wiring)
    check("active", active, one_of(*owned))
    return frozenset(path for label, paths in owned.items() if label != active for path in paths)


def learning_parameters(net: PathNet, active: str) -> frozenset[str]:
    """Return the names of the parameters that learn while branch ``active`` learns: those of this branch, and those
    outside all branches."""
    frozen = frozen_modules(net.wiring, active)
    return frozenset(
        name for name, _ in net.named_parameters() if not any(name.startswith(f"{path}.") for path in frozen)
    )


def path_wise_forward(
    net: PathNet, x: Tensor, active: str, *, backward: Backward = "exact", paths: Paths | None = None
) -> Tensor:
    """Compute logits ``(N, classes)``. Their backward pass computes gradients only for the parameters that
    :func:`learning_parameters` returns.

    ``paths`` may be a choice drawn by drop-path that keeps ``active``
    (:func:`polypath.training.sampling.local_drop_path` with ``keep``).

    Raises:
        ValueError: the branch or the value of ``backward`` is unknown.
    """
    check("backward", backward, one_of(*get_args(Backward)))
    frozen = frozen_modules(net.wiring, active)
    if backward == "truncated":
        return net(x, paths=paths, frozen=frozen)
    with without_gradient(net, frozen):
        return net(x, paths=paths)


@contextlib.contextmanager
def without_gradient(net: PathNet, modules: Iterable[str]) -> Iterator[None]:
    """Disable gradients of the parameters of ``modules`` inside the ``with`` block. Gradient still flows through the
    modules."""
    held = [p for path in modules for p in net.get_submodule(path).parameters() if p.requires_grad]
    try:
        for p in held:
            p.requires_grad_(False)
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


def release(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Delete the gradients and the optimiser's state (momentum, moments) of parameters that stop learning.

    This frees their memory. PyTorch's optimisers skip parameters without gradient, so neither weight decay nor old
    momentum moves them. When a parameter learns again, its momentum starts from zero.
    """
    for p in parameters:
        p.grad = None
        optimizer.state.pop(p, None)
