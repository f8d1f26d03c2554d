"""The examples in docstrings run."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import polypath as pp
from conftest import ROOT
from polypath.data.sources import look
from polypath.deploy.images import files_of
from polypath.families.recursive import RecursiveResNet
from polypath.families.resnet import ResNet
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import replace
from polypath.training.result import RunResult

SOURCE = Path(pp.__file__).parent
LONG = (
    "deploy.stepwise",
    "reproduce",
    "reproduce.experiment",
    "reproduce.plan",
    "reproduce.runner",
    "training.loop",
    "training.recipe",
    "training.sweep",
)
LONG += ("worth.anytime", "worth.ladder", "worth.measuring")
"""Modules whose examples would train for hours, export many graphs, or omit parts; these are only compiled."""


def code_of(docstring: str) -> Iterator[str]:
    """Indented paragraphs after a blank line or ``::`` that are Python."""
    block: list[str] = []
    before = ""
    for line in [*inspect.cleandoc(docstring).splitlines(), "end"]:
        if line.startswith("    ") and (block or not before.strip()):
            block.append(line)
        elif not line.strip() and block:
            block.append("")
        else:
            text = textwrap.dedent("\n".join(block))
            with contextlib.suppress(SyntaxError):
                if ast.parse(text).body:
                    yield text
            block = []
        before = line


def examples() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        module = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for code in code_of(ast.get_docstring(node) or ""):
                    found[module] = f"{found[module]}\n{code}" if module in found else code
    return found


EXAMPLES = examples()


def test_there_are_examples_and_prose_is_none():
    assert len(EXAMPLES) > 20
    assert list(code_of("Text.\n\n    a = 1\n\n    b = 2\n\nText::\n\n    no code here\n\n- item\n    more")) == [
        "a = 1\n\nb = 2\n"
    ]


def names_for(module: str, folder: Path) -> dict[str, Any]:
    """The names that a module's example takes as given."""
    net = pp.create_model("crescendonet_32", widths=(4, 4), hidden=(8,), scale=2, seed=0)
    if module == "core.reuse":
        net = ResNet(depth=8, exits=(1, 2)).build(seed=0)
    if module == "training.gates":
        net = RecursiveResNet(blocks=(1, 2, 1), loops=(1, 2, 1), width=4).build(seed=0)
    if module == "deploy.answer_file":
        (folder / "photos").mkdir()
        Image.new("RGB", (32, 32)).save(folder / "photos/one.png")
    (folder / "new").mkdir()
    x, y = torch.zeros(2, net.in_chans, 32, 32), torch.tensor([0, 1])
    g = torch.Generator().manual_seed(0)
    return {
        "pp": pp, "torch": torch, "F": F, "time": time, "net": net, "x": x, "y": y, "batches": [(x, y)], "g": g,
        "choices": [net.paths(name) for name in net.named_paths()], "images": x.permute(0, 2, 3, 1).byte().numpy(),
        "criterion": F.cross_entropy, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1), "objective": DropPath(),
        "epoch": 0, "step": 0, "steps_per_epoch": 2, "epochs": 1, "generator": g, "bundle": pp.Bundle.open(),
        "recipe": replace(pp.get_recipe("my-images"), {"data.source": "digits"}), "look": look,
        "folder": ROOT / "docs/results/drnn-digits" if module == "storage.decode" else folder / "new",
        "RunResult": RunResult, "files_of": files_of,
    }  # fmt: skip


@pytest.mark.parametrize("module", [name for name in EXAMPLES if name not in LONG])
def test_an_example_runs(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))
    names = {**vars(importlib.import_module(f"polypath.{module}")), **names_for(module, tmp_path)}
    for statement in ast.parse(EXAMPLES[module]).body:
        with contextlib.suppress(pp.deploy.BudgetError):  # the milliseconds in the example are of an idle machine
            exec(compile(ast.Module([statement], []), module, "exec"), names)
