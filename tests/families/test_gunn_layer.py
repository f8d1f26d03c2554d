"""GUNN's layer against its equations; Algorithm 1 against autograd on the reference."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from conftest import part, randomise_norms
from polypath.layers.conv import ConvUnit
from polypath.layers.gunn.layer import GunnLayer

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def layer(channels=12, segments=4, seed=0, **options) -> GunnLayer:
    torch.manual_seed(seed)
    made = GunnLayer(channels, segments, **options)
    randomise_norms(made, seed)
    return made.double()


def twin(made: GunnLayer, **attributes) -> GunnLayer:
    """Another layer with the same weights."""
    new = copy.deepcopy(made)
    for name, value in attributes.items():
        setattr(new, name, value)
    return new


def maps(channels=12, batch=3, side=4, seed=1, form="contiguous") -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, side, side, dtype=torch.float64, generator=g)
    return x.contiguous(memory_format=FORMATS[form])


def learn(made: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Output, and the gradients of input and weights for an arbitrary loss."""
    x = x.detach().requires_grad_()
    y = made(x)
    g = torch.Generator().manual_seed(9)
    y.backward(torch.randn(y.shape, generator=g, dtype=torch.float64).to(y))
    return y.detach(), {"input": x.grad, **{name: p.grad for name, p in made.named_parameters()}}


def close(one, other, tolerance=1e-9):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# --- what a layer computes -------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [True, False])
def test_with_one_segment_the_order_does_not_matter(residual):
    one, two = layer(segments=1, residual=residual).eval(), layer(segments=2, residual=residual).eval()
    x = maps()
    close(one(x), twin(one, order="simultaneous")(x))
    assert not torch.allclose(two(x), twin(two, order="simultaneous")(x))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("backward", ["reference", "algorithm1"])
def test_every_segment_is_updated_from_the_newest_values(backward, residual):
    made, x = layer(backward=backward, residual=residual, parallel=True).eval(), maps()
    y = x.clone()
    for i, unit in enumerate(made.units):  # Eq. 3 and 4 again, channel by channel
        new = unit(y)
        for j in range(3):
            y[:, 3 * i + j] = new[:, j] + (y[:, 3 * i + j] if residual else 0)
    close(made(x), y)
    with torch.no_grad():
        close(made(x), y)


@pytest.mark.parametrize("order", ["gradual", "simultaneous"])
def test_a_changed_unit_changes_only_its_segment_and_later_ones(order):
    made, x = layer(order=order).eval(), maps()
    before = made(x).detach().chunk(4, dim=1)
    for changed in range(4):
        other = twin(made)
        nn.init.zeros_(part(other.units[changed], "unit1").layer3.norm.weight)
        after = other(x).detach().chunk(4, dim=1)
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        later = order == "gradual"
        assert moved == [i == changed or (later and i > changed) for i in range(4)]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("backward", ["reference", "algorithm1"])
def test_the_linear_layer_is_a_triangular_solve(residual, backward):
    """Eq. 9: y_i = x_i + Σ_{j<i} ω_ij y_j + Σ_{j≥i} ω_ij x_j, so (I − lower) y = (I + upper) x."""

    def linear(in_chans, out_chans):
        return nn.Conv2d(in_chans, out_chans, 1, bias=False, dtype=torch.float64)

    n = 6
    torch.manual_seed(0)
    made = GunnLayer(n, n, residual=residual, backward=backward, unit=linear)
    weight = torch.cat([part(unit, "").weight for unit in made.units]).view(n, n)
    lower, upper, eye = weight.tril(-1), weight.triu(), torch.eye(n, dtype=torch.float64)
    x = maps(n)
    right = torch.einsum("ij,bjhw->bihw", (upper + eye) if residual else upper, x)
    solved = torch.linalg.solve_triangular(eye - lower, right.movedim(1, -1).unsqueeze(-1), upper=False)
    y = made(x)
    close(y, solved.squeeze(-1).movedim(-1, 1))
    at_once = twin(made, order="simultaneous")(x)  # Eq. 8
    close(at_once, torch.einsum("ij,bjhw->bihw", (weight + eye) if residual else weight, x))
    assert not torch.allclose(y, at_once)


# --- Algorithm 1 -----------------------------------------------------------------------------------------

KINDS = [
    {"parallel": True},
    {"parallel": False, "stacked": 2, "expansion": 3},
    {"parallel": True, "residual": False},
    {"parallel": True, "stacked": 2, "segments": 1},
    {"segments": 12},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_algorithm_1_is_autograd_on_the_reference(kind, form, mode):
    fast = layer(**kind).train(mode == "train")
    plain = twin(fast, backward="reference")
    plain.load_state_dict(fast.state_dict())
    for seed in (1, 2):  # the second step starts with the statistics of the first one
        one, other = learn(fast, maps(seed=seed, form=form)), learn(plain, maps(seed=seed, form=form))
        close(one, other)
    gradients = [g for g in one[1].values() if g is not None]
    assert len(gradients) == 1 + len(list(fast.parameters()))
    assert sum(bool(g.abs().max() > 0) for g in gradients) > 0.8 * len(gradients)  # some narrow ReLUs are dead
    close(dict(fast.named_buffers()), dict(plain.named_buffers()))
    for name, buffer in fast.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert buffer == (2 if mode == "train" else 0)
    with torch.no_grad():
        close(fast.eval()(maps(form=form)), plain.eval()(maps(form=form)))
        nn.init.ones_(part(plain.units[0], "unit1").layer3.norm.bias)
        assert not torch.allclose(fast(maps()), plain(maps()))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_algorithm_1_under_autocast(form, given):
    fast = layer(24, 3, parallel=True).float()
    plain, x = twin(fast, backward="reference"), maps(24, side=6, form=form).to(given)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = learn(fast, x), learn(plain, x)
    assert one[0].dtype == other[0].dtype == given
    for key, g in [("output", one[0]), *one[1].items()]:
        h = other[0] if key == "output" else other[1][key]
        assert g is not None
        assert h is not None
        assert g.dtype == h.dtype
        error = (g.double() - h.double()).norm() / h.double().norm()
        assert error < 0.06, key  # bfloat16 has 8 bits, and the sums run in another order
    exact, low = (one[1]["input"] for one in (learn(twin(plain).double(), x.double()), other))
    assert exact is not None
    assert low is not None
    assert (low.double() - exact).norm() / exact.norm() > 1e-4  # it did run in low precision


def test_the_gradient_is_the_difference_quotient():
    made = layer(4, 2, parallel=True, expansion=1).eval()
    x = maps(4, batch=1, side=2).requires_grad_()
    names = [name for name, _ in made.named_parameters()]

    def run(x, *weights):
        return torch.func.functional_call(made, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *made.parameters()))


def test_no_second_order_gradient_but_two_backward_passes():
    made, x = layer(), maps().requires_grad_()
    loss = made(x).square().sum()
    with pytest.raises(RuntimeError, match="backward='reference'"):
        torch.autograd.grad(loss, x, create_graph=True)
    loss = made(x).square().sum()
    first = torch.autograd.grad(loss, x, retain_graph=True)
    close(first, torch.autograd.grad(loss, x))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, x)
    made.backward = "reference"
    (g,) = torch.autograd.grad(made(x).square().sum(), x, create_graph=True)
    assert torch.autograd.grad(g.sum(), x)[0].abs().max() > 0


def test_frozen_weights_and_inputs_get_no_gradient_and_the_others_the_right_one():
    fast, x = layer(parallel=True), maps()
    for name, p in fast.named_parameters():
        p.requires_grad_("segment2" in name or name.endswith("unit1.layer1.conv.weight"))
    plain = twin(fast, backward="reference")
    close(learn(fast, x)[1], learn(plain, x)[1])
    for made in (fast, plain):
        made.zero_grad()
        made(x).sum().backward()
    for p, q in zip(fast.parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None) == (not p.requires_grad)
        close(p.grad, q.grad)
    for p in fast.requires_grad_(False).parameters():
        assert not p.requires_grad
    assert not fast(x).requires_grad
    close(learn(fast, x)[1]["input"], learn(plain.requires_grad_(False), x)[1]["input"])


class Cross(nn.Module):
    """An update unit that saves a part of its input for backward, uses a weight twice and drops maps."""

    def __init__(self, in_chans: int, out_chans: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_chans, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        n = len(self.weight)
        z = x[:, -n:] * x[:, :n] * self.weight[:, None, None]
        return self.drop(torch.relu(z) * self.weight[:, None, None])


@pytest.mark.parametrize("residual", [True, False])
def test_any_unit_can_be_an_update_unit(residual):
    shared = []

    def same(in_chans, out_chans):  # one unit for all segments
        shared.append(shared[0] if shared else Cross(in_chans, out_chans))
        return shared[-1]

    for make in (Cross, same):
        torch.manual_seed(0)
        fast = GunnLayer(12, 4, residual=residual, unit=make)
        results = []
        for backward in ("algorithm1", "reference"):
            torch.manual_seed(3)  # both drop the same maps
            results.append(learn(twin(fast, backward=backward), maps()))
        close(*results)


def test_a_unit_that_overwrites_what_its_gradient_needs_is_refused():
    class Spoiler(nn.Conv2d):
        def forward(self, x):
            z = super().forward(x).sigmoid()
            z.mul_(2)  # sigmoid's gradient needs its result
            return z

    made = GunnLayer(4, 2, unit=lambda n_in, n_out: Spoiler(n_in, n_out, 1, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="in place"):
        made(maps(4).requires_grad_())


def test_hooks_see_the_same_values_as_in_the_reference():
    made, x = layer(parallel=True), maps()
    plain, calls = twin(made, backward="reference"), []
    conv = part(made.units[1], "parallel").conv
    handle = conv.register_forward_hook(lambda *_: calls.append("conv"))
    one, other = learn(made, x), learn(plain, x)
    with torch.no_grad():
        made(x)
    assert calls == ["conv"] * 2
    close(one, other)
    handle.remove()
    for m in (made, plain):  # a gradient hook runs once
        m.zero_grad()
        part(m.units[0], "parallel").conv.weight.register_hook(lambda g: 2 * g)
    one, other = learn(made, x), learn(plain, x)
    close(one[1], other[1])


def test_recomputation_gives_the_same_gradients():
    made, x = layer(parallel=True).eval(), maps()
    plain = learn(made, x)[1]
    made.zero_grad()
    y = x.clone().requires_grad_()
    g = torch.Generator().manual_seed(9)
    checkpoint(made, y, use_reentrant=False).backward(torch.randn(x.shape, generator=g, dtype=torch.float64))
    close(plain, {"input": y.grad, **{name: p.grad for name, p in made.named_parameters()}})


# --- memory ----------------------------------------------------------------------------------------------


def kept_bytes(made: GunnLayer) -> int:
    """Bytes of maps that the layer and a conv that reads it save for the backward pass."""
    reader = nn.Conv2d(made.channels, made.channels, 1, dtype=torch.float64)
    weights = {p.untyped_storage().data_ptr() for p in [*made.parameters(), *made.buffers(), *reader.parameters()]}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor):
        # maps of our batch, as rows or pixels; norms also save mean and deviation, products their weights
        if tensor.ndim in (3, 4) and len(tensor) == 3 and tensor.stride(0):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = maps(made.channels, side=8).requires_grad_()
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = reader(made(x)).sum()
    total = sum(t.untyped_storage().nbytes() for t in kept.values())
    assert not weights & set(kept)
    loss.backward()
    return total


@pytest.mark.parametrize("parallel", [True, False])
def test_it_saves_no_more_than_sunn(parallel):
    made = layer(40, 10, parallel=parallel)
    sunn = kept_bytes(twin(made, order="simultaneous"))
    assert kept_bytes(made) <= 1.1 * sunn
    assert kept_bytes(twin(made, backward="reference")) > 1.5 * sunn


@pytest.mark.parametrize("unit", [None, Cross])
def test_nothing_is_held_once_the_gradient_is_there(unit):
    y = GunnLayer(12, 4, unit=unit).double()(maps().requires_grad_())
    buffer, loss = StorageWeakRef(y.untyped_storage()), y.sum()
    del y
    assert not buffer.expired()
    loss.backward()
    assert buffer.expired()  # although the loss and its graph still exist


class Largest(TorchDispatchMode):
    """Counts created tensors with all channels, and concatenations to all channels."""

    def __init__(self, shape) -> None:
        super().__init__()
        self.shape, self.made, self.joined = shape, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.shape == self.shape:
            given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
            self.made += out.untyped_storage().data_ptr() not in given
            self.joined += func is torch.ops.aten.cat.default
        return out


@pytest.mark.parametrize("order", ["gradual", "simultaneous"])
def test_inference_makes_one_buffer_and_concatenates_nothing(order):
    made, x = layer(40, 10, parallel=True, order=order).eval(), maps(40)
    with torch.no_grad(), Largest(x.shape) as seen:
        y = made(x)
    assert (seen.made, seen.joined) == (1, 0)
    made.backward = "reference"
    with torch.no_grad(), Largest(x.shape) as seen:
        close(made(x), y)
    assert seen.joined == (11 if order == "gradual" else 1)


# --- compiled, folded, refused ----------------------------------------------------------------------------


def test_training_compiled_is_training():
    fast = layer(parallel=True)
    plain = twin(fast)
    torch.compiler.reset()
    compiled: Any = torch.compile(fast, backend="aot_eager", fullgraph=True)
    one = learn(compiled, maps())
    other = learn(plain, maps())
    close(one[0], other[0])
    close(list(one[1].values()), list(other[1].values()))


def test_norms_folded_into_the_convs():
    made, x = layer(parallel=True).eval(), maps()
    expected = made(x).detach()
    for module in list(made.modules()):
        if isinstance(module, ConvUnit):
            unit: Any = module
            unit.conv, unit.norm = nn.utils.fuse_conv_bn_eval(unit.conv, unit.norm), nn.Identity()
    close(made(x), expected)
    made.backward = "reference"
    close(made(x), expected)


def test_illegal_layers_and_maps():
    with pytest.raises(ValueError, match="nearest legal P are 4 and 6; with this P, N may be 10 or 15"):
        GunnLayer(12, 5)
    with pytest.raises(ValueError, match="must be one of gradual, simultaneous"):
        GunnLayer(12, 4, order="late")
    with pytest.raises(ValueError, match="updates 12"):
        GunnLayer(12, 4)(maps(8).float())
