"""Compiled units: paths really differ, the number of graphs is known, nothing is compiled again after warm-up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from conftest import assert_close, part
from polypath.core.batchnorm import batch_statistics
from polypath.core.extract import extract
from polypath.core.network import PathNet
from polypath.families.crescendonet import CrescendoNet
from polypath.families.gunn import Gunn
from polypath.layers.conv import ConvUnit
from polypath.training.prepare import compile_units

SPEC = CrescendoNet(widths=(4, 6), scale=3, hidden=(8,))
PATHS = ("whole", "branches=1", "branches=2", "branches=1,3")


@pytest.fixture
def counter() -> CompileCounterWithBackend:
    torch._dynamo.reset()
    counters.clear()
    return CompileCounterWithBackend("aot_eager")


def run(net: PathNet, x: torch.Tensor, text: str) -> torch.Tensor:
    net.zero_grad()
    out = net(x, paths=text)
    out.square().mean().backward()
    return out.detach()


def test_graphs_are_few_and_paths_differ(counter: CompileCounterWithBackend, rng: torch.Generator) -> None:
    plain, net = SPEC.build(0).double(), SPEC.build(0).double()
    assert compile_units(net, backend=counter) == 12
    x = torch.randn(8, 3, 8, 8, generator=rng, dtype=torch.float64)
    shapes = {(unit.conv.weight.shape, (8, 4)[block]) for block, unit in _units(net)}
    assert len(shapes) == 4  # 3 to 4 and 4 to 4 maps at 8×8 pixels, 4 to 6 and 6 to 6 at 4×4

    def both(text: str, images: torch.Tensor) -> torch.Tensor:
        expected, found = run(plain, images, text), run(net, images, text)
        assert_close(found, expected)
        for p, q in zip(plain.parameters(), net.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if p.grad is not None and q.grad is not None:
                assert_close(q.grad, p.grad)
        return found

    outs = [both(text, x) for text in PATHS]
    assert counter.frame_count == len(shapes)
    assert not any(torch.equal(a, b) for i, a in enumerate(outs) for b in outs[:i])
    both("whole", x[:5])  # an epoch's last batch
    assert counter.frame_count == 2 * len(shapes)
    with torch.no_grad():
        assert_close(net.eval()(x), plain.eval()(x))
    assert counter.frame_count == 3 * len(shapes)
    net.train()
    plain.train()
    for text in PATHS:  # after the warm-up
        both(text, x)
        both(text, x[:5])
    assert counter.frame_count == 3 * len(shapes)
    assert not counters["graph_break"]
    assert not counters["recompiles"]


def test_the_graphs_of_other_networks_count_towards_no_limit(counter: CompileCounterWithBackend) -> None:
    """torch allows 256 for each function of a process, and refuses to compile units of a further network then."""
    with torch._dynamo.config.patch(accumulated_recompile_limit=1):
        for side in (8, 16):
            net = SPEC.build(0)
            compile_units(net, backend=counter)
            run(net, torch.randn(2, 3, side, side), "whole")
    assert counter.frame_count == 8


def test_a_path_taken_out_of_a_compiled_network_is_plain(
    counter: CompileCounterWithBackend, rng: torch.Generator
) -> None:
    net, x = SPEC.build(0), torch.randn(2, 3, 8, 8, generator=rng)
    compile_units(net, backend=counter)
    with torch.no_grad():
        child = extract(net.eval(), "branches=2")
        assert_close(child(x), SPEC.build(0).eval()(x, paths="branches=2"))
    assert counter.frame_count == 0
    assert child.state_dict().keys() < net.state_dict().keys()


def test_a_gunn_layer_is_one_graph_where_it_is_compiled(
    counter: CompileCounterWithBackend, rng: torch.Generator
) -> None:
    spec = Gunn(channels=(8,), segments=(4,), stem_width=4, last_width=0)
    plain, net, twin = (spec.build(seed).double() for seed in (0, 0, 1))
    convs = compile_units(spec.build(0), backend=counter)  # on a CPU the layer stays as it is
    assert compile_units(net, layers=True, backend=counter) == convs + 1
    x = torch.randn(4, 3, 8, 8, generator=rng, dtype=torch.float64)
    expected, found = run(plain, x, "whole"), run(net, x, "whole")
    assert_close(found, expected)
    assert not torch.allclose(run(twin, x, "whole"), expected)
    for p, q in zip(plain.parameters(), net.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert_close(q.grad, p.grad)
    assert counter.frame_count == convs + 1  # one for all updates
    assert not counters["graph_break"]


def _units(net: PathNet) -> Iterator[tuple[int, ConvUnit]]:
    for path in net.wiring.modules:
        if "unit" in path:
            yield int(path.startswith("block2")), part(net, path)


def test_compiled_units_respect_batch_statistics(rng: torch.Generator) -> None:
    torch._dynamo.reset()
    plain, net = SPEC.build(0).double(), SPEC.build(0).double()
    compile_units(net, backend="eager")
    x = torch.randn(8, 3, 8, 8, generator=rng, dtype=torch.float64)
    for made in (plain, net):
        made(x)
        with batch_statistics(made.modules()):
            made(x, paths="branches=1,3")
        made(x)
    for name, buffer in net.named_buffers():
        assert_close(buffer, plain.get_buffer(name))
    assert net.get_buffer("block1.branch1.unit1.norm.num_batches_tracked") == 2
