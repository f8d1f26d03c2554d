"""Residual networks of timm whose blocks can be skipped."""

from __future__ import annotations

import copy
import io
import math
import warnings
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import polypath as pp
from conftest import randomise_norms
from polypath.families.recorded import residual_steps
from polypath.families.skips import linear_rates
from polypath.families.timm_models import copy_timm_weights
from polypath.training.objectives import StepInfo
from polypath.training.path_objectives import DropPath

KINDS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    # arguments, image size, what may be skipped, the least depth
    "resnet18": ({"layers": (2, 1, 2, 1), "channels": (8, 8, 16, 16)}, 32, "layer1.1 layer3.1", "1/1"),
    "resnext50_32x4d": ({"layers": (2, 3, 1, 1)}, 32, "layer1.1 layer2.1 layer2.2", "1/1"),
    "regnetx_002": ({}, 32, "s3.b2 s3.b3 s3.b4 s4.b2 s4.b3 s4.b4 s4.b5 s4.b6 s4.b7", "1/1"),
    "convnext_atto": (
        {"depths": (1, 2, 1, 1), "dims": (8, 16, 16, 16)},
        32,
        "stages.0.blocks.0 stages.1.blocks.0 stages.1.blocks.1 stages.2.blocks.0 stages.3.blocks.0",
        "0/0/0/0",
    ),
    "mobilenetv2_050": (
        {},
        32,
        "blocks.1.1 blocks.2.1 blocks.2.2 blocks.3.1 blocks.3.2 blocks.3.3 blocks.4.1 blocks.4.2 blocks.5.1 blocks.5.2",
        "1/1/1/1/1",
    ),
    "mobilenetv3_small_050": (
        {},
        32,
        "blocks.1.1 blocks.2.1 blocks.2.2 blocks.3.0 blocks.3.1 blocks.4.1 blocks.4.2",
        "1/1/0/1",
    ),
    "tf_efficientnet_lite0": (
        {},
        32,
        "blocks.1.1 blocks.2.1 blocks.3.1 blocks.3.2 blocks.4.1 blocks.4.2 blocks.5.1 blocks.5.2 blocks.5.3",
        "1/1/1/1/1",
    ),
    "vit_tiny_patch16_224": (
        {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2},
        32,
        "blocks.0.attn blocks.0.mlp blocks.1.attn blocks.1.mlp",
        "0",
    ),
    "deit_tiny_patch16_224": (
        {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2},
        32,
        "blocks.0.attn blocks.0.mlp blocks.1.attn blocks.1.mlp",
        "0",
    ),
}
QUICK = ("resnet18", "convnext_atto", "vit_tiny_patch16_224")


def slow_but(*quick: str) -> list[Any]:
    return [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


SLOW = slow_but(*QUICK)


def skipping(kind: str, **options: Any) -> tuple[pp.PathNet, Any, Tensor]:
    """Our network, timm's with the same weights, and images."""
    arguments, size, *_ = KINDS[kind]
    net = pp.create_model(f"timm:{kind}", seed=0, num_classes=5, skips=True, **arguments, **options)
    torch.manual_seed(0)
    model: Any = randomise_norms(timm.create_model(kind, num_classes=5, **arguments)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # some initial weights are 0, so blocks would do nothing
            parameter.add_(torch.randn_like(parameter), alpha=0.02 if "gamma" not in name else 0.5)
    copy_timm_weights(net, model)
    return net.eval(), model, torch.randn(2, 3, size, size)


@pytest.mark.parametrize("kind", SLOW)
def test_the_whole_is_timms_to_the_bit_and_its_names_stay(kind):
    _, _, blocks, least = KINDS[kind]
    net, model, x = skipping(kind)
    with torch.inference_mode():
        assert torch.equal(net(x), model(x))
        assert torch.equal(net.forward_features(x), model.forward_features(x))
    assert list(net.wiring.joins) == [f"{name}.join" for name in blocks.split()]
    assert {join.labels for join in net.wiring.joins.values()} == {("skip", "block")}
    assert net.wiring.count_paths() == 2 ** len(net.wiring.joins)
    classifier = model.default_cfg["classifier"]
    names = {key.replace(classifier, "head.classifier", 1) for key in model.state_dict() if key.startswith(classifier)}
    names |= {f"body.model.{key}" for key in model.state_dict() if not key.startswith(f"{classifier}.")}
    own = {key.replace("body.model.step1.", "body.model.") for key in net.state_dict()}
    assert own == names
    assert net.path_names[-1] == f"depth={least}"
    assert dict(net.paths(f"depth={least}")) == dict.fromkeys(net.wiring.joins, ("skip",))


@pytest.mark.parametrize("kind", ["resnet18", "convnext_atto", "mobilenetv3_small_050"])
def test_stages_are_timms(kind):
    net, model, x = skipping(kind)
    told = [(info["num_chs"], info["reduction"], info["module"]) for info in model.feature_info]
    assert [(info["num_chs"], info["reduction"], info["module"]) for info in net.feature_info] == told
    with torch.inference_mode():
        ours, timms = (m.forward_intermediates(x, intermediates_only=True) for m in (net, model))
        assert len(ours) == len(timms)
        assert all(map(torch.equal, ours, timms))
        last = net.forward_intermediates(x, paths=net.path_names[-1], intermediates_only=True)[-1]
    assert last.shape == ours[-1].shape


def singles_and_drawn(net: pp.PathNet) -> list[dict[str, list[str]]]:
    """Every single skip, and 20 choices."""
    generator = np.random.default_rng(0)
    joins = list(net.wiring.joins)
    drawn = [{join: ["skip"] for join in joins if generator.random() < 0.5} for _ in range(20)]
    return [{join: ["skip"]} for join in joins] + drawn


@pytest.mark.parametrize("kind", SLOW)
def test_every_skip_and_drawn_choices_run_and_are_extracted(kind):
    net, _, x = skipping(kind)
    whole = pp.cost(net, size=x.shape[-1])
    with torch.inference_mode():
        plain = net(x)
        for choice in singles_and_drawn(net):
            paths = net.paths(choice)
            answer = net(x, paths=paths)
            assert torch.equal(pp.extract(net, paths)(x), answer)
            cost = pp.cost(net, paths, size=x.shape[-1])
            child = pp.extract(net, paths)
            assert cost.params == sum(p.numel() for p in child.parameters())
            assert torch.equal(answer, plain) == (not paths)
            assert not paths or (cost.macs < whole.macs and cost.params < whole.params)
            assert set(child.state_dict()) <= set(net.state_dict())


def test_a_skip_is_timms_model_without_the_block():
    net, model, x = skipping("resnet18")
    without = copy.deepcopy(model)
    without.layer3[1] = nn.Identity()
    vit, transformer, _ = skipping("vit_tiny_patch16_224")
    for block, step in ((transformer.blocks[1], "drop_path2"), (transformer.blocks[0], "drop_path1")):
        setattr(block, step, _Nothing())
    with torch.inference_mode():
        assert torch.equal(net(x, paths="skip=layer3.1"), without(x))
        assert torch.equal(vit(x, paths="skip=blocks.0.attn,blocks.1.mlp"), transformer(x))
        assert torch.equal(vit(x, paths="skip=blocks.1"), vit(x, paths="skip=blocks.1.attn,blocks.1.mlp"))
        assert torch.equal(vit(x, paths="depth=1"), vit(x, paths="skip=blocks.1"))


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("kind", SLOW)
def test_a_step_with_drawn_skips_trains(kind):
    net, _, x = skipping(kind, drop_path_rate=0.5)
    objective = DropPath(mode="stochastic-depth").bind(net)
    drawn = set()
    for step in range(4):
        info = StepInfo(0, step, 4, 1, generator=torch.Generator().manual_seed(step))
        for result in objective.passes(x, torch.tensor([0, 1]), info):
            result.loss.backward()
            drawn.update(map(str, result.paths))
    assert len(drawn) > 1
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert any(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("kind", QUICK)
def test_rates_are_timms_and_nothing_is_scaled(kind):
    arguments, *_ = KINDS[kind]
    net, _, x = skipping(kind, drop_path_rate=0.4)
    expected = linear_rates(timm.create_model(kind, drop_path_rate=0.4, **arguments))
    found = {name.removesuffix(".join"): 1 - join.operands[1].survival for name, join in net.wiring.joins.items()}
    assert found == pytest.approx({name: expected.get(name, 0.0) for name in found})
    assert max(found.values()) == pytest.approx(
        0.4 * (1 if kind != "resnet18" else 4 / 5)
    )  # timm's last block cannot be skipped
    plain, _, _ = skipping(kind)
    plain.load_state_dict(net.state_dict())
    with torch.inference_mode():
        assert torch.equal(net(x), plain(x))
        assert torch.equal(net(x, paths=net.path_names[-1]), plain(x, paths=net.path_names[-1]))


def test_draws_follow_the_rates():
    net = pp.create_model(
        "timm:vit_tiny_patch16_224", skips=True, drop_path_rate=0.5, **KINDS["vit_tiny_patch16_224"][0]
    )
    generator = torch.Generator().manual_seed(0)
    from polypath.training.sampling import stochastic_depth

    counts = dict.fromkeys(net.wiring.joins, 0)
    for _ in range(400):
        for join in stochastic_depth(net.wiring, generator):
            counts[join] += 1
    assert counts["blocks.0.attn.join"] == counts["blocks.0.mlp.join"] == 0
    for name in ("blocks.1.attn.join", "blocks.1.mlp.join"):
        assert abs(counts[name] / 400 - 0.5) < 4 * math.sqrt(0.25 / 400)


def test_saved_loaded_and_extracted_networks_choose_as_before(tmp_path):
    net, _, x = skipping("vit_tiny_patch16_224")
    pp.save(net, tmp_path / "net")
    loaded = pp.load(tmp_path / "net")
    child = pp.extract(net, "skip=blocks.0.mlp")
    pp.save(child, tmp_path / "child")
    again = pp.load(tmp_path / "child")
    with torch.inference_mode():
        assert torch.equal(loaded(x, paths="depth=1"), net(x, paths="depth=1"))
        assert torch.equal(again(x), net(x, paths="skip=blocks.0.mlp"))
    with pytest.raises(ValueError, match="this extracted network no longer has this path"):
        child.paths("skip=blocks.1")  # it would run the removed step
    assert loaded.config == net.config
    assert not [key for key in child.state_dict() if "blocks.0.mlp" in key or "blocks.0.norm2" in key]


@pytest.mark.parametrize("kind", SLOW)
def test_paths_are_exported(kind, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    net, _, x = skipping(kind)
    for text in ("whole", net.path_names[-1]):
        child = pp.extract(net, text)
        with torch.inference_mode():
            expected = child(x)
        torch.onnx.export(child, (x,), str(tmp_path / "path.onnx"), dynamo=True, verbose=False)
        session = ort.InferenceSession(str(tmp_path / "path.onnx"), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", slow_but("resnet18", "vit_tiny_patch16_224"))
def test_every_skip_and_drawn_choices_are_exported(kind):
    ort, _ = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    net, _, x = skipping(kind)
    for paths in dict.fromkeys(map(net.paths, singles_and_drawn(net))):
        child, file = pp.extract(net, paths), io.BytesIO()
        with torch.inference_mode():
            expected = child(x)
        with warnings.catch_warnings():  # the older exporter warns that it is older; it takes a tenth of the time
            warnings.simplefilter("ignore")
            torch.onnx.export(child, (x,), file, dynamo=False)  # pyright: ignore[reportArgumentType] (takes streams)
        session = ort.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4, err_msg=str(paths))


def test_compiled_and_recorded_by_torch():
    net, _, x = skipping("vit_tiny_patch16_224")
    with torch.no_grad():
        expected = net(x, paths="depth=1")
        child = pp.extract(net, "depth=1")
        assert torch.equal(torch.export.export(child, (x,)).module()(x), expected)
        assert torch.equal(torch.compile(child, backend="eager", fullgraph=True)(x), expected)
    assert torch.equal(copy.deepcopy(child)(x), child(x))


def test_dropout_follows_the_current_mode():
    """timm's code reads the mode; the mode at recording must not be fixed in the graph."""
    arguments = KINDS["resnet18"][0]
    net = pp.create_model("timm:resnet18", seed=0, num_classes=5, skips=True, drop_rate=0.5, **arguments)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(net.eval()(x), net(x))
    net.get_submodule("head").train()
    features = net.forward_features(x)
    for module in net.modules():
        module.training = not isinstance(module, nn.BatchNorm2d)
    assert not torch.equal(net.forward_head(features), net.forward_head(features))


class Keeps(nn.Module):
    """Keeps the shape of its input, but does not add to it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(4, 4, 3, padding=1), nn.SiLU() if kind == "silu" else nn.ReLU()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "product":
                return self.conv(x) * x
            case "constant":
                return x + self.conv.weight.sum()
            case "twice":
                return self.conv(x) + self.act(x)
            case "scaled":
                return torch.add(x, self.conv(x), alpha=2)
            case "branch":
                return x if x.sum() > 0 else x + self.conv(x)
            case _:
                return self.act(x + self.conv(x))


@pytest.mark.parametrize("kind", ["product", "constant", "twice", "scaled", "branch", "silu"])
def test_keeping_a_shape_is_not_enough(kind):
    assert residual_steps(Keeps(kind)) is None


def test_a_blocks_own_relu_may_follow():
    assert residual_steps(Keeps("relu")) is not None


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("vgg11", {}, "'vgg11': no block is residual, so none can be skipped; leave out the argument 'skips'"),
        ("densenet121", {}, "no block is residual"),
        ("resnet18", {"skips": 1}, "skips = 1"),
    ],
)
def test_what_cannot_be_skipped_is_refused_by_name(model, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        pp.create_model(f"timm:{model}", **{"skips": True, **arguments})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skip=layer1.0", "skip 'layer1.0': is not a block that can be skipped; .*layer1.1"),
        ("skip=layer", "skip 'layer'"),
        ("depth=1", r"give 2 numbers separated by '/', one for each of layer1 \(1 to 2\), layer3 \(1 to 2\)"),
        ("depth=0/1", "depth of layer1 .*0"),
        ("depth=2/3", "depth of layer3 .*3"),
    ],
)
def test_wrong_choices_are_named(text, message):
    with torch.device("meta"):
        net = pp.create_model("timm:resnet18", num_classes=5, skips=True, **KINDS["resnet18"][0])
    with pytest.raises(ValueError, match=message):
        net.paths(text)


def test_weights_come_from_a_folder_that_timm_saved(tmp_path):
    arguments = KINDS["resnet18"][0]
    model: Any = randomise_norms(timm.create_model("resnet18", num_classes=7, **arguments)).eval()
    timm.models.save_for_hf(model, str(tmp_path), model_args=arguments, safe_serialization=True)
    x = torch.randn(2, 3, 32, 32)
    for skips in (False, True):
        net = pp.create_model(f"timm:local-dir:{tmp_path}", pretrained=True, skips=skips).eval()
        with torch.inference_mode():
            torch.testing.assert_close(net(x), model(x), rtol=1e-6, atol=1e-6)
        other = pp.create_model(f"timm:local-dir:{tmp_path}", pretrained=True, skips=skips, num_classes=3)
        assert other.num_classes == 3
        assert torch.equal(
            other.get_submodule("body.model.layer1.0" if skips else "body.model").state_dict()["conv1.weight"],
            model.layer1[0].conv1.weight if skips else model.conv1.weight,
        )
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    same = pp.create_model(
        "timm:resnet18", num_classes=7, skips=True, checkpoint_path=str(tmp_path / "weights.pth"), **arguments
    ).eval()
    with torch.inference_mode():
        assert torch.equal(same(x), net(x))


def test_images_of_another_size_are_refused():
    net, _, _ = skipping("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="40x40 pixels: must be 32x32 for this model"):
        net(torch.randn(1, 3, 40, 40))
