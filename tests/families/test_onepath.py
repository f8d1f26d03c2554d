"""Other packages' models as networks with one path."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import timm
import torch
from torch import nn

import polypath as pp
from conftest import part, randomise_norms
from polypath.families.onepath import Body, as_linear, smallest_side
from polypath.families.registry import get_preset
from polypath.families.timm_models import TimmModel, copy_timm_weights

SMALL = {
    # models with a linear classifier, with a 1×1 conv as one, of fixed size, with buffers that files do not contain
    "resnet": ("timm:resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}, 32),
    "dpn": ("timm:dpn48b", {"small": True, "num_init_features": 8, "k_sec": (1, 1, 1, 1)}, 32),
    "swin": (
        "timm:swin_tiny_patch4_window7_224",
        {"img_size": 28, "window_size": 7, "depths": (1, 1), "embed_dim": 12, "num_heads": (1, 2)},
        28,
    ),
}


def small(kind, **options):
    name, arguments, size = SMALL[kind]
    return pp.create_model(name, seed=0, **{"num_classes": 5, **arguments, **options}), size


@pytest.mark.parametrize("kind", SMALL)
def test_it_is_timms_own_model(kind, tmp_path):
    name, arguments, size = SMALL[kind]
    net, _ = small(kind)
    net.double()
    torch.manual_seed(1)
    model: Any = (
        randomise_norms(timm.create_model(name.removeprefix("timm:"), num_classes=5, **arguments)).double().eval()
    )
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.inference_mode():
        expected = model(x)
        assert not torch.allclose(net.eval()(x), expected, atol=1e-4)
        copy_timm_weights(net, model)
        torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-10)
        features = net.forward_features(x)
        torch.testing.assert_close(features, model.forward_features(x), rtol=1e-10, atol=1e-10)
        assert torch.equal(net.forward_head(features), net(x))
    assert {key.split(".")[0] for key in net.state_dict()} == {"body", "head"}
    assert {key.removeprefix("body.model.") for key in net.state_dict() if key.startswith("body.")} <= set(
        model.state_dict()
    )
    assert net.state_dict()["head.classifier.weight"].shape == (5, net.head_hidden_size)

    pp.save(net, tmp_path / "net")
    loaded = pp.load(tmp_path / "net")
    with torch.inference_mode():
        assert torch.equal(loaded(x), net(x))
        assert torch.equal(pp.extract(net, "whole")(x), net(x))
    assert loaded.config == net.config
    own = pp.cost(net, size=size)
    assert own.params == sum(p.numel() for p in model.parameters())
    assert own.macs == pp.cost(loaded, size=size).macs > 0
    assert (own.depth, own.paths) == ((0, 0), 1)


def test_it_trains_and_gets_new_heads():
    net, size = small("resnet", in_chans=1)
    x = torch.randn(4, 1, size, size)
    nn.functional.cross_entropy(net(x), torch.arange(4)).backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval().reset_classifier(0)
    bare, _ = small("resnet", in_chans=1, num_classes=0)
    bare.eval().load_state_dict(net.state_dict())
    assert torch.equal(bare(x), net(x))
    assert bare(x).shape == (4, 16)
    assert bare.min_size == 1
    net.reset_classifier(3)
    assert net(x).shape == (4, 3)


def test_seeds_and_initialisations():
    first, again, other = (small("resnet")[0].state_dict() for _ in range(2)), None, None
    first, again = first
    other = pp.create_model("timm:resnet18", seed=1, num_classes=5, **SMALL["resnet"][1]).state_dict()
    key = "body.model.conv1.weight"
    assert torch.equal(first[key], again[key])
    assert not torch.equal(first[key], other[key])
    he = small("resnet", init="he")[0].state_dict()
    assert not torch.equal(first[key], he[key])


def test_image_sizes():
    swin, size = small("swin")
    assert swin.min_size == size
    with pytest.raises(ValueError, match="32x32 pixels: must be 28x28 for this model"):
        swin(torch.randn(1, 3, 32, 32))
    with torch.device("meta"):  # shapes are enough
        vgg = pp.create_model("timm:vgg11", num_classes=2)
        assert vgg.min_size == 32
        assert vgg.eval()(torch.empty(1, 3, 32, 32)).shape == (1, 2)
        with pytest.raises(ValueError, match="at least 32x32"):
            vgg(torch.empty(1, 3, 31, 40))
        caformer = pp.create_model("timm:caformer_s18", num_classes=2)  # its pre-logits come before an MLP
        assert caformer.eval()(torch.empty(1, 3, 64, 64)).shape == (1, 2)
    assert smallest_side(small("resnet")[0]) == 1


def test_presets_know_the_packages_own_sizes():
    assert get_preset("timm:resnet18").spec.num_classes == 1000
    assert get_preset("timm:vit_tiny_patch16_384").size == 384
    assert not pp.list_models("timm:*")
    with pytest.raises(ValueError, match="'resnet1' is not known"):
        get_preset("timm:resnet1")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("timm:resnet1", {}, "'resnet1' is not known; similar names are .*resnet1"),
        ("timm:", {}, "'' is not known"),
        ("timm:local-dir:nowhere", {}, "timm:local-dir:nowhere cannot be read: .*nowhere/config.json"),
        (
            "timm:resnet18",
            {"model_arguments": {"pretrained": True}},
            "has 'pretrained': this argument does not belong to",
        ),
        (
            "timm:resnet18",
            {"checkpoint_path": "x.pth"},
            "timm model 'resnet18' cannot load checkpoint_path='x.pth': FileNotFoundError",
        ),
        ("timm:resnet18", {"pretrained_cfg": {"file": "x.pth"}}, "has 'pretrained_cfg'"),
        ("timm:resnet18", {"model_arguments": {"num_classes": 3}}, "has 'num_classes': set num_classes directly"),
        ("timm:resnet18", {"wings": 2}, "timm model 'resnet18' with {'wings': 2} cannot be built"),
        ("timm:resnet18", {"norm_layer": nn.BatchNorm2d}, "give JSON values"),
        ("timm:resnet18", {"num_classes": -1}, "num_classes = -1"),
        (
            "timm:deit_tiny_distilled_patch16_224",
            {},
            r"must have one classifier, but its classifier is \('head', 'head_dist'\)",
        ),
    ],
)
def test_bad_arguments(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        pp.create_model(name, **arguments)


def test_polypaths_own_are_not_wrapped():
    import polypath.timm

    assert "crescendonet_32" in polypath.timm.registered
    with pytest.raises(ValueError, match="is a model of Polypath"):
        pp.create_model("timm:crescendonet_32")


def test_a_saved_config_fetches_nothing(tmp_path):
    import json

    net, _ = small("resnet")
    pp.save(net, tmp_path / "net")
    file = tmp_path / "net/config.json"
    config = json.loads(file.read_text())
    for change in (
        {"model": "hf-hub:some/net"}, {"model_arguments": {"pretrained": True}},
        {"model_arguments": {"pretrained_cfg": {"url": "https://example.org/x.pth"}}}, {"model": "no_such_net"},
    ):  # fmt: skip
        file.write_text(json.dumps(config | {"arguments": config["arguments"] | change}))
        with pytest.raises(ValueError, match="cannot be built from this config"):
            pp.load(tmp_path / "net")
    assert "timm" in config


def test_classifiers_of_other_kinds():
    conv = nn.Conv2d(4, 3, 1)
    x = torch.randn(2, 4)
    torch.testing.assert_close(as_linear(conv, "here")(x), conv(x[:, :, None, None]).flatten(1))
    assert as_linear(nn.Conv2d(4, 3, 1, bias=False), "here").bias is None
    with pytest.raises(ValueError, match="here: the classifier is a Conv2d"):
        as_linear(nn.Conv2d(4, 3, 3), "here")


def test_weights_of_another_model_are_refused():
    net, _ = small("resnet")
    with pytest.raises(ValueError, match="weights of another model"):
        copy_timm_weights(net, timm.create_model("resnet18", num_classes=5))
    before = part(net, "head.classifier").weight.clone()
    copy_timm_weights(net, timm.create_model("resnet18", num_classes=7, **SMALL["resnet"][1]))
    assert torch.equal(part(net, "head.classifier").weight, before)


# --- pytorchcv -----------------------------------------------------------------------------------------------


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorchcv", None)
    monkeypatch.delitem(sys.modules, "pytorchcv.model_provider", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'polypath\[zoo\]'"):
        pp.create_model("pytorchcv:resnet20_cifar10")


@pytest.mark.parametrize(
    ("name", "classes", "size"),
    [("resnet20_cifar10", 10, 32), ("resnet20_cifar10", 5, 32), ("mobilenet_wd2_cub", 5, 224)],
)
def test_it_is_pytorchcvs_own_model(name, classes, size, tmp_path):
    provider = pytest.importorskip("pytorchcv.model_provider", reason="needs the extra zoo")
    net = pp.create_model(f"pytorchcv:{name}", seed=0, num_classes=classes).double().eval()
    torch.manual_seed(1)
    model = randomise_norms(provider.get_model(name)).double().eval()
    own = net.state_dict()
    classifier = iter(key for key in own if key.startswith("head."))
    state = {}
    for key, tensor in model.state_dict().items():
        key = f"body.model.{key}" if f"body.model.{key}" in own else next(classifier)
        same = key.startswith("body.") or classes == 10
        state[key] = tensor.reshape(own[key].shape) if same else own[key]
    assert not any(True for _ in classifier)
    x = torch.randn(1, 3, size, size, dtype=torch.float64)
    with torch.inference_mode():
        before = net(x)
        net.load_state_dict(state)
        assert not torch.allclose(net(x), before)
        assert net(x).shape == (1, classes)
        body = model.features(x).flatten(1)
        expected = body @ net.get_classifier().weight.T + net.get_classifier().bias
        torch.testing.assert_close(net(x), model(x) if classes == 10 else expected, rtol=1e-10, atol=1e-10)
        assert net(torch.randn(1, 3, 24, 24, dtype=x.dtype)).shape == (1, classes)  # the last pool is adaptive
        pp.save(net, tmp_path / "net")
        assert torch.equal(pp.load(tmp_path / "net")(x), net(x))
    assert pp.cost(net, size=size).params == sum(p.numel() for p in net.parameters())


def test_pytorchcvs_bad_names_and_own_classes():
    pytest.importorskip("pytorchcv", reason="needs the extra zoo")
    assert get_preset("pytorchcv:resnet20_cifar100").spec.num_classes == 100
    assert get_preset("pytorchcv:resnet18").size == 224
    with pytest.raises(ValueError, match="'resnet21_cifar10' is not known"):
        pp.create_model("pytorchcv:resnet21_cifar10")
    with torch.device("meta"):
        for name in ("fcn8sd_resnetd50b_voc", "squeezenet_v1_0", "nin_cifar10"):  # the last two pool their logits
            with pytest.raises(ValueError, match="does not end in a single classifier"):
                pp.create_model(f"pytorchcv:{name}")
        alexnet = pp.create_model("pytorchcv:alexnet")
    assert alexnet.min_size == 224
    with pytest.raises(ValueError, match="must be 224x224 for this model"):
        alexnet(torch.empty(1, 3, 256, 256, device="meta"))
    with pytest.raises(ValueError, match="'root'"):
        pp.create_model("pytorchcv:resnet20_cifar10", root="/tmp")


def test_a_body_is_not_a_family():
    assert TimmModel(model="resnet18").family == "timm"
    body = Body(nn.Conv2d(3, 2, 1), (2, 2))
    assert body(torch.randn(1, 3, 2, 2)).shape == (1, 8)
