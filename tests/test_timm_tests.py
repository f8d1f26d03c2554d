"""timm's tests of models (``tests/test_models.py``, which its wheel omits), through its API, on ten of our networks,
six of timm's with skips, and, for comparison, timm's resnet18 and a ViT.

Features that a kind of network lacks are listed here, with the error message.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from timm.layers.config import set_scriptable
from timm.models import FeatureInfo, get_notrace_functions, get_notrace_modules
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import polypath.timm  # noqa: F401 (registers what is tested)
from contracts.small import SHRINK
from polypath.families.registry import PRESETS, get_preset

pytestmark = pytest.mark.slow

OURS = (
    "fractalnet16_small", "crescendonet_32", "gunn_small", "resnet20_cifar", "dfn_mr_imagenet", "dfn_il14",
    "mobilenetv2_base", "dr_resnet_small", "dr_mobilenetv2", "aig_resnet50_imagenet",
)  # fmt: skip
SKIPS = (
    "skip_resnet18", "skip_regnety_002", "skip_convnext_atto", "skip_mobilenetv3_small_100", "skip_mobilenetv2_050",
    "skip_vit_tiny_patch16_224",
)  # fmt: skip
NAMES = ("resnet18", "vit_tiny_patch16_224", *OURS, *SKIPS)
GATED = ("dr_resnet_small", "dr_mobilenetv2", "aig_resnet50_imagenet")
NO_STAGES = ("skip_vit_tiny_patch16_224",)
SEQUENCES = ("vit_tiny_patch16_224", "skip_vit_tiny_patch16_224")  # their features are tokens, not maps

each = pytest.mark.parametrize("name", NAMES)


def made(name: str, **options: Any) -> Any:
    """The model as timm creates it; ours with few channels, ViTs with few blocks and small images."""
    spec = get_preset(name).spec if name in PRESETS else None
    small: dict[str, Any] = SHRINK[spec.family](spec) if spec is not None else {}
    if name in SEQUENCES:
        small = {"img_size": 64, "depth": 3}
    torch.manual_seed(0)
    return timm.create_model(name, **(small | options))


def images(model: Any, count: int = 1) -> Tensor:
    """Images of 64 pixels, or of the smallest side that the model accepts."""
    least = model.default_cfg.get("min_input_size") or (3, 1, 1)
    side = max(64, least[-1])
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@each
def test_forward_with_and_without_checkpointing(name: str) -> None:
    model = made(name).eval()
    x = images(model)
    answer = model(x)
    assert len(answer) == 1
    assert not answer.isnan().any()
    model.set_grad_checkpointing()
    assert torch.allclose(answer, model(x), rtol=1e-4, atol=1e-5)


@each
def test_every_parameter_has_a_gradient(name: str) -> None:
    model = made(name, num_classes=42).train()
    check_gradients(model, model(images(model, 2)))


def check_gradients(model: nn.Module, answer: Tensor) -> None:
    answer.mean().backward()
    assert answer.shape[-1] == 42
    assert not answer.isnan().any()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@each
def test_it_is_as_its_config_says(name: str) -> None:
    model = made(name).eval()
    config, keys, x = model.default_cfg, set(model.state_dict()), images(model)
    convs, last = config["first_conv"], config["classifier"]
    assert {f"{conv}.weight" for conv in ((convs,) if isinstance(convs, str) else convs)} <= keys
    assert f"{last}.weight" in keys
    features = model.forward_features(x)
    before = model.forward_head(features, pre_logits=True)
    channels = -1 if features.ndim == 3 else 1
    assert len(config.get("pool_size") or ()) in ((0,) if features.ndim == 3 else (2,))
    assert features.shape[channels] == model.num_features
    assert before.shape[1] == model.head_hidden_size
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert model(x).shape == before.shape
    if name not in SEQUENCES:
        model.reset_classifier(0, "")
        bare = made(name, num_classes=0, global_pool="").eval()
        assert model(x).shape == bare(x).shape
        assert model(x).shape[2:] == features.shape[2:]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NO_STAGES])
def test_features_are_as_they_are_described(name: str) -> None:
    model = made(name, features_only=True, feature_cls="getter").eval()
    check_maps(model(images(model)), model.feature_info, images(model))
    whole = made(name).eval()
    output, maps = whole.forward_intermediates(images(whole), output_fmt="NCHW")
    check_maps(maps, FeatureInfo(whole.feature_info, len(whole.feature_info)), images(whole))
    assert torch.allclose(output, whole.forward_features(images(whole)))
    whole.set_grad_checkpointing()
    again, _ = whole.forward_intermediates(images(whole), output_fmt="NCHW")
    assert torch.allclose(output, again, rtol=1e-4, atol=1e-5)


def check_maps(maps: list[Tensor], info: Any, x: Tensor) -> None:
    assert len(maps) == len(info.channels())
    for channels, reduction, m in zip(info.channels(), info.reduction(), maps, strict=True):
        assert m.shape[:2] == (len(x), channels)
        assert max(m.shape[2:]) <= math.ceil(x.shape[-1] / reduction) + 1
        assert not m.isnan().any()


@pytest.mark.parametrize("name", NO_STAGES)
def test_tokens_are_no_stages(name: str) -> None:
    model = made(name).eval()
    assert model.feature_info == []
    with pytest.raises(ValueError, match="has no stages"):
        model.forward_intermediates(images(model))


@each
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_torchscript(name: str) -> None:
    with set_scriptable(True):
        model = made(name).eval()
    scripted: Any = torch.jit.script(model)
    assert torch.allclose(scripted(images(model)), model(images(model)), rtol=1e-4, atol=1e-5)


def recorded(model: nn.Module) -> nn.Module:
    """torchvision's feature extractor of a model by torch.fx, in both modes, up to its logits."""
    options = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    options |= {"param_shapes_constant": True}
    trained, evaluated = get_graph_node_names(model, tracer_kwargs=options)
    return create_feature_extractor(
        model, train_return_nodes=trained[-1:], eval_return_nodes=evaluated[-1:], tracer_kwargs=options
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GATED])
def test_fx(name: str) -> None:
    model = made(name).eval()
    with torch.inference_mode():
        answer = model(images(model))
        (found,) = recorded(model)(images(model)).values()
    assert torch.equal(found, answer)
    model = made(name, num_classes=42).train()
    module = recorded(model)
    check_gradients(module, *module(images(model, 2)).values())


@pytest.mark.parametrize("name", GATED)
def test_gates_are_drawn_while_a_network_trains_so_fx_does_not_record_that(name: str) -> None:
    with pytest.raises(ValueError, match=r"sampled gates: call eval\(\) first"):
        recorded(made(name))
    model = made(name).eval()
    with torch.inference_mode():
        assert torch.equal(torch.fx.symbolic_trace(model)(images(model)), model(images(model)))


@each
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_torchscript_of_what_fx_records(name: str) -> None:
    with set_scriptable(True):
        model = made(name).eval()
    scripted: Any = torch.jit.script(recorded(model))
    (found,) = scripted(images(model)).values()
    assert torch.allclose(found, model(images(model)), rtol=1e-4, atol=1e-5)
