"""Rewrites of a network for inference: the same outputs for the same inputs, in fewer and larger steps.

Each rewrite is a module of this package. It changes a :class:`~polypath.fusion.draft.Draft`, a wiring with its modules.

folding     folds a norm into the conv before it; a ReLU between them becomes a clamp (exact at zero-padded borders)
means       folds the division of a mean into weights before or after it
joins       lets a ReLU after a join overwrite the join's output
siblings    merges convs that read the same input, and also their readers if these are only summed
gunn        folds the norms inside GUNN's layers into convs, and merges the products that read the buffer
gates       folds the norms inside gates into their linear layers

The original network does not change and remains the reference.
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
    """Rewrite a network for inference: it computes ``net(x, paths=paths)``, up to rounding, in fewer steps.

    The result has one path and no choices: joins that ``paths`` does not restrict run with all operands, and gates that
    ``paths`` does not fix still decide. Weights are copied, and convs are channels-last; ``net`` does not change.

    Args:
        net: a network in evaluation mode, with its final weights.
        siblings: which convs that read the same input are merged, see
            :func:`~polypath.fusion.siblings.merge_siblings`.
        hold: only fold norms. Every node then remains and keeps its value, up to rounding, so networks can reuse each
            other's values (:mod:`polypath.core.reuse`).

    Raises:
        ValueError: a network in training mode, an unknown or impossible choice.
    """
    if net.training:
        raise ValueError("this network is in training mode, but fuse() needs evaluation mode; call net.eval() first")
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
