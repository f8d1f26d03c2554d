"""A network of timm with skips through what a run offers: paths, search, a bundle, a predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import polypath as pp
from polypath.cli import main
from polypath.core.batchnorm import applied
from polypath.data.config import AugmentConfig, DataConfig
from polypath.families.timm_models import TimmModel
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe

SMALL = {"layers": (2, 2, 1, 1), "channels": (8, 8, 8, 8), "drop_path_rate": 0.5}
RECIPE = Recipe(
    name="tiny",
    model=TimmModel(model="resnet18", skips=True, in_chans=1, model_arguments=SMALL),
    data=DataConfig(validation=60, train_images=96, test_images=80, augment=AugmentConfig(pad=1), cache=False),
    objective=DropPath(mode="stochastic-depth"),
    epochs=1,
    batch_size=32,
    device="cpu",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_paths_are_scored_searched_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))
    run, out = tmp_path / "run", tmp_path / "bundle"
    pp.train(RECIPE, run, quiet=True)
    net = pp.load(run / "model").eval()
    assert net.wiring.count_paths() == 4
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for text in ("skip=layer1.1", "depth=1/1"):
        child = pp.extract(net, text)
        mine, own = pp.recalibrate(net, [text], [(x,)]), pp.recalibrate(child, ["whole"], [(x,)])
        at, all_of = net.paths(text), child.paths("whole")
        with torch.inference_mode(), applied(net, mine[at]), applied(child, own[all_of]):
            torch.testing.assert_close(net(x, paths=at), child(x))
    assert main(["paths", str(run)]) == 0
    assert main(["search", str(run), "--num-images", "32"]) == 0
    assert main(["export", str(run), "--out", str(out), "--paths", "whole", "--paths", "depth=1/1"]) == 0
    names = {path.name for path in pp.Bundle.open(out).paths}
    assert "whole" in names  # on so few images the whole stays
    assert names <= {"depth=1/1", "whole"}
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), np.uint8)
    assert pp.AnytimePredictor(out).predict(image, budget_ms=10_000).path in names
