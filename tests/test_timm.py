"""Every registered network as a timm model."""

from __future__ import annotations

import copy
import math
import shutil
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
from timm.layers.config import set_scriptable
from timm.models import FeatureInfo, PretrainedCfg, get_pretrained_cfg, is_model, load_checkpoint, resume_checkpoint
from timm.optim._optim_factory import create_optimizer_v2
from timm.utils.checkpoint_saver import CheckpointSaver
from timm.utils.model_ema import ModelEmaV3
from timm.utils.onnx import onnx_export

import polypath as pp
import polypath.timm as ours
from conftest import part, randomise_norms
from contracts.small import FORMS, SHRINK
from polypath.deploy.images import preparation
from polypath.families.registry import PRESETS, get_preset


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
    with pytest.raises(ValueError, match="'resnet50' already exists in timm"):
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
        ("crescendonet_32", {"pretrained": True}, r"no weights for 'crescendonet_32'; use polypath.load"),
        ("crescendonet_32.a1", {}, "no weights with this tag; the tags of 'crescendonet_32' are: none"),
        ("crescendonet_32", {"features_only": True, "feature_cls": "hook"}, "feature_cls='hook': must be 'getter'"),
        ("crescendonet_32", {"features_only": True, "out_indices": (0, 3)}, r"indices = \(0, 3\)"),
        ("gunn_small", {"drop_rate": 0.5}, "drop_rate=0.5: 'gunn_small' has no such argument"),
        ("crescendonet_32", {"drop_path_rate": 0.5}, "drop_path_rate=0.5: 'crescendonet_32' has no such argument"),
        ("crescendonet_32", {"global_pool": ""}, "a classifier needs a pool"),
        ("skip_vgg11", {}, "Unknown model"),
        ("crescendonet_32", {"global_pool": "max"}, "global_pool='max'"),
        ("crescendonet_32", {"depth": 3}, "has no argument 'depth'; its arguments are .*widths"),
        ("crescendonet_32", {"num_classes": -1}, "num_classes = -1"),
    ],
)
def test_bad_questions(name, options, message):
    with pytest.raises((ValueError, RuntimeError), match=message):
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


SIDE = 64  # as in timm's tests of features, except for models with smaller images


def small(name: str) -> dict[str, Any]:
    spec = get_preset(name).spec
    return SHRINK[spec.family](spec)


@pytest.mark.parametrize("name", FORMS)
def test_it_gives_features_as_timms_tests_want_them(name):
    """The assertions of timm's test_model_forward_features, …_intermediates_features and …_intermediates."""
    x = torch.randn(1, 3, SIDE, SIDE)
    for options in ({}, {"feature_cls": "getter"}):
        model: Any = timm.create_model(name, features_only=True, **options, **small(name)).eval()
        with torch.inference_mode():
            assert_described(model(x), model.feature_info, x)
        assert not any(key.startswith("model.head.") for key in model.state_dict())
    net: Any = timm.create_model(name, **small(name)).eval()
    with torch.inference_mode():
        output, maps = net.forward_intermediates(x, output_fmt="NCHW")
        assert_described(maps, FeatureInfo(net.feature_info, len(net.feature_info)), x)
        assert torch.allclose(output, net.forward_features(x))


def assert_described(maps: list[torch.Tensor], info: FeatureInfo, x: torch.Tensor) -> None:
    assert len(maps) == len(info.channels())
    for channels, reduction, m in zip(info.channels(), info.reduction(), maps, strict=True):
        assert m.shape[:2] == (len(x), channels)
        assert all(side <= math.ceil(SIDE / reduction) + 1 for side in m.shape[2:])
        assert not m.isnan().any()


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


def test_some_stages_are_asked_for_through_timm():
    name, x = "dfn_mr_imagenet", torch.randn(2, 1, SIDE, SIDE)
    create: Any = timm.create_model
    every = create(name, features_only=True, in_chans=1, **small(name)).eval()
    assert len(every.feature_info.channels()) == 5
    two = create(name, features_only=True, out_indices=(1, -2), in_chans=1, **small(name)).eval()
    two.load_state_dict(every.state_dict(), strict=False)
    assert two.feature_info.out_indices in ((1, 3), [1, 3])
    assert two.feature_info.channels() == [every.feature_info.channels()[i] for i in (1, 3)]
    assert two.feature_info.reduction() == [4, 16]
    with torch.inference_mode():
        assert_equal(two(x), [every(x)[i] for i in (1, 3)])
    assert {key.split(".")[1] for key in two.state_dict()} == {"stem", "group1", "group2", "group3"}
    two.train()
    torch.stack([m.mean() for m in two(x)]).sum().backward()
    assert all(p.grad is not None for p in two.parameters())  # needed by distributed training
    assert create(name, features_only=True, out_indices=2, **small(name)).feature_info.reduction() == [16, 32]
    config = resolve_model_data_config(two)
    assert config["input_size"] == (1, 224, 224)
    assert "classifier" not in two.default_cfg


def test_other_packages_models_give_their_own_features():
    arguments: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "num_classes": 5}
    net: Any = pp.create_model("timm:resnet18", seed=0, **arguments).eval()
    inner, x = net.get_submodule("body").model, torch.randn(2, 3, SIDE, SIDE)
    assert [info["module"] for info in net.feature_info] == ["body.model." + i["module"] for i in inner.feature_info]
    assert all(isinstance(net.get_submodule(info["module"]), torch.nn.Module) for info in net.feature_info)
    with torch.inference_mode():
        output, maps = net.forward_intermediates(x, indices=[1, -1], norm=True, stop_early=True)
        expected, theirs = inner.forward_intermediates(x, indices=[1, -1])
        assert torch.equal(output, expected)
        assert_equal(maps, theirs)
        assert_described(net.forward_intermediates(x)[1], FeatureInfo(net.feature_info, 5), x)
    with pytest.raises(ValueError, match="branches"):
        net.forward_intermediates(x, paths="branches=1")
    with pytest.raises(ValueError, match="nothing can be pruned"):
        net.prune_intermediate_layers()
    fixed: Any = pp.create_model("timm:vit_tiny_patch16_224", seed=0, img_size=32, depth=2, num_classes=5).eval()
    assert [m.shape for m in fixed.forward_intermediates(x[:, :, :32, :32])[1]] == [(2, 192, 2, 2)] * 2
    tokens = fixed.forward_intermediates(x[:, :, :32, :32], 1, output_fmt="NLC", intermediates_only=True)
    assert [m.shape for m in tokens] == [(2, 4, 192)]
    with pytest.raises(ValueError, match="must be 32x32 for this model"):
        fixed.forward_intermediates(x)
    with pytest.raises(ValueError, match=r"'NHWC'.*must be one of NCHW or NLC"):
        fixed.forward_intermediates(x[:, :, :32, :32], output_fmt="NHWC")


def test_models_without_stages_say_so():
    net = pp.create_model("pytorchcv:resnet20_cifar10", seed=0).eval()
    assert net.feature_info == []
    with pytest.raises(ValueError, match="has no stages"):
        net.forward_intermediates(torch.zeros(1, 3, 32, 32))


def transform(model: Any) -> Any:
    """timm's preparation of images."""
    return create_transform(**resolve_model_data_config(model))


@pytest.mark.parametrize(
    ("resize", "to", "exact"), [("crop", None, True), ("crop", 36, True), ("squash", 40, True), ("pad", None, False)]
)
def test_timm_prepares_images_as_the_network_does(resize, to, exact, tmp_path):
    """For every origin of the network: saved, loaded, extracted, fused, in an ensemble, expanded into its chains."""
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
    assert np.abs(plain - expected).mean() > 0.2  # unlike the defaults for CIFAR-10
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


# --- what timm's scripts and hub need from a model ------------------------------------------------------------


def test_all_are_listed_under_our_module():
    listed = set(timm.list_models(module="polypath"))
    assert set(PRESETS) <= listed
    assert {"skip_resnet50", "skip_vit_small_patch16_224", "shipped_fractalnet"} <= listed
    assert set(ours.registered) <= listed


def test_without_head_it_gives_the_maps_that_the_head_reads():
    x = torch.randn(2, 3, 32, 32)
    for name in ("fractalnet20", "crescendonet_32", "gunn_small", "skip_resnet18"):
        net: Any = timm.create_model(name, num_classes=0, global_pool="").eval()
        with torch.inference_mode():
            assert torch.equal(net(x), net.forward_features(x)), name
            assert net(x).shape[1] == net.num_features
        own, copied = net.state_dict(), timm.create_model(name, num_classes=0, global_pool="").state_dict()
        assert own.keys() == copied.keys(), name
        with pytest.raises(ValueError, match="build the network again"):
            net.reset_classifier(10)


def test_without_head_it_is_saved(tmp_path):
    net: Any = timm.create_model("crescendonet_32", num_classes=0, global_pool="", widths=(4, 4), hidden=(8,)).eval()
    pp.save(net, tmp_path / "net")
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(pp.load(tmp_path / "net")(x), net(x))


def test_rates_are_the_familys_own():
    net: Any = timm.create_model("crescendonet_32", drop_rate=0.3, widths=(4, 4), hidden=(8,))
    assert net.config["arguments"]["dropout"] == 0.3
    wide: Any = timm.create_model("fractalnet20", drop_rate=0.2, **small("fractalnet20"))
    assert wide.config["arguments"]["dropout"] == (0.2,)
    deep: Any = timm.create_model("resnet20_cifar", drop_path_rate=0.25, **small("resnet20_cifar"))
    assert deep.config["arguments"]["survival"] == 0.75
    assert {o.survival for join in deep.wiring.joins.values() for o in join.operands} > {1.0}
    skips: Any = timm.create_model("skip_resnet18", drop_path_rate=0.25)
    assert min(o.survival for join in skips.wiring.joins.values() for o in join.operands) == 0.75


FEW_BLOCKS: dict[str, dict[str, Any]] = {
    "skip_resnet18": {"layers": (2, 2, 1, 1), "channels": (8, 8, 8, 8)},
    "resnet20_cifar": {"depth": 8, "width": 4},
}


def answers(model: Any, x: torch.Tensor, count: int = 12, **options: Any) -> set[bytes]:
    """What a model in training gives, norms and all else left as they are."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        found = [model(x, **options) for _ in range(count)]
    return {(each[-1] if isinstance(each, list) else each).numpy().tobytes() for each in found}


@pytest.mark.parametrize("name", FEW_BLOCKS)
def test_drop_path_drops_in_a_loop_that_knows_no_paths(name):
    options = {"drop_path_rate": 0.5, "num_classes": 5, **FEW_BLOCKS[name]}
    torch.manual_seed(0)
    net: Any = randomise_norms(timm.create_model(name, **options)).train()  # new, timm's blocks add nothing
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(1)
    drawn = answers(net, x)
    torch.manual_seed(1)
    assert answers(net, x) == drawn
    assert 1 < len(drawn) <= net.wiring.count_paths()
    assert len(answers(copy.deepcopy(net), x)) > 1  # as timm's averages of weights copy it
    assert len(answers(net, x, paths="whole")) == 1
    assert len(answers(net.eval(), x)) == 1
    features: Any = randomise_norms(timm.create_model(name, features_only=True, **options)).train()
    assert len(answers(features, x)) > 1
    plain: Any = randomise_norms(timm.create_model(name, num_classes=5, **FEW_BLOCKS[name])).train()
    assert len(answers(plain, x)) == 1


def test_a_recorded_network_has_all_that_training_drops():
    torch.manual_seed(0)
    net: Any = timm.create_model("skip_resnet18", drop_path_rate=0.9, **FEW_BLOCKS["skip_resnet18"]).train()
    x = torch.randn(2, 3, 32, 32)
    for _ in range(3):
        traced = torch.fx.symbolic_trace(net)
        assert {node.target for node in traced.graph.nodes if node.op == "call_module"} >= {
            "body.model.layer1.1.conv1",
            "body.model.layer2.1.conv1",
        }
        named = [name for name, _ in torch.export.export(net, (x,)).named_parameters()]
        assert any("layer2.1.conv1" in name for name in named)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fractalnet20", {"filters": (4, 4), "columns": 2}),
        ("dr_resnet_small", {"width": 4, "blocks": (1, 2), "loops": (1, 2)}),
        ("skip_resnet18", {"drop_path_rate": 0.5, **FEW_BLOCKS["skip_resnet18"]}),
    ],
)
def test_what_timms_training_script_does_to_a_model(name, options, tmp_path):
    """Rates by depth, an average of weights, checkpointed steps, a checkpoint, and on from there."""

    def begin() -> tuple[Any, Any, Any]:
        model: Any = timm.create_model(name, num_classes=2, **options).train()
        model.set_grad_checkpointing()
        optimizer = create_optimizer_v2(model, "sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, layer_decay=0.9)
        return model, optimizer, ModelEmaV3(model, decay=0.5)

    def step(model: Any, optimizer: Any, ema: Any, seed: int) -> None:
        torch.manual_seed(seed)
        torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 1, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model, step=seed)

    torch.manual_seed(0)
    model, optimizer, ema = begin()
    step(model, optimizer, ema, 1)
    CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=str(tmp_path)).save_checkpoint(0, 1.0)
    step(model, optimizer, ema, 2)
    again, fresh, average = begin()
    last = str(tmp_path / "last.pth.tar")
    assert resume_checkpoint(again, last, fresh, log_info=False) == 1
    load_checkpoint(average.module, last, use_ema=True)
    step(again, fresh, average, 2)
    for mine, other in ((again, model), (average.module, ema.module)):
        expected = other.state_dict()
        assert all(torch.equal(t, expected[key]) for key, t in mine.state_dict().items())
    used = timm.create_model(name, num_classes=2, checkpoint_path=last, **options).state_dict()
    assert used.keys() == again.state_dict().keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(torch.jit|TorchScript|legacy|tensor to a Python|dynamo=False).*")
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", ["fractalnet16_small", "crescendonet_32", "dr_resnet_small", "skip_mobilenetv2_050"])
def test_timm_exports_it_both_ways(name, dynamo, tmp_path):
    """timm's function behind its ``onnx_export.py``, which compares answers with ONNX Runtime's."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model: Any = timm.create_model(name, num_classes=5, exportable=True)
    options: dict[str, Any] = {"input_size": (3, 32, 32), "batch_size": 2, "check_forward": True}
    onnx_export(model, str(tmp_path / "net.onnx"), use_dynamo=dynamo, **options)
    assert (tmp_path / "net.onnx").stat().st_size


def test_the_shipped_network_is_there_with_its_weights():
    from polypath.storage.loading import load_reported

    assert timm.list_models("shipped_*", pretrained=True) == ["shipped_fractalnet.cifar10"]
    net: Any = timm.create_model("shipped_fractalnet.cifar10", pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(net(x), load_reported("pretrained")(x))
    assert net.pretrained_cfg["label_names"][:2] == ("airplane", "automobile")
    tuned: Any = timm.create_model("shipped_fractalnet", pretrained=True, num_classes=4, in_chans=1)
    assert tuned.num_classes == 4
    assert torch.equal(
        tuned.state_dict()["block2.column1.unit1.conv.weight"], net.state_dict()["block2.column1.unit1.conv.weight"]
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("crescendonet_32", {"widths": (4, 4), "hidden": (8,), "in_chans": 1}),
        ("skip_mobilenetv2_050", {"drop_path_rate": 0.1}),
    ],
)
def test_saved_for_the_hub_it_comes_back(name, arguments, tmp_path):
    """With timm's functions; a folder of the same form replaces the Hub."""
    net: Any = timm.create_model(name, num_classes=5, **arguments).eval()
    timm.models.save_for_hf(net, tmp_path, safe_serialization=True, model_args=arguments)
    back: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, net.in_chans, 64, 64)
    with torch.inference_mode():
        assert torch.equal(back(x), net(x))
    assert back.pretrained_cfg["num_classes"] == 5
    fewer: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=3)
    assert fewer.num_classes == 3


@pytest.mark.parametrize(
    ("name", "arguments"), [("crescendonet_32", {"widths": (4, 4), "hidden": (8,)}), ("skip_mobilenetv2_050", {})]
)
def test_pushed_to_the_hub_it_comes_back(name, arguments, tmp_path, monkeypatch):
    """A folder stands for the hub."""
    from timm.models import _hub

    class Hub:
        def __init__(self, **_: Any) -> None: ...

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Url", (), {"repo_id": repo_id})

        def file_exists(self, **_: Any) -> bool:
            return False

        def upload_folder(self, repo_id: str, folder_path: str, **_: Any) -> None:
            shutil.copytree(folder_path, tmp_path / repo_id)

    monkeypatch.setattr(_hub, "HfApi", Hub)
    monkeypatch.setattr(_hub, "hf_hub_download", lambda repo_id, filename, **_: str(tmp_path / repo_id / filename))
    net: Any = timm.create_model(name, num_classes=5, **arguments).eval()
    timm.models.push_to_hf_hub(net, "me/net", safe_serialization=True)
    back: Any = timm.create_model("hf-hub:me/net", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(back(x), net(x))


def test_scriptable_models_are_flat():
    x = torch.randn(1, 3, 32, 32)
    for name, arguments in (("fractalnet20", small("fractalnet20")), ("skip_regnetx_002", {})):
        with set_scriptable(True):
            model: Any = timm.create_model(name, **arguments).eval()
        scripted: Any = torch.jit.script(model)
        assert scripted(x).shape == (1, model.num_classes)
        assert model.default_cfg["architecture"] == name


def test_networks_with_skips_have_timms_default_tag():
    for model in ("vit_tiny_patch16_224", "convnext_tiny", "resnet50"):
        own, theirs = get_pretrained_cfg(f"skip_{model}"), get_pretrained_cfg(model)
        assert own is not None
        assert theirs is not None
        assert (own.tag, own.num_classes) == (theirs.tag, theirs.num_classes)


def test_more_of_timms_networks_get_skips():
    assert ours.register_skips(["resnet26"]) == ["skip_resnet26"]
    assert ours.register_skips(["resnet26"]) == []
    assert set(timm.list_models("skip_resnet26", include_tags=True)) == {
        f"skip_{tag}" for tag in timm.list_models("resnet26", include_tags=True)
    }
    with pytest.raises(ValueError, match="timm has no model 'resnet27'"):
        ours.register_skips(["resnet27"])
