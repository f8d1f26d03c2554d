"""Every registered model exports with a free batch, by our commands and by a user's own calls of torch.

For each family its smallest form, and each kind of layer; marked slow, every form in every way, and in full size the
registered models, of those with the same layers one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polypath as pp
from conftest import assert_close, randomise_norms
from contracts.small import FORMS, SHRINK, small_net
from polypath.deploy.bundle import Bundle
from polypath.deploy.export import export_path
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.runtimes.onnxruntime_ import make_session
from polypath.deploy.stepwise import Stepwise
from polypath.deploy.stepwise_write import write_stepwise
from polypath.deploy.write import write_bundle
from polypath.families.recursive import PadShortcut
from polypath.families.registry import PRESETS, create_model, get_preset
from polypath.fusion.units import FoldedConv, Part
from polypath.layers.conv import ConvUnit
from polypath.layers.gates import GateUnit
from polypath.layers.ghost import ghost_norms
from polypath.layers.gunn.layer import GunnLayer
from polypath.layers.lvbn import LoopUnit

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

BATCHES = (1, 2, 3)
Run = Callable[[Tensor], Tensor]


def images(n: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def free_batch() -> tuple[dict[int, torch.export.Dim]]:
    return ({0: torch.export.Dim("batch")},)


def exported(net: pp.PathNet, size: int) -> torch.export.ExportedProgram:
    return torch.export.export(net, (images(2, size),), dynamic_shapes=free_batch())


def by_torch_export(net: pp.PathNet, size: int, folder: Path) -> Run:
    return exported(net, size).module()


def by_torch_onnx(net: pp.PathNet, size: int, folder: Path) -> Run:
    file = folder / "own.onnx"
    torch.onnx.export(net, (images(2, size),), file, dynamo=True, dynamic_shapes=free_batch(), verbose=False)
    return in_onnx_runtime(file)


def check_program(net: pp.PathNet, size: int, folder: Path) -> None:
    """A program of torch's, and the ONNX graph that torch makes of it: one export for both, which takes longest."""
    program = exported(net, size)
    check_answers(program.module(), net, size)
    torch.onnx.export(program, (), folder / "program.onnx", dynamo=True, verbose=False)
    check_answers(in_onnx_runtime(folder / "program.onnx"), net, size)


def by_file(net: pp.PathNet, size: int, folder: Path) -> Run:
    return in_onnx_runtime(export_path(net, "whole", folder, size=size).files[0])


def by_bundle(net: pp.PathNet, size: int, folder: Path) -> Run:
    net.config |= {
        "classes": tuple(map(str, range(net.num_classes))),
        "normalisation": {"mean": [0.5] * 3, "std": [0.2] * 3},
        "image": {"size": [size, size], "resize": "crop", "to": None},
    }
    write_bundle(net, folder / "bundle", ["whole"])
    runtime = open_runtime("onnxruntime", Bundle.open(folder / "bundle"), 1)
    return lambda x: torch.from_numpy(runtime.prepare("whole", len(x))(x.numpy()))


def by_steps(net: pp.PathNet, size: int, folder: Path) -> Run:
    write_stepwise(net, folder / "steps", size=size)
    steps = Stepwise.open(folder / "steps", 1)
    return lambda x: torch.from_numpy(steps.run(x.numpy())[0])


def in_onnx_runtime(file: Path) -> Run:
    session = make_session(str(file), 1)
    (name,) = (value.name for value in session.get_inputs())
    return lambda x: torch.from_numpy(np.asarray(session.run(None, {name: x.numpy()})[0]))


def check_answers(run: Run, net: pp.PathNet, size: int) -> None:
    """What was exported gives the network's answers for one, two and three images."""
    for n in BATCHES:
        x = images(n, size, seed=n)
        with torch.no_grad():
            wanted = net(x)
            found = run(x)
        assert found.shape == wanted.shape
        assert_close(found, wanted, within=1e-4)


SMALLEST = {get_preset(name).spec.family: name for name in FORMS}
SMALLEST |= {"crescendonet": "crescendonet_32", "dr_resnet": "dr_resnet_small", "gunn": "gunn_small"}
SMALLEST |= {"fractalnet": "fractalnet16_small"}
FOREIGN = ("timm:test_resnet", "pytorchcv:resnet20_cifar10")
# timm's own tiny models, one of each of its ways to draw a network
FOREIGN_SLOW = tuple(
    f"timm:test_{name}" for name in ("byobnet", "convnext", "efficientnet", "mambaout", "nfnet", "vit", "vit4")
)


def drawn(name: str) -> pp.PathNet:
    """A registered model's small form, or another package's model; ready to be run."""
    net = create_model(name, num_classes=5, seed=0) if ":" in name else small_net(name)
    return net.eval()


def side(net: pp.PathNet) -> int:
    """The side of images, large enough for all maps: OpenVINO cannot pool a map that is smaller than its window. For a
    transformer its own side, since OpenVINO would resize its position embeddings differently from torch."""
    body: Any = net.get_submodule("body") if "body" in net.wiring.modules else None
    model: Any = getattr(body, "model", None)
    if getattr(model, "pos_embed", None) is not None:
        return model.patch_embed.img_size[0]
    return max(net.min_size, 16) if body is None else net.min_size if getattr(body, "fixed", False) else 64


def with_ghost_norms() -> nn.Module:
    unit = nn.Sequential(ConvUnit(4, 6))
    ghost_norms(unit, 2)
    return unit


def fused_gunn() -> nn.Module:
    net = pp.fuse(randomise_norms(small_net("gunn_small")).eval())
    return next(m for m in net.modules() if type(m).__name__ == "FusedGunn")


LAYERS = {
    "conv of 1x1": lambda: ConvUnit(4, 6, 1),
    "conv of 3x3 with variants": lambda: LoopUnit(4, 6, variants=["loop1", "loop2"]),
    "ghost norms": with_ghost_norms,
    "gunn": lambda: GunnLayer(4, 2, parallel=True),
    "sunn": lambda: GunnLayer(4, 2, order="simultaneous"),
    "gate": lambda: GateUnit(4),
    "padded shortcut": lambda: PadShortcut(2, 2),
    "folded conv": lambda: FoldedConv(nn.Conv2d(4, 6, 1), "relu"),
    "clamp": lambda: FoldedConv(nn.Conv2d(4, 6, 3), "clamp", torch.zeros(6) - 0.1),
    "clamp from both sides": lambda: FoldedConv(nn.Conv2d(4, 6, 3), "clamp", torch.zeros(6), torch.ones(6)),
    "large folded conv": lambda: FoldedConv(nn.Conv2d(4, 3000, 3), "relu"),
    "part": lambda: Part(1, 3),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", LAYERS)
def test_every_kind_of_layer_has_a_free_batch(kind):
    layer = randomise_norms(LAYERS[kind]()).eval()
    maps = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    given = (maps[:2], "loop2") if "variants" in kind else (maps[:2],)
    shapes = (*free_batch(), None)[: len(given)]
    with torch.no_grad():
        graphs: list[Any] = [torch.export.export(layer, given, dynamic_shapes=shapes).module()]
        if len(given) == 1:
            graphs.append(torch.jit.trace(layer, given))
        for n in BATCHES:
            for graph in graphs:
                assert_close(graph(maps[:n], *given[1:]), layer(maps[:n], *given[1:]))


@pytest.mark.parametrize("name", [*SMALLEST.values(), *FOREIGN])
def test_a_user_s_own_export_of_each_family_has_a_free_batch(name, tmp_path):
    net = drawn(name)
    check_answers(by_torch_export(net, side(net), tmp_path), net, side(net))


@pytest.mark.parametrize("name", [pytest.param("mobilenetv2_base", marks=pytest.mark.slow), "dr_resnet_small"])
def test_a_bundle_of_networks_with_1x1_convs_or_gates_has_a_free_batch(name, tmp_path):
    net = drawn(name)
    check_answers(by_bundle(net, side(net), tmp_path), net, side(net))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FORMS, *FOREIGN, *FOREIGN_SLOW])
def test_every_model_has_a_free_batch_in_every_form(name, tmp_path):
    """A bundle's files are written as ``by_file`` has them, and torch's ONNX exporter begins with torch's export, so
    those two ways are for each family's smallest."""
    net = drawn(name)
    check_program(net, side(net), tmp_path)
    ways = [by_bundle, *[by_steps] * any(join.gates for join in net.wiring.joins.values())]
    for way in (*ways, *[by_torch_onnx, by_file] * (name in SMALLEST.values())):
        net = drawn(name)
        check_answers(way(net, side(net), tmp_path), net, side(net))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("family", sorted(SHRINK))
def test_models_in_full_size_have_a_free_batch(family, tmp_path):
    """What is fast in eager depends on sizes, which the small forms do not have. Many models of a family differ in the
    number of their layers alone: of those with the same layers the first is exported."""
    seen: set[frozenset[str]] = set()
    for name in [name for name, preset in PRESETS.items() if preset.spec.family == family]:
        net = create_model(name, num_classes=5, seed=0).eval()
        layers = frozenset(repr(net.get_submodule(module)) for module in net.wiring.modules)
        if layers not in seen:
            seen.add(layers)
            size = max(net.min_size, 32)
            check_answers(by_torch_export(net, size, tmp_path), net, size)
    assert seen
