"""What runs on CUDA: with a GPU there, else on a processor that stands for one, so that no line of it is run first on a
rented machine. ``make gpu`` runs this file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.gpu.pretended import pretended, real

import polypath as pp
from contracts.small import images, small_net
from polypath.data import AugmentConfig, Batches, Split
from polypath.deploy.bundle import Bundle
from polypath.deploy.runtimes import candidates, open_runtime
from polypath.deploy.runtimes.cuda import record
from polypath.families.crescendonet import CrescendoNet
from polypath.training.distributed import World
from polypath.training.engine import Engine
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe

REAL = real()
EVERYTHING = AugmentConfig(
    pad=2, mirror=True, roll=0.5, scale=(0.3, 1.0), photometric=True, policy="trivial", erase=0.5
)
NETS = ("fractalnet20", "crescendonet_128", "dfn_mr14", "gunn15", "dr_resnet16_cifar")


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    if REAL:
        yield
        return
    with pretended():
        yield


def test_a_loader_on_the_gpu_gives_what_the_processor_gives(rng: torch.Generator) -> None:
    pixels = torch.randint(0, 256, (50, 3, 12, 12), generator=rng, dtype=torch.uint8)
    split = Split(pixels, torch.arange(50) % 7)
    options: dict[str, Any] = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3), "augment": EVERYTHING, "seed": 3}
    loaders = [Batches(split, 8, shuffle=True, device=device, **options) for device in ("cpu", "cuda")]
    assert loaders[1].split.images.is_cuda == REAL
    for (x, y), (x_gpu, y_gpu) in zip(*loaders, strict=True):
        assert x_gpu.is_cuda == REAL
        assert torch.allclose(x, x_gpu.cpu(), atol=2e-2)  # a resized uint8 pixel may round the other way
        assert torch.equal(y, y_gpu.cpu())


@pytest.mark.parametrize("name", NETS)
def test_networks_answer_alike(name: str) -> None:
    net = small_net(name).double().eval()
    x = images(net).double()
    with torch.inference_mode():
        wanted = net(x)
        found = net.to("cuda")(x.to("cuda")).cpu()
    assert torch.allclose(found, wanted, rtol=0.0, atol=1e-9 * float(wanted.abs().max()))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_cuda_graphs_give_the_networks_answers(precision: str) -> None:
    bundle, within = Bundle.open(), {"f32": 1e-2, "bf16": 1e-1}[precision]
    assert candidates(bundle) == ["cuda-graphs"]
    graphs, wanted = (open_runtime(name, bundle, 1, p) for name, p in (("cuda-graphs", precision), ("torch", "f32")))
    draw = np.random.default_rng(0)
    for batch in (1, 3):
        x, other = (draw.standard_normal((batch, 3, *bundle.size), np.float32) for _ in range(2))
        run, reference = graphs.prepare("column=1", batch), wanted.prepare("column=1", batch)
        assert graphs.prepare("column=1", batch) is run
        for inputs in (x, other, x):  # a replay reads what it is given, and not the recorded images
            right = reference(inputs)
            np.testing.assert_allclose(run(inputs), right, rtol=0.0, atol=within * float(np.abs(right).max()))
        assert np.abs(run(x) - run(other)).max() > within * np.abs(right).max()


def test_gates_are_recorded_with_all_loops() -> None:
    """A graph cannot ask a gate which images go on, so every loop runs and shut gates keep the old value."""
    net = small_net("dr_resnet16_cifar").eval().to("cuda")
    x, other = images(net, 4).to("cuda"), 3 * images(net, 4).flip(0).to("cuda")
    with torch.inference_mode():
        wanted = net(x), net(other)
    held = x.clone()
    replay, out = record(net, held)
    for inputs, right in zip((x, other), wanted, strict=True):
        held.copy_(inputs)
        replay()
        assert torch.allclose(out, right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))
    assert not torch.allclose(*wanted, atol=1e-3)


def test_a_step_waits_for_nothing_and_learns(rng: torch.Generator) -> None:
    net = CrescendoNet(widths=(4, 4), scale=3, hidden=(8,), in_chans=1)
    recipe = Recipe(name="tiny", model=net, objective=DropPath(rate=0.4), epochs=1, batch_size=8, device="cuda")
    device = torch.device("cuda")
    engine = Engine(recipe, recipe.model.build(0), device, World(), 6)
    x = torch.randn(8, 1, 8, 8, generator=rng).to(device)
    y = torch.randint(0, 10, (8,), generator=rng).to(device)
    engine.start_epoch(0)
    before = [p.detach().clone() for p in engine.net.parameters()]
    for step in range(6):
        if step == 3:  # what is made once is made
            torch.cuda.set_sync_debug_mode("error")
        try:
            engine.step([(0, x, y)], 8, 0, step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    losses = [row["loss"] for _, row in engine.meter.flush()]
    assert np.isfinite(losses).all()
    assert any(not torch.equal(p, q) for p, q in zip(before, engine.net.parameters(), strict=True))


def test_the_pretended_graph_replays_what_it_recorded() -> None:
    """The stand-in must be able to fail: its graph reads the input's place, and nothing else of the input."""
    if REAL:
        pytest.skip("there is a GPU")
    net = pp.create_model("dfn_mr14", seed=0).eval()
    x = torch.randn(2, 3, 32, 32)
    replay, out = record(net, x)
    before = out.clone()
    replay()
    assert torch.equal(out, before)
    x.mul_(2)
    assert torch.equal(out, before)
    replay()
    with torch.inference_mode():
        assert torch.allclose(out, net(x), atol=1e-5)
    assert not torch.allclose(out, before, atol=1e-3)
