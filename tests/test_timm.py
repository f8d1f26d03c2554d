"""Every registered network as a timm model."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model

import polypath as pp
import polypath.timm as ours
from conftest import part
from polypath.deploy.images import preparation
from polypath.families.registry import PRESETS


def test_every_name_is_there_and_none_is_timms_own():
    own = {n for n in timm.list_models() if not timm.models.model_entrypoint(n).__module__.startswith("polypath.")}
    assert len(own) > 1000
    assert "resnet50" in own
    assert not own & set(PRESETS)
    assert set(PRESETS) <= set(timm.list_models())
    assert set(timm.list_models("fractalnet*")) == set(pp.list_models("fractalnet*"))
    assert not set(PRESETS) & set(timm.list_models(pretrained=True))


def test_a_name_of_timms_own_is_refused(monkeypatch):
    monkeypatch.setitem(PRESETS, "resnet50", PRESETS["crescendonet_32"])
    with pytest.raises(ValueError, match="'resnet50' is timm's own"):
        ours.register()
    assert timm.models.model_entrypoint("resnet50").__module__ == "timm.models.resnet"


def test_models_registered_later_can_be_added(monkeypatch):
    monkeypatch.setitem(PRESETS, "later_net", PRESETS["crescendonet_32"])
    assert ours.register() == ["later_net"]
    assert is_model("later_net")
    assert ours.register() == []


@pytest.mark.parametrize("name", PRESETS)
def test_every_name_is_described(name):
    config = get_pretrained_cfg(name)
    assert config is not None
    assert config.architecture == name
    assert config.num_classes == PRESETS[name].spec.num_classes
    assert config.input_size == (3, PRESETS[name].size, PRESETS[name].size)
    assert config.min_input_size is not None
    assert config.min_input_size[-1] <= config.input_size[-1]
    assert config.paper_name
    assert not config.has_weights


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fractalnet20", {"filters": (4, 4, 8)}),
        ("crescendonet_32", {"widths": (4, 6), "hidden": (12, 8)}),
        ("gunn_small", {"channels": (8, 8), "segments": (2, 2), "last_width": 12}),
    ],
)
def test_it_behaves_as_a_timm_model(name, arguments):
    model: Any = timm.create_model(name, num_classes=7, in_chans=1, **arguments).eval()
    net = model
    assert isinstance(net, pp.PathNet)
    x = torch.randn(2, 1, 24, 20)
    with torch.inference_mode():
        assert net(x).shape == (2, 7)
        maps = net.forward_features(x)
        assert maps.ndim == 4
        assert maps.shape[1] == net.num_features
        before = net.forward_head(maps, pre_logits=True)
        assert before.shape == (2, net.head_hidden_size)
        assert torch.equal(net.forward_head(maps), net(x))
        assert torch.equal(net.get_classifier()(before), net(x))
        net.reset_classifier(3)
        assert net.num_classes == 3
        assert net(x).shape == (2, 3)
        net.reset_classifier(0)
        assert torch.equal(net(x), before)
        bare = timm.create_model(name, num_classes=0, in_chans=1, **arguments).eval()
        assert bare(x).shape == before.shape
        assert (bare.num_classes, bare.num_features) == (0, net.num_features)
    assert isinstance(net.get_submodule(model.default_cfg["classifier"]), torch.nn.Module)
    convs = model.pretrained_cfg["first_conv"]
    for conv in (convs,) if isinstance(convs, str) else convs:
        assert part(net, conv).in_channels == 1
    assert resolve_model_data_config(net)["mean"] == (sum(ours.CIFAR_MEAN) / 3,)  # one for the one channel


def test_what_timms_scripts_pass_to_every_model():
    small: dict[str, Any] = {"widths": (4, 4), "hidden": (8,)}
    net: Any = timm.create_model(
        "crescendonet_32",
        pretrained=False,
        num_classes=None,
        drop_rate=0.0,
        drop_path_rate=None,
        global_pool=None,
        scriptable=False,
        checkpoint_path="",
        dtype=torch.bfloat16,
        pretrained_cfg_overlay={"crop_pct": 0.5},
        **small,
    )
    assert net.num_classes == 10
    assert next(net.parameters()).dtype == torch.bfloat16
    assert net.default_cfg["crop_pct"] == 0.5
    given: Any = timm.create_model("crescendonet_32", pretrained_cfg=PretrainedCfg(mean=(0.0,) * 3), **small)
    assert given.default_cfg["mean"] == (0.0,) * 3
    assert given.default_cfg["paper_name"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("crescendonet_32", {"pretrained": True}, r"no weights for 'crescendonet_32'; polypath.load"),
        ("crescendonet_32.a1", {}, "no tags"),
        ("crescendonet_32", {"features_only": True}, "forward_features"),
        ("crescendonet_32", {"drop_rate": 0.5}, "drop_rate=0.5: 'crescendonet_32' does not have it"),
        ("crescendonet_32", {"global_pool": "max"}, "global_pool='max'"),
        ("crescendonet_32", {"depth": 3}, "has no argument 'depth'; it has .*widths"),
        ("crescendonet_32", {"num_classes": -1}, "num_classes = -1"),
    ],
)
def test_bad_questions(name, options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model(name, **options)


def test_a_checkpoint_of_ours_is_read_by_timm(tmp_path):
    small = {"widths": (4, 4), "hidden": (8,)}
    net = pp.create_model("crescendonet_32", seed=3, **small).eval()
    pp.save(net, tmp_path / "net")
    read = timm.create_model("crescendonet_32", checkpoint_path=tmp_path / "net/model.safetensors", **small).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(read(x), net(x))
        assert not torch.equal(timm.create_model("crescendonet_32", **small).eval()(x), net(x))


def transform(model: Any) -> Any:
    """What timm prepares images by."""
    return create_transform(**resolve_model_data_config(model))


@pytest.mark.parametrize(
    ("resize", "to", "exact"), [("crop", None, True), ("crop", 36, True), ("squash", 40, True), ("pad", None, False)]
)
def test_timm_prepares_images_as_the_network_does(resize, to, exact, tmp_path):
    """However the network was come by: saved, loaded, extracted, fused, in an ensemble, drawn as its chains."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((60, 40), Image.Resampling.BICUBIC)  # whole pixels at each size
    net = pp.create_model("crescendonet_32", widths=(4, 4), hidden=(8,), num_classes=3, seed=0).eval()
    facts: dict[str, Any] = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "classes": ["a", "b", "c"]}
    pp.save(net, tmp_path / "net", image_size=32, resize=resize, resize_to=to, **facts)
    loaded = pp.load(tmp_path / "net")
    ensemble = pp.Ensemble(loaded, ["branches=1", "branches=2"])
    ensemble.save(tmp_path / "ensemble")
    found = {
        "loaded": loaded,
        "extracted": pp.extract(loaded, "branches=1"),
        "fused": pp.fuse(loaded),
        "ensemble": pp.Ensemble.load(tmp_path / "ensemble"),
        "apart": pp.Ensemble(loaded, ["branches=1"], "separate"),
    }
    expected = preparation(loaded.config).prepared(photo)[0]
    for how, model in found.items():
        prepared = np.asarray(transform(model)(photo))
        assert prepared.shape == expected.shape, how
        # borders of half a pixel may fall on the other side
        assert np.abs(prepared - expected).mean() < (0.05 if exact else 0.2), how
        cfg: Any = model.pretrained_cfg
        assert cfg["label_names"] == ("a", "b", "c"), how
    plain = np.asarray(transform(net)(photo))
    assert np.abs(plain - expected).mean() > 0.2  # as for CIFAR-10, of which nothing was said
    loaded.reset_classifier(4)
    assert "label_names" not in loaded.pretrained_cfg
    assert loaded.pretrained_cfg["num_classes"] == 4


def test_an_untrained_network_is_described_as_timms_is(tmp_path):
    for name in ("crescendonet_32", "gunn24"):
        ours_, theirs = pp.create_model(name), timm.create_model(name)
        assert resolve_model_data_config(ours_) == resolve_model_data_config(theirs)
    own, wrapped = timm.create_model("resnet18"), pp.create_model("timm:resnet18")
    assert resolve_model_data_config(own) == resolve_model_data_config(wrapped)
    pp.save(wrapped, tmp_path / "net")
    assert resolve_model_data_config(pp.load(tmp_path / "net")) == resolve_model_data_config(own)


def test_importing_polypath_is_light():
    heavy = ["timm", "datasets", "sklearn", "matplotlib", "huggingface_hub", "torchvision", "pytorchcv", "torchmetrics"]
    tell = f"print([m for m in {heavy} if m in sys.modules])"
    code = f"import sys, polypath; {tell}; from polypath.training.recipes import list_recipes; list_recipes(); {tell}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["[]", "[]"]  # recipes of other packages' models need them only when they are built
