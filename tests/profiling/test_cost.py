"""Parameters, MACs and activation bytes against counts by hand; latency's bookkeeping."""

from __future__ import annotations

import types

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import polypath as pp
from polypath.core.builder import NetBuilder, WiringBuilder
from polypath.core.wiring import Gate
from polypath.families.recursive import RecursiveResNet
from polypath.profiling.cost import PathMacs, _Meter, costs, macs_by_node
from polypath.profiling.latency import Latency, interleaved, latencies, latency, summary
from polypath.training.sampling import uniform_choice

SMALL = {
    "crescendonet": ("crescendonet_32", {"widths": (4, 6, 8), "hidden": (12, 8)}),
    "fractalnet": ("fractalnet16_small", {"filters": (4, 8, 8)}),
    "fractalnet, own norms": ("fractalnet16_small", {"filters": (4, 8), "own_norms": True, "transitions": (2,)}),
    "resnet": ("resnet110_cifar", {"depth": 14}),
}


def small(kind):
    name, arguments = SMALL[kind]
    return pp.create_model(name, seed=0, **arguments)


def two_branches(seed=0):
    """A stem, a mean of a one-conv and a two-conv branch, a pool and a linear layer: all countable by hand."""
    b = NetBuilder()
    stem = b.add("stem", b.input, nn.Conv2d(3, 4, 3, padding=1, bias=False), depth=1)
    short = b.add("short", stem, nn.Conv2d(4, 8, 1), depth=1)
    long = b.chain("long", stem, [nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1, groups=2)])
    z = b.join("join", {"short": short, "long": long})
    z = b.add("head.pool", z, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    return b.net(b.add("head.classifier", z, nn.Linear(8, 5), depth=1))


def test_a_tiny_net_counted_by_hand():
    net = two_branches()
    hw, f = 6 * 10, 4
    stem, short, long1, long2, head = 3 * 4 * 9, 4 * 8, 4 * 16 * 9, 16 * 8 * 9 // 2, 8 * 5
    whole = pp.cost(net, size=(6, 10), batch_size=2)
    assert whole.macs == 2 * (hw * (stem + short + long1 + long2) + head)
    assert whole.params == stem + short + 8 + long1 + 16 + long2 + 8 + head + 5
    assert whole.depth == (3, 4)
    assert whole.paths == 2
    assert (whole.size, whole.batch_size) == ((6, 10), 2)
    # the fullest moment: image, stem's maps (still to be read), short's, and both of the long branch
    assert whole.activation_bytes == 2 * hw * f * (3 + 8 + 16 + 8)
    only = pp.cost(net, "join=short", size=(6, 10))
    assert only.macs == hw * (stem + short) + head
    assert only.params == stem + short + 8 + head + 5
    assert only.activation_bytes == hw * f * (3 + 4 + 8)
    assert only.depth == (3, 3)
    assert macs_by_node(net, "join=short", size=(6, 10)) == {
        "stem": hw * stem, "short": hw * short, "join": 0, "head.pool": 0, "head.classifier": head,
    }  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
def test_a_child_costs_what_its_path_does(kind):
    net = small(kind)
    named = net.named_paths()
    found = costs(net, named, size=16)
    for name, paths in list(named.items())[:8]:
        child = pp.extract(net, paths)
        own = pp.cost(child, size=16)
        assert (own.params, own.macs, own.activation_bytes) == (
            found[name].params, found[name].macs, found[name].activation_bytes,
        )  # fmt: skip
        assert own.params == sum(p.numel() for p in child.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            child.eval()(torch.zeros(1, 3, 16, 16))
        assert 2 * own.macs == counter.get_total_flops()
    assert len({c.macs for c in found.values()}) > 1


@pytest.mark.parametrize("kind", SMALL)
def test_bytes_are_those_of_a_real_run(kind):
    net = small(kind).eval()
    x = torch.zeros(2, 3, 16, 16)
    for name, paths in list(net.named_paths().items())[:4]:
        meter = _Meter(net, x)
        with torch.no_grad(), meter:
            net(x, paths=paths)
        assert pp.cost(net, name, size=16, batch_size=2).activation_bytes == meter.peak


def test_gated_loops_all_count():
    b = NetBuilder()
    stem = b.add("stem", b.input, nn.Conv2d(3, 4, 1, bias=False), depth=1)
    conv, z = nn.Conv2d(4, 4, 3, padding=1, bias=False), stem
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2, bias=False))
    b.modules["gate"] = gate
    operands, gates = {"0": stem}, []
    for k in ("1", "2"):
        gates.append(Gate("gate", z, k))
        z = operands[k] = b.add(f"loop{k}", z, conv, depth=1, at="conv")
    z = b.join("loops", operands, "switch", gates=tuple(gates))
    z = b.add("head.pool", z, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net = b.net(b.add("head.classifier", z, nn.Linear(4, 5, bias=False), depth=1))
    hw, stem_macs, loop, gate_macs, head = 64, 12, 4 * 4 * 9, 8, 20
    every = pp.cost(net, size=8)
    assert every.macs == hw * (stem_macs + 2 * loop) + 2 * gate_macs + head
    assert every.params == 12 + 144 + 8 + 20
    assert macs_by_node(net, size=8)["loops:2"] == gate_macs
    fixed = pp.cost(net, "loops=1", size=8)
    assert fixed.macs == hw * (stem_macs + loop) + head
    assert fixed.params == 12 + 144 + 20


def test_the_network_is_left_as_it_was():
    net = small("crescendonet").train()
    before = {key: t.clone() for key, t in net.state_dict().items()}
    called = []
    net.get_submodule("head.classifier").register_forward_hook(lambda *_: called.append(1))
    pp.cost(net, size=16)
    assert net.training
    assert all(module.training for module in net.modules())
    assert not called
    assert all(torch.equal(t, before[key]) for key, t in net.state_dict().items())
    assert not any(p.is_meta for p in net.parameters())


def test_type_and_channels_are_the_networks_own():
    net = pp.create_model("crescendonet_32", widths=(4, 4, 4), in_chans=1)
    full, half = pp.cost(net, size=16), pp.cost(net.to(torch.bfloat16), size=16)
    assert full.activation_bytes == 2 * half.activation_bytes
    assert full.macs == half.macs
    b = NetBuilder()
    bare = b.net(b.add("head.conv", b.input, nn.Conv2d(2, 1, 1, bias=False)))
    assert pp.cost(bare, size=4).macs == 2 * 16  # no config: the first conv says how many channels


def test_counts_of_nets_and_wirings():
    net = small("crescendonet")
    assert pp.count_paths(net) == pp.count_paths(net.wiring) == 4**3
    assert pp.count_paths(net, "branches=1,3") == 8
    assert pp.depth_distribution(net, net.paths("branches=2")) == {6: 1}
    assert sum(pp.depth_distribution(net).values()) == 64
    b = WiringBuilder()
    wiring = b.wiring(b.join("j", {"1": b.unit("a", b.input, depth=1), "2": b.input}))
    assert pp.depth_distribution(wiring) == {0: 1, 1: 1}
    assert pp.count_paths(wiring, "j=1") == 1
    with pytest.raises(ValueError, match="no operand '3'"):
        pp.count_paths(wiring, "j=3")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": "branches=9"}, "branch = '9': must be one of 1, 2, 3, 4"),
        ({"size": 0}, "size = 0: must be a side in pixels"),
        ({"size": (8, 8, 8)}, "must be a side in pixels"),
        ({"size": 3}, "at least 4x4"),
        ({"batch_size": 0}, "batch_size = 0: must be a whole number of at least 1"),
    ],
)
def test_bad_questions(options, message):
    net = small("crescendonet")
    with pytest.raises(ValueError, match=message):
        pp.cost(net, **options)
    with pytest.raises(ValueError, match=message):
        latency(net, repeats=1, **options)


def test_latency_says_what_was_measured_and_leaves_the_network_as_it_was():
    net = small("crescendonet").train()
    threads = torch.get_num_threads()
    rival = small("resnet")
    found = latencies(
        net, {"whole": None, "one": "branches=1"}, 16, 2, threads=1, repeats=3, warmup=1, rivals={"resnet": rival}
    )
    assert list(found) == ["whole", "one", "resnet"]
    one = found["one"]
    assert 0 < one.min_ms <= one.p50_ms <= one.p95_ms <= one.max_ms
    assert one.min_ms <= one.mean_ms <= one.max_ms
    assert (one.repeats, one.warmup, one.threads, one.device, one.size, one.batch_size) == (3, 1, 1, "cpu", (16, 16), 2)
    assert one.torch == torch.__version__
    assert net.training
    assert rival.training
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="repeats = 0"):
        latency(net, size=16, repeats=0)
    with pytest.raises(ValueError, match="threads = 0"):
        latency(net, size=16, threads=0)
    with pytest.raises(ValueError, match="'one' is the name of both"):
        latencies(net, {"one": None}, 16, rivals={"one": rival})


def test_tasks_run_by_turns(monkeypatch):
    order, clock = [], iter(range(100))
    monkeypatch.setitem(interleaved.__globals__, "time", types.SimpleNamespace(perf_counter=lambda: next(clock)))
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2, warmup=1)
    assert order == ["a", "b"] * 3
    assert times == {"a": [1, 1], "b": [1, 1]}


def test_percentiles():
    ms = summary([0.001 * n for n in range(1, 102)])
    assert ms["p50_ms"] == pytest.approx(51.0)
    assert ms["p95_ms"] == pytest.approx(96.0)
    assert summary([0.002])["p95_ms"] == pytest.approx(2.0)
    assert set(ms) <= set(Latency.__dataclass_fields__)


@pytest.mark.parametrize("kind", SMALL)
def test_macs_of_any_drawn_path_are_its_nodes(kind):
    net, generator = small(kind), torch.Generator().manual_seed(0)
    macs = PathMacs(net)
    drawn = [net.paths(None), *(uniform_choice(net.wiring, generator) for _ in range(8))]
    assert [macs(paths, (32, 40))[0] for paths in drawn] == [pp.cost(net, paths, (32, 40)).macs for paths in drawn]
    assert macs("whole", 32, net.wiring.modules) == (pp.cost(net).macs,) * 2


def test_macs_of_loops_and_gates():
    net = RecursiveResNet(blocks=(1, 2), loops=(1, 2), width=4).build(0)
    macs = PathMacs(net)
    for paths in ("loops=1", "whole", "loops=0"):  # shortest first: a node is counted when it first runs
        assert macs(paths, 16)[0] == pp.cost(net, paths, 16).macs
