"""Computes how much of a network's weights its paths share."""

from __future__ import annotations

from collections.abc import Mapping

from polypath.core.extract import extract
from polypath.core.network import PathNet
from polypath.core.paths import WHOLE_TEXT, Paths


def shares(net: PathNet, paths: Mapping[str, Paths]) -> dict[str, float]:
    """Return for each path the share of its parameters that another of ``paths`` also uses. The whole network uses all
    parameters, so it does not count as such another path."""
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    used = {name: {key for key, _ in extract(net, p).named_parameters()} for name, p in paths.items()}
    found = {}
    for name, own in used.items():
        others = set().union(*(keys for other, keys in used.items() if other not in (name, WHOLE_TEXT)))
        found[name] = sum(sizes[key] for key in own & others) / sum(sizes[key] for key in own)
    return found


def bytes_of(net: PathNet, paths: Paths | None = None) -> int:
    """Return the size in bytes of a path's weights and batch-norm statistics as a standalone network."""
    child = net if paths is None else extract(net, paths)
    return sum(t.numel() * t.element_size() for t in child.state_dict().values() if t.is_floating_point())
