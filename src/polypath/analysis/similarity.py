"""Measures of redundancy among channels (GUNN §4): similarity of pairs, eigenvalues, effective dimension.

Channels that collapse into each other are redundant: their ``|cosine|`` or ``|correlation|`` over images and positions
is near 1. GUNN's update order makes this impossible *across* segments, but not within a segment (§4.3). So pairs within
segments and pairs across segments are reported separately. The effective dimension of N channels is computed from the
eigenvalues λ of their second moments or covariance, in two ways:

participation ratio   (Σλ)² / Σλ²        entropy   exp(−Σ p ln p),  p = λ / Σλ

Both measures are N if all eigenvalues are equal, and 1 if all but one are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from polypath.core.checks import check, one_of
from polypath.core.execute import Trace
from polypath.core.network import PathNet
from polypath.core.wiring import Unit
from polypath.layers.gunn.layer import GunnLayer

Measure = Literal["correlation", "cosine"]
ALIKE = 0.9


@dataclass(frozen=True, eq=False)
class Moments:
    """The sums of C channels' values ``(C,)`` and of their products ``(C, C)`` over images and positions, in float64.
    Moments of different images can be added."""

    count: int
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> Moments:
        """Compute the moments of maps ``(N, C, H, W)``, or of features ``(N, C)``.

        Raises:
            ValueError: ``maps`` does not have 2 or 4 dimensions.
        """
        if maps.ndim not in (2, 4):
            raise ValueError(f"maps have shape {tuple(maps.shape)}: must be (N, C, H, W) or (N, C)")
        rows = maps.detach().movedim(1, -1).reshape(-1, maps.shape[1]).double()
        return cls(len(rows), rows.sum(0), rows.T @ rows)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.first + other.first, self.second + other.second)

    def matrix(self, measure: Measure) -> Tensor:
        """Return the covariances ``(C, C)`` for ``correlation``, or the second moments ``(C, C)`` for ``cosine``.

        Raises:
            ValueError: the measure is unknown.
        """
        check("measure", measure, one_of(*get_args(Measure)))
        second = self.second / self.count
        if measure == "cosine":
            return second
        mean = self.first / self.count
        return second - mean[:, None] * mean


def channel_moments(
    net: PathNet, batches: Iterable[Sequence[Tensor]], nodes: Iterable[str] | None = None
) -> dict[str, Moments]:
    """Compute the moments of the outputs of ``nodes`` (None: all GUNN and SUNN layers) over the images of ``batches``.

    The network runs in evaluation mode; its mode is restored.

    Raises:
        ValueError: a node is unknown, or there are no nodes or no images.
    """
    names = list(segments_of(net)) if nodes is None else list(nodes)
    if not names:
        raise ValueError("nodes: this network has no GUNN layers; give the nodes to analyse")
    if unknown := [name for name in names if name not in net.wiring.by_name]:
        raise ValueError(f"node {unknown[0]!r}: must be a node of the network: {', '.join(net.wiring.by_name)}")
    device, modes = next(net.parameters()).device, [(module, module.training) for module in net.modules()]
    found: dict[str, Moments] = {}
    net.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                trace = Trace(frozenset(names))
                net(batch[0].to(device), trace=trace)
                for name in names:
                    part = Moments.of(trace.values[name].cpu())
                    found[name] = found[name] + part if name in found else part
    finally:
        for module, training in modes:
            module.training = training
    if not found:
        raise ValueError("there are no images: the batches are empty")
    return found


def segments_of(net: PathNet) -> dict[str, int]:
    """Return the number of segments P of every GUNN or SUNN layer, as ``{node: P}``."""
    found = {}
    for node in net.wiring.nodes:
        if isinstance(node, Unit) and isinstance(layer := net.get_submodule(node.module), GunnLayer):
            found[node.name] = layer.segments
    return found


def channel_pairs(moments: Moments, segments: int = 1, measure: Measure = "correlation") -> pd.DataFrame:
    """Compute the similarity of every pair of channels.

    Returns:
        A row for each pair: channels ``i`` < ``j``, ``within`` (whether both channels are in the same one of
        ``segments`` equal segments), ``similarity`` (``|correlation|`` or ``|cosine|``, 0 to 1). The similarity is 0
        if one of the channels is constant (``correlation``) or zero (``cosine``).

    Raises:
        ValueError: ``segments`` does not divide the number of channels, or the measure is unknown.
    """
    chans = len(moments.first)
    if segments < 1 or chans % segments:
        raise ValueError(f"segments = {segments}: must divide {chans}, the number of channels")
    matrix = moments.matrix(measure)
    scale = matrix.diagonal().clamp(min=0).sqrt()
    # due to rounding, the variance of a constant channel may be above 0
    noise = 1e-12 * (moments.second.diagonal() / moments.count)
    alive = matrix.diagonal() > noise
    similar = (matrix / (scale[:, None] * scale)).abs().clamp(max=1.0)
    similar = torch.where(alive[:, None] & alive, similar, torch.zeros_like(similar))
    i, j = torch.triu_indices(chans, chans, 1)
    width = chans // segments
    return pd.DataFrame(
        {
            "i": i.numpy(),
            "j": j.numpy(),
            "within": (i // width == j // width).numpy(),
            "similarity": similar[i, j].numpy(),
        }
    )


def pair_summary(pairs: pd.DataFrame, alike: float = ALIKE) -> pd.DataFrame:
    """Summarise :func:`channel_pairs` in two rows, for ``pairs`` within and across segments. The columns are ``count``,
    the ``mean``, ``median``, ``p95`` and ``max`` similarity, and ``alike``: the percentage of pairs whose similarity is
    at least the argument ``alike``."""
    rows = []
    for kind, wanted in (("within", True), ("across", False)):
        of = pairs.loc[pairs["within"] == wanted, "similarity"]
        some = len(of) > 0
        rows.append(
            {
                "pairs": kind,
                "count": len(of),
                "mean": of.mean(),
                "median": of.median(),
                "p95": of.quantile(0.95) if some else float("nan"),
                "max": of.max(),
                "alike": 100.0 * (of >= alike).mean() if some else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def spectrum(moments: Moments | Mapping[str, Moments], measure: Measure = "correlation") -> pd.DataFrame:
    """Compute eigenvalues of the covariance (``correlation``) or of the second moments (``cosine``), the largest first.

    Returns:
        A row for each eigenvalue: ``layer``, ``rank`` (from 1), ``eigenvalue``, ``share`` of the eigenvalues' sum,
        ``cumulative`` share.

    Raises:
        ValueError: the measure is unknown.
    """
    parts = []
    for name, of in ({"": moments} if isinstance(moments, Moments) else moments).items():
        values = torch.linalg.eigvalsh(of.matrix(measure)).flip(0).clamp(min=0)
        total = values.sum()
        share = values / total if total > 0 else torch.zeros_like(values)
        columns = {"eigenvalue": values, "share": share, "cumulative": share.cumsum(0)}
        part = pd.DataFrame({key: value.numpy() for key, value in columns.items()})
        part.insert(0, "layer", name)
        part.insert(1, "rank", range(1, len(part) + 1))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def effective_dimension(values: Tensor | Sequence[float]) -> dict[str, float]:
    """Compute the effective dimensions ``participation`` and ``entropy`` of eigenvalues ``(N,)``. Both are between 1
    and N, or 0 if all eigenvalues are 0.

    Raises:
        ValueError: there are no eigenvalues, or one is below 0.
    """
    lam = torch.as_tensor(values, dtype=torch.float64)
    if lam.ndim != 1 or not len(lam) or float(lam.min()) < 0:
        raise ValueError(f"eigenvalues of shape {tuple(lam.shape)}: must be (N,) with N at least 1, and none below 0")
    if float(lam.sum()) == 0.0:
        return {"participation": 0.0, "entropy": 0.0}
    p = lam / lam.sum()
    return {
        "participation": float(1.0 / (p**2).sum()),
        "entropy": float(torch.exp(-torch.special.xlogy(p, p).sum())),
    }


def similarity_table(
    moments: Mapping[str, Moments], segments: Mapping[str, int] | int = 1, measure: Measure = "correlation"
) -> pd.DataFrame:
    """Summarise the similarity of channels in a row for each layer: ``layer``, ``channels``, ``segments``, ``within``
    and ``across`` (mean similarity), ``within_alike`` and ``across_alike`` (% of pairs with a similarity of at least
    0.9), ``participation`` and ``entropy``, and these two divided by the number of channels.

    Raises:
        ValueError: a number of segments does not divide the number of channels, or the measure is unknown.
    """
    rows = []
    for name, of in moments.items():
        parts = segments if isinstance(segments, int) else segments.get(name, 1)
        pairs = pair_summary(channel_pairs(of, parts, measure)).set_index("pairs")
        size = effective_dimension(torch.from_numpy(spectrum(of, measure)["eigenvalue"].to_numpy(copy=True)))
        chans = len(of.first)
        rows.append(
            {
                "layer": name,
                "channels": chans,
                "segments": parts,
                **{kind: pairs.loc[kind, "mean"] for kind in ("within", "across")},
                **{f"{kind}_alike": pairs.loc[kind, "alike"] for kind in ("within", "across")},
                **size,
                **{f"{key}_share": value / chans for key, value in size.items()},
            }
        )
    return pd.DataFrame(rows)
