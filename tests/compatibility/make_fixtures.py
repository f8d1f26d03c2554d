"""How the files in ``v0_1`` were made. It ran once, at revision 7e60740, and must not run again.

The files say what Polypath 0.1 wrote and what it answered. Later code must read them and give the same answers; files
that later code writes prove nothing of the kind. A later format gets a later folder and a script of its own. This one
stays as a record. Names that it imports may have moved since.

The script works in an empty folder with relative paths only. It replaces the name of the machine's processor and
system by neutral words, and leaves out TensorBoard's files (their names hold the host's name) and pictures.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import polypath as pp
from polypath.analysis.recalibrate import recalibrate
from polypath.cli import main as polypath_main
from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.base import FAMILIES
from polypath.families.crescendonet import CrescendoNet
from polypath.families.fractalnet import FractalNet
from polypath.layers.gates import GateUnit
from polypath.reproduce.results import load_result
from polypath.training import run as run_module
from polypath.training.engine import Engine
from polypath.training.loop import train
from polypath.training.optim import OptimConfig
from polypath.training.path_objectives import DropPath, PathWise
from polypath.training.recipe import Recipe
from polypath.training.run import RunFolder
from polypath.training.schedules import ScheduleConfig

HERE = Path(__file__).resolve().parent
TARGET = HERE / "v0_1"
RESULTS = HERE.parent.parent / "docs" / "results" / "reproduce"
RESULT = "dfn-table4-small"
COUNTED = ("params", "macs", "depth", "paths")

# name: input, registered model, arguments
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "crescendonet": ("rgb16", "crescendonet_32", {"widths": (4, 6), "hidden": (8,), "growing": True}),
    "dfn_il": ("rgb16", "dfn_il14", {"depth": 0, "blocks": (1, 2), "width": 4, "survival": 0.8}),
    "dfn_mr": ("rgb16", "dfn_mr14", {"depth": 0, "blocks": (1, 2), "width": 4}),
    "dr_mobilenetv2": (
        "rgb16",
        "dr_mobilenetv2",
        {
            "num_classes": 10, "blocks": (1, 2, 2), "loops": (1, 1, 2), "widths": (4, 6, 8), "expansions": (1, 2, 2),
            "strides": (1, 2, 1), "stem_width": 4, "last_width": 16,
        },
    ),
    "dr_resnet": (
        "rgb16", "dr_resnet16_cifar", {"blocks": (1, 2), "loops": (1, 3), "width": 4, "gate_hidden": 4}
    ),
    "dr_resnet_all_gates": (
        "rgb16",
        "aig_resnet110_cifar",
        {"blocks": (1, 2), "loops": (1, 2), "width": 4, "gate_hidden": 0, "first_loop": "free", "norm": "lvbn"},
    ),
    "dr_resnet_no_gates": (
        "rgb16",
        "r_resnet53_imagenet",
        {"num_classes": 10, "blocks": (1, 2), "loops": (1, 2), "width": 2, "stem": "cifar"},
    ),
    "fractalnet": ("rgb16", "fractalnet20", {"filters": (4, 6), "dropout": (0.0, 0.2)}),
    "fractalnet_tied": (
        "rgb16",
        "fractalnet20",
        {"filters": (4, 6), "transitions": (2,), "own_norms": True, "bias": True, "affine": False, "pool": "after"},
    ),
    "fusenet": ("rgb16", "fusenet_nf3_14", {"depth": 8, "width": 4, "join": "max"}),
    "gunn": (
        "rgb16",
        "gunn_small",
        {"channels": (8, 12), "segments": (2, 3), "expansion": (2, 1), "stem_width": 4, "last_width": 8},
    ),
    "plain": ("rgb16", "plain14_cifar", {"depth": 5, "width": 4}),
    "resnet": ("rgb16", "resnet20_cifar", {"depth": 0, "blocks": (1, 2), "width": 4, "survival": 0.5}),
    "sunn": (
        "rgb16",
        "sunn_small",
        {"channels": (8, 12), "segments": (2, 3), "expansion": (1,), "stem_width": 4, "last_width": 8},
    ),
    "timm": (
        "rgb32",
        "timm:convnext_atto",
        {"num_classes": 10, "model_arguments": {"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8)}},
    ),
}  # fmt: skip

# name: parent, path, whether its norms are estimated anew
CHILDREN = {
    "child": ("crescendonet", "branches=2,4", True),
    "grandchild": ("child", "branches=4", False),
    "tied_child": ("fractalnet_tied", "column=2", False),
    "gated_child": ("dr_resnet_all_gates", "loops=2", True),
}

CRESCENDO = CrescendoNet(widths=(6, 6), scale=3, hidden=(16,), in_chans=1, init="he")
FRACTAL = FractalNet(filters=(8, 16), columns=2, in_chans=1, init="he")
DATA = DataConfig(validation=200, train_images=1000, test_images=200, augment=AugmentConfig(pad=1), cache=False)
FINISHED = Recipe(
    name="finished",
    model=FRACTAL,
    data=DATA,
    optim=OptimConfig(lr=0.05, nesterov=True),
    objective=DropPath(mode="local", rate=0.2),
    epochs=2,
    batch_size=20,
    device="cpu",
)
STOPPED = Recipe(
    name="stopped",
    model=FRACTAL,
    data=DATA,
    optim=OptimConfig(lr=0.05, weight_decay=1e-4),
    objective=DropPath(mode="mixed"),
    epochs=2,
    batch_size=40,
    ema=0.8,
    device="cpu",
)
BEGUN = Recipe(
    name="begun",
    model=CRESCENDO,
    data=replace(DATA, train_images=400),
    optim=OptimConfig(lr=0.05, weight_decay=1e-3, decay="linear"),
    schedule=ScheduleConfig(kind="cosine", warmup_epochs=0.1),
    objective=PathWise(),
    epochs=1,
    batch_size=40,
    accumulate=2,
    label_smoothing=0.1,
    clip_norm=1.0,
    device="cpu",
    assumed={"optim.lr": "not stated"},
)
STOPPED_AFTER = 37  # steps: in the second epoch


# --- networks ------------------------------------------------------------------------------------------------


def randomise(net: nn.Module, seed: int) -> None:
    """Give norms, biases and gates values of their own, so that nothing is equal by accident."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                assert module.running_var is not None
                module.running_mean.normal_(0.0, 0.2, generator=g)
                module.running_var.uniform_(0.5, 2.0, generator=g)
                if module.affine:
                    module.weight.normal_(1.0, 0.2, generator=g)
                    module.bias.normal_(0.0, 0.2, generator=g)
            elif isinstance(module, GateUnit):
                module.last.weight.normal_(0.0, 2.0, generator=g)
                module.last.bias.normal_(0.0, 0.1, generator=g)
            elif isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                module.bias.normal_(0.0, 0.1, generator=g)


def images(n: int, side: int, g: torch.Generator) -> Tensor:
    """Noise that differs in level and contrast from image to image, so that gates tell them apart."""
    level, contrast = torch.randn(n, 3, 1, 1, generator=g) * 1.5, torch.rand(n, 1, 1, 1, generator=g) * 2 + 0.2
    return torch.randn(n, 3, side, side, generator=g) * contrast + level


@torch.no_grad()
def answers(net: pp.PathNet, x: Tensor) -> dict[str, Tensor]:
    """Logits in float64 of each named path."""
    net = net.double().eval()
    return {name: net(x.double(), paths=name) for name in net.named_paths()}


def counts(net: pp.PathNet, x: Tensor) -> dict[str, Any]:
    found = {}
    for name, paths in net.named_paths().items():
        cost = pp.cost(net, paths, size=(int(x.shape[2]), int(x.shape[3])))
        found[name] = {"text": str(paths), **{key: getattr(cost, key) for key in COUNTED}}
    return found


@torch.no_grad()
def set_gates(net: pp.PathNet, x: Tensor) -> None:
    """Move each gate's bias so that half of the images pass it the first time."""
    for gate in [module for module in net.modules() if isinstance(module, GateUnit)]:
        seen: list[Tensor] = []
        hook = gate.register_forward_hook(lambda _module, _inputs, out, seen=seen: seen.append(out))
        net.eval()(x)
        hook.remove()
        if seen:
            margins = (seen[0][:, 1] - seen[0][:, 0]).sort().values
            gate.last.bias[1] -= margins[len(margins) // 2 - 1 : len(margins) // 2 + 1].mean()


def gates_vary(net: pp.PathNet, x: Tensor) -> bool:
    """Whether every switch has a gate, and one of the later loops if it has some, that not all or no images pass."""
    trace, shares = pp.Trace(), {}
    with torch.no_grad():
        net.eval()(x, trace=trace)
    for switch, label, reached, opened in trace.gates:
        share = float(opened.sum() / reached.sum()) if reached.sum() else 0.0
        shares.setdefault((switch, label == "1"), []).append(share)
    return all(any(0.0 < share < 1.0 for share in some) for some in shares.values())


def make_networks(inputs: dict[str, Tensor]) -> None:
    families, told, logits = set(), {}, {}
    nets: dict[str, pp.PathNet] = {}
    for i, (name, (where, model, arguments)) in enumerate(NETWORKS.items()):
        net = pp.create_model(model, seed=i, **arguments)
        for seed in range(1000 * i, 1000 * i + 1000):
            randomise(net, seed)
            set_gates(net, inputs[where])
            if gates_vary(net, inputs[where]):
                break
        else:
            raise RuntimeError(f"{name}: no seed makes its gates decide")
        nets[name] = net.eval()
        families.add(net.config["family"])
        told[name] = {"input": where, "create": {"name": model, "arguments": arguments}}
    for name, (parent, path, anew) in CHILDREN.items():
        where = told[parent]["input"]
        stats = recalibrate(nets[parent], [path], [(inputs[where],)], seed=3) if anew else None
        nets[name] = pp.extract(nets[parent], path, stats=stats)
        told[name] = {"input": where, "create": None, "parent": parent, "path": path}
    for name, net in nets.items():
        about: dict[str, Any] = {}
        if name == "crescendonet":
            about = {"classes": [f"class {i}" for i in range(10)], "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
            about |= {"image_size": 16, "resize": "crop", "resize_to": 18}
        pp.save(net, f"networks/{name}", **about)
        x = inputs[told[name]["input"]]
        told[name] |= {"parameters": sum(p.numel() for p in net.parameters()), "paths": counts(net, x)}
        if about:
            told[name]["about"] = json.loads(json.dumps({key: net_value(name, key) for key in ABOUT}))
        logits |= {f"{name}|{path}": value for path, value in answers(net, x).items()}
    assert families == set(FAMILIES) - {"pytorchcv"}, families ^ set(FAMILIES)
    write("networks.json", told)
    save_file(logits, "networks.safetensors")


ABOUT = ("classes", "normalisation", "image")


def net_value(name: str, key: str) -> Any:
    return pp.load(f"networks/{name}").config[key]


@torch.no_grad()
def make_ensembles(inputs: dict[str, Tensor]) -> None:
    Path("ensembles").mkdir()
    told, logits, x = {}, {}, inputs["rgb16"]
    for weights in ("shared", "separate"):
        ensemble = pp.Ensemble(pp.load("networks/crescendonet"), ["branches=2,3", "branches=1"], weights)
        g = torch.Generator().manual_seed(5)
        for name, buffer in ensemble.named_buffers():
            if name.startswith("members.") and name.endswith("running_mean"):
                buffer.normal_(0.0, 0.2, generator=g)
        ensemble.eval().save(f"ensembles/{weights}.safetensors")
        again = pp.Ensemble.load(f"ensembles/{weights}.safetensors")
        told[weights] = {"input": "rgb16", "parameters": sum(p.numel() for p in again.parameters())}
        told[weights]["members"] = list(again.names)
        logits[f"{weights}|"] = again(x).double()
        again.double()
        logits |= {f"{weights}|{name}": again.logits(name, x.double()) for name in again.names}
    write("ensembles.json", told)
    save_file(logits, "ensembles.safetensors")


# --- runs ----------------------------------------------------------------------------------------------------


def outcome(run: Path, x: Tensor) -> dict[str, Any]:
    """What a finished run has come to."""
    summary = json.loads((run / "summary.json").read_text())
    kept = ("reported", "epoch", "val_error", "test_error", "test_loss", "test_images", "parameters", "steps", "seed")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {"summary": {key: summary[key] for key in kept}, "metrics": [json.loads(line) for line in lines]}


def make_runs(digits: Tensor) -> None:
    expected: dict[str, Any] = {}
    Path("trained").mkdir()

    train(FINISHED, "trained/finished", quiet=True)
    with contextlib.redirect_stdout(io.StringIO()) as told:
        options = [
            "--recalibrate",
            "--num-images",
            "200",
            "--repeats",
            "1",
            "--also",
            "block1.join2=2;block2.join2=1",
            "--json",
        ]
        assert polypath_main(["paths", "trained/finished", *options]) == 0
    table = json.loads(told.getvalue())
    kept = ("name", "paths", "error", "error_recalibrated", "params", "macs", "depth")
    rows = [{key: row[key] for key in kept if key in row} for row in table["rows"]]
    expected["finished"] = {**outcome(Path("trained/finished"), digits), "paths": rows}

    train(STOPPED, "calm/stopped", quiet=True)
    expected["stopped"] = outcome(Path("calm/stopped"), digits)
    step = Engine.step

    def watched(self: Engine, parts: Any, total: int, epoch: int, at: int, flag: int = 0) -> Any:
        if at == STOPPED_AFTER - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, parts, total, epoch, at, flag)

    Engine.step = watched  # type: ignore[method-assign]
    try:
        train(STOPPED, "trained/stopped", quiet=True)
    except SystemExit:
        print("stopped")
    finally:
        Engine.step = step  # type: ignore[method-assign]
    assert not Path("trained/stopped/summary.json").exists()

    train(BEGUN, "calm/begun", quiet=True)
    expected["begun"] = outcome(Path("calm/begun"), digits)
    RunFolder.create(Path("trained/begun"), BEGUN)  # as a kill before the first checkpoint leaves it

    write("runs.json", expected)


def clean(folder: Path) -> None:
    """Leave out pictures, and TensorBoard's files, whose names hold the host's name."""
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".png", ".svg") or file.name.startswith("events."):
            file.unlink()


# --- a bundle, a result, names -------------------------------------------------------------------------------


def make_bundle(digits: Tensor) -> None:
    options = ["--keep", "--num-images", "200", "--measure", "1", "--name", "digits", "--note", "A fixture.", "--json"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert polypath_main(["export", "trained/finished", "--out", "bundle", *options]) == 0
    bundle = pp.deploy.Bundle.open("bundle")
    predictor = pp.AnytimePredictor(bundle, "torch", 1)
    pixels = digits.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C) uint8
    tensors: dict[str, Tensor] = {}
    for path in bundle.paths:
        answer = predictor.predict(pixels.numpy(), path=path.name)
        tensors[f"probabilities|{path.name}"] = torch.from_numpy(answer.probabilities)
        x = torch.from_numpy(predictor.prepared(pixels.numpy())).double()
        with torch.no_grad():
            tensors[f"logits|{path.name}"] = bundle.extracted(path.name).double()(x)
    tensors["prepared"] = torch.from_numpy(predictor.prepared(pixels.numpy()))
    save_file({key: t.contiguous() for key, t in tensors.items()}, "bundle.safetensors")
    told: dict[str, Any] = {"name": bundle.name, "classes": bundle.classes, "size": bundle.size}
    told |= {"normalisation": bundle.normalisation, "formats": sorted(bundle.formats)}
    told["paths"] = [asdict(path) for path in bundle.paths]
    told["ladder"] = [asdict(rung) for rung in bundle.ladder]
    sure = predictor.predict_confident(pixels.numpy(), risk=0.3)
    told["confident"] = {"risk": 0.3, "paths": sure.paths, "sure": sure.sure.tolist()}
    told["latency"] = [dict(row) for row in bundle.manifest.latency]
    write("bundle.json", told)
    Path("images").mkdir()
    for i, image in enumerate(digits[:2, 0]):
        Image.fromarray(image.numpy()).save(f"images/{i}.png")


def make_result() -> None:
    Path("result").mkdir()
    for name in ("result.json", "correct.npz", "recipes.json"):
        shutil.copy(RESULTS / RESULT / name, Path("result") / name)
    result = load_result("result")
    told: dict[str, Any] = {"experiment": result.experiment, "scale": result.scale, "seeds": result.seeds}
    told |= {"errors": result.errors, "values": result.values, "counts": result.counts, "published": result.published}
    told["verdicts"] = [asdict(verdict) for verdict in result.verdicts]
    told["right"] = {key: hits.sum(1).tolist() for key, hits in result.correct.items()}
    write("result_expected.json", told)


def make_names() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert polypath_main(["recipes", "--json"]) == 0
    recipes = [recipe["name"] for recipe in json.loads(told.getvalue())]
    write("names.json", {"models": pp.list_models(), "recipes": recipes})


def write(file: str, values: Any) -> None:
    Path(file).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    if TARGET.exists():
        raise SystemExit(f"{TARGET.name} is there: it was made once and must not be made again")
    torch.set_num_threads(1)
    sys.argv = ["make_fixtures.py"]
    run_module.processor = lambda: "some processor"
    platform.platform = lambda *_, **__: "some system"
    with tempfile.TemporaryDirectory() as place:
        os.environ["POLYPATH_CACHE"] = str(Path(place) / "cache")
        work = Path(place) / "v0_1"
        work.mkdir()
        os.chdir(work)
        g = torch.Generator().manual_seed(0)
        inputs = {"rgb16": images(6, 16, g), "rgb32": images(2, 32, g)}
        digits = (
            torch.from_numpy(cast(Any, load_digits()).images[:6] * 255 / 16)
            .round()
            .to(torch.uint8)[:, None]
            .contiguous()
        )
        save_file({**inputs, "digits": digits}, "inputs.safetensors")
        make_networks(inputs)
        make_ensembles(inputs)
        make_runs(digits)
        make_bundle(digits)
        make_result()
        make_names()
        shutil.rmtree("calm")
        clean(Path("trained"))
        os.chdir(HERE)
        shutil.copytree(work, TARGET)


if __name__ == "__main__":
    main()
