"""What every registered model promises, whoever draws it."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import polypath as pp
from conftest import assert_close, gradient
from contracts.small import FORMS, SHRINK, fixed_paths, models_by_form, small_net, two_paths
from polypath.families.registry import PRESETS


def sizes(net) -> tuple[int, int]:
    smallest = max(net.min_size, 16)
    return smallest, smallest + 8


def images(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_every_family_has_an_entry():
    assert {preset.spec.family for preset in PRESETS.values()} <= set(SHRINK)
    assert sorted(name for names in models_by_form().values() for name in names) == sorted(PRESETS)
    assert len(PRESETS) >= 15


@pytest.mark.parametrize("name", FORMS)
def test_runs_at_two_sizes_and_odd_batches_without_nan(name):
    net = small_net(name).eval()
    with torch.inference_mode():
        for size in sizes(net):
            for batch in (1, 3):
                out = net(images(batch, size))
                assert out.shape == (batch, net.num_classes)
                assert out.isfinite().all()
        x = images(3, sizes(net)[0])
        together = net(x)
        assert_close(net(x[:1]), together[:1])
        assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", FORMS)
def test_every_weight_learns_and_only_the_alive_ones_when_some_are(name):
    net = small_net(name).train()
    size = sizes(net)[0]
    every = {key for key, _ in net.named_parameters()}
    g = torch.Generator().manual_seed(0)
    runs = [*net.named_paths(), None] if net.wiring.joins else [None]
    whole = learned(net, None, size, g)
    reached = set().union(*(learned(net, paths, size, g) for paths in runs))
    assert reached == every
    for text in two_paths(net):
        child = {key for key, _ in pp.extract(net, text).named_parameters()}
        assert learned(net, text, size, g) == child
        assert child != whole or child == every


def learned(net, paths, size, generator) -> set[str]:
    net.zero_grad(set_to_none=True)
    out = net(images(4, size, seed=1), paths=paths, generator=generator)
    torch.nn.functional.cross_entropy(out, torch.arange(4) % out.shape[1]).backward()
    return {key for key, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", FORMS)
def test_channels_last_and_bf16_agree_with_the_plain_form(name):
    net = small_net(name).eval()
    x = images(2, sizes(net)[0])
    with torch.inference_mode():
        plain = net(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = net(x)
        last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert_close(last, plain)
    spread = (plain - plain.mean(1, keepdim=True)).norm() + 1e-3
    assert (half.float() - plain).norm() / spread < 0.25


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("training", [False, True])
def test_an_empty_batch_has_no_answers_and_no_gradient(name, training):
    net = small_net(name).train(training)
    before = {key: value.clone() for key, value in net.named_buffers() if "running" in key}
    x = images(0, sizes(net)[0]).requires_grad_()
    out = net(x)
    out.sum().backward()
    assert out.shape == (0, net.num_classes)
    assert gradient(x).shape == x.shape
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())
    assert all(torch.equal(before[key], value) for key, value in net.named_buffers() if "running" in key)


class Types(TorchDispatchMode):
    """The floating-point types of all that is computed."""

    def __init__(self):
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen.update(t.dtype for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.is_floating_point())
        return out


@pytest.mark.parametrize("name", FORMS)
def test_a_float64_network_computes_in_float64(name):
    net = small_net(name).double().train()
    x = images(3, sizes(net)[0]).double().requires_grad_()
    with Types() as types:
        net(x, generator=torch.Generator().manual_seed(0)).sum().backward()
        net.eval()(x)
    assert types.seen == {torch.float64}


@pytest.mark.parametrize("name", FORMS)
def test_functional_transforms_agree_with_autograd(name):
    """``vmap`` over batches, with and without gradients, and ``torch.func.grad``; gates cannot ask inside of them."""
    net = small_net(name).double().eval()
    if any(join.gates for join in net.wiring.joins.values()):
        net = pp.extract(net, "loops=max")
    x = images(4, sizes(net)[0]).double()
    expected = net(x).detach()
    weights = {key: value.detach() for key, value in net.state_dict().items()}

    def loss(values, x):
        return torch.func.functional_call(net, values, (x,)).square().sum()

    for context in (torch.enable_grad, torch.no_grad):
        with context():
            close(torch.func.vmap(net)(x.unflatten(0, (2, 2))).flatten(0, 1), expected)
    found = torch.func.grad(loss)({key: weights[key] for key, _ in net.named_parameters()}, x)
    net(x).square().sum().backward()
    close(found, {key: p.grad for key, p in net.named_parameters()})
    close(torch.func.vmap(torch.func.grad(loss, 1), (None, 0))(weights, x[:, None])[:, 0], input_gradient(net, x))


def input_gradient(net, x):
    x = x.clone().requires_grad_()
    net(x).square().sum().backward()
    return gradient(x)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_extracted_and_saved_it_gives_the_same_answer(name, tmp_path):
    net = small_net(name).eval()
    x = images(2, sizes(net)[0])
    with torch.inference_mode():
        for i, text in enumerate(["whole", *two_paths(net)]):
            child = pp.extract(net, text)
            expected = net(x, paths=text)
            assert torch.equal(child(x), expected)
            assert pp.depth_distribution(net, text) == pp.depth_distribution(child)
            pp.save(child, tmp_path / str(i))
            loaded = pp.load(tmp_path / str(i))
            assert not loaded.training
            assert torch.equal(loaded(x), expected)
            assert loaded.config.get("arguments") == child.config.get("arguments")


def check_compiles(net, x, text: str, backend: str) -> None:
    fixed = pp.extract(net, text)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(fixed, backend=backend, fullgraph=True)(x)
        assert_close(compiled, fixed(x))


FIRST_OF_FAMILY = list({preset.spec.family: name for name, preset in reversed(PRESETS.items())}.values())
COMPILED = ("crescendonet_128", "resnet20_cifar", "dr_resnet74_cifar")  # the others in `make test-all`


@pytest.mark.parametrize(
    "name", [name if name in COMPILED else pytest.param(name, marks=pytest.mark.slow) for name in FIRST_OF_FAMILY]
)
def test_compiles_without_a_break(name):
    """As one graph; what torch.export makes of two paths of every form is in deploy/test_export.py."""
    net = small_net(name).eval()
    check_compiles(net, images(2, sizes(net)[0]), fixed_paths(net)[0], "eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_paths_compile_and_export(name):
    net = small_net(name).eval()
    x = images(2, sizes(net)[0])
    for text in fixed_paths(net):
        check_compiles(net, x, text, "aot_eager")
        fixed = pp.extract(net, text)
        exported = torch.export.export(fixed, (x,)).module()(x)
        assert_close(exported, fixed(x))
