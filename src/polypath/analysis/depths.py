"""The exact number of paths of each depth in a network, computed by dynamic programming over the wiring."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from polypath.core.network import PathNet
from polypath.core.wiring import Wiring
from polypath.profiling.cost import Choice, depth_distribution


def depths(nets: PathNet | Wiring | Mapping[str, PathNet | Wiring], paths: Choice = None) -> pd.DataFrame:
    """Compute the distribution of the depths of the paths in one network, or in several networks by name.

    Returns:
        A row for each network and depth: ``net``, ``depth`` (layers), ``paths`` (number of paths), ``log10`` of
        ``paths``, ``share`` of the network's paths, ``cumulative`` share up to the depth. ``paths`` is a Python
        integer of any size, so the column has dtype object.

    Raises:
        ValueError: the choice is illegal.
    """
    rows = []
    for name, net in nets.items() if isinstance(nets, Mapping) else [("", nets)]:
        found = depth_distribution(net, paths)
        total, so_far = sum(found.values()), 0
        for depth, count in found.items():
            so_far += count
            rows.append(
                {
                    "net": name,
                    "depth": depth,
                    "paths": count,
                    "log10": math.log10(count),
                    "share": count / total,
                    "cumulative": so_far / total,
                }
            )
    return pd.DataFrame(rows).astype({"paths": object})


def depth_summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Summarise the frame of :func:`depths` in a row for each network: the number of ``paths``, and the ``least``,
    ``mean`` and ``most`` depth with the standard ``deviation``."""
    rows = []
    for name, of in frame.groupby("net", sort=False):
        depth, share = of["depth"].to_numpy(), of["share"].to_numpy()
        mean = float(depth @ share)
        spread = float((depth - mean) ** 2 @ share) ** 0.5
        rows.append(
            {
                "net": name,
                "paths": sum(of["paths"].to_list()),
                "least": int(depth.min()),
                "mean": mean,
                "deviation": spread,
                "most": int(depth.max()),
            }
        )
    return pd.DataFrame(rows).astype({"paths": object})
