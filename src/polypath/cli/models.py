"""``polypath models``: list the registered networks, with their sizes and the figures in the papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polypath.cli.parser import PROGRAM, Parser
from polypath.cli.tables import millions, print_json, print_table, watched
from polypath.core.display import short_count

if TYPE_CHECKING:
    from torch import nn

    from polypath.families.base import Preset


def models(argv: list[str]) -> None:
    """List registered networks, with their paper, parameters, MACs for one image, paths, and the paper's figures."""
    parser = Parser("models", models.__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="shell-style pattern, such as 'gunn*'")
    parser.add_json()
    args = parser.read(argv)

    from polypath.families.registry import get_preset, list_models

    names = list_models(args.pattern)
    if not names:
        if set(args.pattern) & set("*?["):
            raise ValueError(f"no network's name matches {args.pattern!r}; `{PROGRAM} models` lists all")
        names = [args.pattern]  # timm:NAME, or an unknown name, for which get_preset suggests similar ones
    presets = {name: get_preset(name) for name in names}
    rows = [describe(name, presets[name]) for name in watched(names, "building networks")]
    if args.json:
        print_json(rows)
        return
    print_table(
        "Networks",
        ["name", "paper", "params", "MACs", "image size", "depth", "paths", "in the paper (ours)"],
        [
            [
                row["name"],
                f"{row['paper']}; {row['table']}" if row["table"] else row["paper"],
                f"{row['params']:,}",
                millions(row["macs"]),
                f"{row['size']}²",
                str(row["depth"]),
                short_count(row["paths"]),
                "; ".join(compared(row)),
            ]
            for row in rows
        ],
        left=2,
        notes=[
            "MACs: number of multiply-adds of the whole network for one image of the size shown.",
            "Depth: number of layers of the longest path. Linear layers count if the paper counts them.",
        ],
    )


def describe(name: str, preset: Preset) -> dict[str, Any]:
    """Return a network's row of the table, as JSON values. The network is built on the meta device, without weights."""
    import torch

    from polypath.families.registry import create_model
    from polypath.profiling.cost import cost

    with torch.device("meta"):
        net = create_model(name)
    params = sum(p.numel() for p in net.parameters())
    depths = net.wiring.depth_distribution()
    _strip(net)
    return {
        "name": name,
        "family": preset.spec.family,
        "paper": preset.spec.paper,
        "table": preset.table,
        "size": preset.size,
        "params": params,
        "macs": cost(net, size=preset.size).macs,
        "paths": sum(depths.values()),
        "depth": max(depths) + preset.linear,
        "shortest": min(depths) + preset.linear,
        "printed": dict(preset.printed),
        "named_paths": list(net.named_paths()),
    }


def _strip(net: nn.Module) -> None:
    """Remove norms and ReLUs from a network that is only counted. They have no MACs, but take most of the time."""
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm | nn.ReLU | nn.ReLU6):
                setattr(module, name, nn.Identity())


def compared(row: dict[str, Any]) -> list[str]:
    """Return the figures printed in the paper, each followed by ours in the same unit."""
    ours = {"params": row["params"] / 1e6, "macs": row["macs"] / 1e9, "depth": row["depth"], "paths": row["paths"]}
    units = {"params": " M", "macs": " G"}
    return [
        f"{key} {value:g}{units.get(key, '')} ({ours[key]:.4g})" for key, value in row["printed"].items() if key in ours
    ]
