"""How much channels collapse into each other (GUNN §4): similarity of pairs, eigenvalues, effective dimension.

Channels are redundant if their ``|cosine|`` or ``|correlation|`` over images and positions is near 1. GUNN's update
order makes collapse impossible *across* segments, but not within one (§4.3). So the two kinds of pairs are reported
separately. The effective dimension of N channels is computed from the eigenvalues λ of their second moments or
covariance, in two ways:

participation ratio   (Σλ)² / Σλ²        entropy   exp(−Σ p ln p),  p = λ / Σλ

Both are N if all eigenvalues are equal, and 1 if all but one are 0.
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
    """Sums over images and positions of C channels, in float64: values ``(C,)`` and products ``(C, C)``. They can be
    added."""

    count: int
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> Moments:
        """Compute the moments of maps ``(N, C, H, W)``, or of features ``(N, C)``.

        Raises:
            ValueError: ``maps`` has another number of dimensions.
        """
        if maps.ndim not in (2, 4):
            raise ValueError(f"maps of shape {tuple(maps.shape)}: expected (N, C, H, W) or (N, C)")
        rows = maps.detach().movedim(1, -1).reshape(-1, maps.shape[1]).double()
        return cls(len(rows), rows.sum(0), rows.T @ rows)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.first + other.first, self.second + other.second)

    def matrix(self, measure: Measure) -> Tensor:
        """Return ``(C, C)`` covariances for ``correlation``, or second moments for ``cosine``.

        Raises:
            ValueError: an unknown measure.
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
        ValueError: an unknown node, no nodes, no images.
    """
    names = list(segments_of(net)) if nodes is None else list(nodes)
    if not names:
        raise ValueError("nodes: this network has no GUNN layers; give the nodes to analyse")
    if unknown := [name for name in names if name not in net.wiring.by_name]:
        raise ValueError(f"node {unknown[0]!r}: the network's nodes are {', '.join(net.wiring.by_name)}")
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
        raise ValueError("no images: the batches are empty")
    return found


def segments_of(net: PathNet) -> dict[str, int]:
    """Return ``{node: P}``, the number of segments of every GUNN or SUNN layer."""
    found = {}
    for node in net.wiring.nodes:
        if isinstance(node, Unit) and isinstance(layer := net.get_submodule(node.module), GunnLayer):
            found[node.name] = layer.segments
    return found


def channel_pairs(moments: Moments, segments: int = 1, measure: Measure = "correlation") -> pd.DataFrame:
    """Compute the similarity of every pair of channels.

    Returns:
        A row for each pair: channels ``i`` < ``j``, ``within`` (both are in one of the equal ``segments``),
        ``similarity`` (``|correlation|`` or ``|cosine|``, 0 to 1; 0 if a channel is constant, or 0 everywhere).

    Raises:
        ValueError: a number of segments that does not divide the channels, or an unknown measure.
    """
    chans = len(moments.first)
    if segments < 1 or chans % segments:
        raise ValueError(f"segments {segments}: must divide {chans} channels")
    matrix = moments.matrix(measure)
    scale = matrix.diagonal().clamp(min=0).sqrt()
    # by rounding, a constant channel's variance may be above 0
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
    """Summarise :func:`channel_pairs` in two rows, for ``pairs`` within and across segments: ``count``, ``mean``,
    ``median``, ``p95``, ``max`` similarity, and ``alike``, the percentage of pairs at or above the argument
    ``alike``."""
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
        A row for each eigenvalue: ``layer``, ``rank`` (from 1), ``eigenvalue``, ``share`` of their sum, ``cumulative``
        share.

    Raises:
        ValueError: an unknown measure.
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
    """Compute ``participation`` and ``entropy`` of eigenvalues ``(N,)``. They are between 1 and N, or 0 if all are 0.

    Raises:
        ValueError: no eigenvalues, or one below 0.
    """
    lam = torch.as_tensor(values, dtype=torch.float64)
    if lam.ndim != 1 or not len(lam) or float(lam.min()) < 0:
        raise ValueError(f"eigenvalues {tuple(lam.shape)}: must be at least one number, none below 0")
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
    and ``across`` (mean similarity), ``within_alike`` and ``across_alike`` (% of pairs at or above 0.9),
    ``participation``, ``entropy``, and the last two as shares of the channels.

    Raises:
        ValueError: as :func:`channel_pairs`.
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
