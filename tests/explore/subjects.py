"""Subjects for tests of the page: one whose times are given, and saved networks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import polypath as pp
from conftest import randomise_norms
from polypath.data.images import open_image
from polypath.explore.subject import PathFacts, Run
from polypath.families.crescendonet import CrescendoNet
from polypath.families.recursive import RecursiveResNet
from polypath.layers.gates import GateUnit
from polypath.storage.saving import save

DIGITS = tuple("0123456789")


class Given:
    """Three paths that take 1, 2 and 4 ms; a path answers with the class of its number of branches."""

    title, machine, classes, channels = "given", "a machine", ("one", "two", "<three>"), 1

    def __init__(self, errors: tuple[float | None, ...] = (30.0, 20.0, 10.0)) -> None:
        net = crescendo()
        names = ["branches=1", "branches=1,2", "whole"]
        self.paths = {
            name: PathFacts(
                name=name,
                wiring=net.wiring,
                choice=net.paths(name),
                error=error,
                macs=10**6 * ms,
                p50_ms=0.8 * ms,
                p99_ms=float(ms),
            )
            for name, error, ms in zip(names, errors, (1, 2, 4), strict=True)
        }
        self.ran: list[str] = []
        self.late: float | None = None
        self.busy = False

    def measure(self) -> None:
        """Another machine, twice as fast and calm."""
        self.busy = False
        for name, path in self.paths.items():
            self.paths[name] = replace(path, p50_ms=path.p50_ms / 2, p99_ms=path.p99_ms / 2)

    def choose(self, budget_ms: float) -> str | None:
        fitting = [name for name, path in self.paths.items() if path.p99_ms <= budget_ms]
        return fitting[-1] if fitting else None

    def run(self, image: bytes, budget_ms: float) -> Run | None:
        open_image(image)
        path = self.choose(budget_ms)
        if path is None or budget_ms == self.late:
            return None
        self.ran.append(path)
        at = list(self.paths).index(path)
        ms, choice = 0.9 * self.paths[path].p99_ms, self.paths[path].choice
        return Run(path=path, probabilities=np.eye(3)[at], ms=ms, choice=choice)


def crescendo() -> pp.PathNet:
    torch.manual_seed(0)
    net = CrescendoNet(in_chans=1, num_classes=10, widths=(4, 4), scale=3, hidden=(8,)).build().eval()
    randomise_norms(net)
    return net


def recursive() -> pp.PathNet:
    """A net whose gates let some of the first ten pictures take more loops than others."""
    net = RecursiveResNet(in_chans=1, num_classes=10, blocks=(1, 2, 2), loops=(1, 2, 3), width=8).build(0).eval()
    randomise_norms(net)
    x = torch.stack([torch.from_numpy(pixels(seed)).float()[None] for seed in range(10)]) / 255
    for gate in [module for module in net.modules() if isinstance(module, GateUnit)]:
        torch.nn.init.normal_(gate.last.weight, generator=torch.Generator().manual_seed(3))
        seen: list[torch.Tensor] = []
        hook = gate.register_forward_hook(lambda *a, seen=seen: seen.append(a[-1][:, 1] - a[-1][:, 0]))
        with torch.no_grad():
            net((x - 0.3) / 0.35, paths="loops=dynamic")
            gate.last.bias[1] -= seen[0].median()
        hook.remove()
    return net


def saved(net: pp.PathNet, folder: Path, errors: Mapping[str, float] | None = None) -> Path:
    """``net`` in a new folder, with a table of these errors by path."""
    table = [{"name": name, "error": error} for name, error in (errors or {}).items()]
    about = {"classes": DIGITS, "mean": [0.3], "std": [0.35], "image_size": 8, "resize": "crop"}
    return save(net, folder, path_table=table, **about)


def pixels(seed: int = 0, size: int = 8) -> np.ndarray:
    """Noise, brighter with every seed up to 9."""
    return np.random.default_rng(seed).integers(0, 30 + 25 * (seed % 10), (size, size), dtype=np.uint8)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def picture(seed: int = 0, size: int = 8) -> bytes:
    return png(Image.fromarray(pixels(seed, size)))
