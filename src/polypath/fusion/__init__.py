"""Rewrites of a network for inference: the same inputs and outputs in fewer and larger steps.

Each pass is a file: it takes a :class:`~polypath.fusion.draft.Draft` (the wiring and its modules) and changes it.

folding     a norm goes into the conv before it, a ReLU between them becomes a clamp (exact at zero-padded borders)
means       a mean's division goes into weights before or after it
joins       a ReLU after a join writes to the join's memory
siblings    convs that read the same input run as one, and so do their readers if these are only summed
gunn        the norms inside GUNN's layers go into their convs; one product serves all readers of the buffer
gates       the norms inside gates go into their linear layers

The given network remains the reference.
"""

from __future__ import annotations

from polypath.core.arguments import takes
from polypath.core.checks import FLAG, TEXT
from polypath.core.extract import extract
from polypath.core.network import PathNet
from polypath.core.network_rules import NETWORK
from polypath.core.paths import Paths
from polypath.fusion.draft import Draft
from polypath.fusion.folding import fold_norms
from polypath.fusion.gates import fold_gates
from polypath.fusion.gunn import fold_gunn
from polypath.fusion.joins import reuse_sums
from polypath.fusion.means import fold_means
from polypath.fusion.network import FusedNet
from polypath.fusion.siblings import merge_siblings


@takes(net=NETWORK, siblings=TEXT, hold=FLAG)
def fuse(net: PathNet, paths: Paths | str | None = None, *, siblings: str = "summed", hold: bool = False) -> FusedNet:
    """A network for inference that gives the output of ``net(x, paths=paths)``, up to rounding, in fewer steps.

    It has one path: joins that ``paths`` does not restrict run completely, and there are no further choices. Gates that
    ``paths`` does not fix still decide. Weights are copies, convs are channels-last; ``net`` does not change.

    Args:
        net: in evaluation mode, with its final weights.
        siblings: which convs of one input become one, see :func:`~polypath.fusion.siblings.merge_siblings`.
        hold: keep every node and, up to rounding, its value, so that networks can reuse each other's values
            (:mod:`polypath.core.reuse`): norms are folded, and nothing else is done.

    Raises:
        ValueError: a network in training mode, an unknown or impossible choice.
    """
    if net.training:
        raise ValueError("this network is in training mode, but fused networks only infer: call net.eval() first")
    draft = Draft.of(extract(net, Paths() if paths is None else paths))
    fold_norms(draft)
    fold_gunn(draft)
    fold_gates(draft)
    if hold:
        return draft.finish()
    fold_means(draft)
    reuse_sums(draft)
    merge_siblings(draft, siblings)
    return draft.finish()


__all__ = ["Draft", "FusedNet", "fuse"]
