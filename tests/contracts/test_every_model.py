"""What every registered model promises, whoever draws it."""

from __future__ import annotations

import pytest
import torch

import polypath as pp
from conftest import assert_close
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
def test_extracted_and_saved_it_gives_the_same_answer(name, tmp_path):
    net = small_net(name).eval()
    x = images(2, sizes(net)[0])
    with torch.inference_mode():
        for i, text in enumerate(["whole", *two_paths(net)]):
            child = pp.extract(net, text)
            expected = net(x, paths=text)
            assert torch.equal(child(x), expected)
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


@pytest.mark.parametrize("name", FIRST_OF_FAMILY)
def test_compiles_without_a_break(name):
    """As one graph; what torch.export makes of two paths of every form is in deploy/test_export.py."""
    net = small_net(name).eval()
    check_compiles(net, images(2, sizes(net)[0]), fixed_paths(net)[0], "eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_paths_compile_and_export(name):
    net = small_net(name).eval()
    x = images(2, sizes(net)[0])
    for text in fixed_paths(net):
        check_compiles(net, x, text, "aot_eager")
        fixed = pp.extract(net, text)
        exported = torch.export.export(fixed, (x,)).module()(x)
        assert_close(exported, fixed(x))
