"""The names of ``import polypath``: few, typed and fast to import; those of 0.1 work with a warning."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import polypath as pp
from conftest import ROOT
from polypath import _moved

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
HEAVY = ("pandas", "datasets", "sklearn", "onnx", "onnxruntime", "openvino", "gradio", "fastapi", "timm", "matplotlib")


def alone(code: str, *flags: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- names ---------------------------------------------------------------------------------------------------


def test_every_public_name_is_there_and_is_listed():
    assert sorted(pp.__all__) == dir(pp)
    assert len(set(pp.__all__)) == len(pp.__all__)
    for name in pp.__all__:
        value = getattr(pp, name)
        assert getattr(value, "__name__", name).rpartition(".")[2] == name
        assert value.__doc__


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_use_public_names_and_none_of_the_old_ones(page: Path):
    text = page.read_text()
    assert set(re.findall(r"\bpp\.([A-Za-z_]\w*)", text)) <= set(pp.__all__)
    assert not set(re.findall(r"(?:from|import) (polypath\.[\w.]+)", text)) & set(_moved.MODULES)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="module 'polypath' has no attribute 'creat_model'"):
        getattr(pp, "creat_model")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'creat_model'"):
        exec("from polypath import creat_model")
    with pytest.raises(ImportError, match="cannot import name 'macs_by_nod'"):
        exec("from polypath.cost import macs_by_nod")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("polypath.costs")


def test_submodules_are_importable_by_name():
    import polypath.profiling.cost as module
    import polypath.training.recipes as package

    assert module.cost is pp.cost
    assert package.get_recipe is pp.get_recipe


def test_importing_polypath_imports_what_it_needs_and_warns_of_nothing():
    code = f"import sys, json, polypath; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    assert json.loads(alone(code, "-W", "error::DeprecationWarning:polypath")) == []


def test_each_public_name_can_be_the_first_one_used():
    """Names that are imported on first use do not depend on others being used before."""
    code = f"import json, polypath as pp; print(json.dumps([getattr(pp, n) is not None for n in {pp.__all__[::-1]}]))"
    assert all(json.loads(alone(code)))


# --- names of 0.1 --------------------------------------------------------------------------------------------

KNOWN = {
    "polypath.analysis.draw": "draw_agreement",
    "polypath.analysis.recalibrate": "recalibrate",
    "polypath.analysis.drawing": "wiring_svg",
    "polypath.analysis.figures": "path_figure",
    "polypath.analysis.layout": "layout",
    "polypath.analysis.report.charts": "chart",
    "polypath.cards": "model_card",
    "polypath.cost": "macs_by_node",
    "polypath.data.feed": "evaluation_batches",
    "polypath.deploy.timing": "Timing",
    "polypath.deploy.profile": "measure",
    "polypath.dynamic": "loops_run",
    "polypath.expansion": "expand",
    "polypath.expected": "expected_loops",
    "polypath.files": "write_file",
    "polypath.layers.gunn_blocks": "Reads",
    "polypath.layers.gunn_fast": "algorithm1",
    "polypath.meta": "image_batch",
    "polypath.network": "NetBuilder",
    "polypath.paths": "Words",
    "polypath.plan": "make_plan",
    "polypath.registry": "get_preset",
    "polypath.reproduce.results": "load_result",
    "polypath.saving": "load",
    "polypath.serve.asks": "Ask",
    "polypath.serve.queue": "rehearse",
    "polypath.statistics": "Statistics",
    "polypath.training.files": "digest",
    "polypath.wiring": "Chain",
}
"""A name of each module of 0.1."""


def told(run: Callable[[], object]) -> tuple[object, list[warnings.WarningMessage]]:
    """The result and the warnings of ``run``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run()
    return result, [w for w in caught if issubclass(w.category, DeprecationWarning)]


def executed(code: str) -> tuple[dict[str, Any], warnings.WarningMessage]:
    """The names that two lines of code define, and the one warning, which points at the second line."""
    names: dict[str, Any] = {}
    _, caught = told(lambda: exec(compile(f"\n{code}", "a user's script", "exec"), names))
    (warning,) = caught
    assert (warning.filename, warning.lineno) == ("a user's script", 2)
    assert "the next release removes the old name" in str(warning.message)
    return names, warning


def test_a_name_of_every_old_module_is_known():
    assert KNOWN.keys() == _moved.MODULES.keys()


@pytest.mark.parametrize("module", KNOWN)
def test_old_modules_give_their_names_with_one_warning(module: str):
    name = KNOWN[module]
    names, warning = executed(f"from {module} import {name} as found")
    place = re.search(r"is now (polypath[\w.]+)", str(warning.message))
    assert place is not None
    new, _, attribute = place[1].rpartition(".")
    assert new in _moved.MODULES[module]
    assert names["found"] is getattr(importlib.import_module(new), attribute)


def test_old_modules_can_be_imported_in_every_way():
    """In one interpreter, which has imported none of them before."""
    lines = ["different = []"]
    for module in KNOWN:
        if module != "polypath.cost":  # it was hidden by the function
            package, _, name = module.rpartition(".")
            lines.append(f"import {module} as one; import {module}; from {package} import {name} as two")
            lines.append(f"if not one is two is {module}: different.append('{module}')")
    assert alone("\n".join([*lines, "print(different)"])) == "[]\n"


def test_polypath_cost_is_the_function_that_it_was():
    exec("import polypath.cost as c; assert c is cost", {"cost": pp.cost})
    exec("from polypath.cost import macs_by_node")
    assert callable(pp.cost)


@pytest.mark.parametrize("old", _moved.NAMES)
def test_old_names_are_found_under_their_new_ones(old: str):
    found = []
    for module in _moved.MODULES:
        moved = importlib.import_module(module) if module != "polypath.cost" else sys.modules[module]
        value, caught = told(lambda moved=moved: getattr(moved, old, None))
        if value is not None:
            found.append(value)
            assert [str(w.message).split(" is now ")[1].split(";")[0].rpartition(".")[2] for w in caught] == [
                _moved.NAMES[old]
            ]
    assert found


@pytest.mark.parametrize("name", _moved.TOP)
def test_old_names_of_the_top(name: str):
    names, warning = executed(f"from polypath import {name} as found")
    assert str(warning.message).startswith(f"polypath.{name} is now {_moved.TOP[name]}.{name};")
    assert names["found"] is getattr(importlib.import_module(_moved.TOP[name]), name)
    assert executed(f"import polypath; found = polypath.{name}")[0]["found"] is names["found"]


def test_old_methods_of_networks_and_wirings(tmp_path: Path):
    net = pp.create_model("crescendonet_32", widths=(4, 4), hidden=(8,), scale=2, seed=0)
    scope = {"net": net, "folder": tmp_path / "net"}
    warning = told(lambda: exec("\nnet.save_pretrained(folder)", scope))[1]
    assert [w.lineno for w in warning] == [2]
    assert "PathNet.save_pretrained is now polypath.save(net, folder)" in str(warning[0].message)
    assert pp.load(tmp_path / "net").wiring == net.wiring
    wiring = net.wiring
    for old, new in (("met", wiring.reachable), ("chains", lambda: list(wiring.routes()))):
        found, (one,) = told(lambda old=old: getattr(wiring, old)())
        assert (list(found) if old == "chains" else found) == new()  # pyright: ignore[reportArgumentType] (an iterator)
        assert one.filename == __file__
    fused = pp.create_model("fusenet_nf3_14", seed=0).wiring
    expanded, (one,) = told(lambda: fused.expand())  # pyright: ignore[reportAttributeAccessIssue] (of 0.1)
    assert "polypath.core.expansion.expand(wiring)" in str(one.message)
    assert isinstance(expanded, pp.Wiring)


def test_push_to_hub_is_a_method_still(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("polypath.storage.hub.push_to_hub", lambda net, repo: asked.append((net, repo)))
    net: Any = pp.create_model("crescendonet_32", widths=(4, 4), hidden=(8,), scale=2, seed=0)
    _, (warning,) = told(lambda: net.push_to_hub("me/net"))
    assert asked == [(net, "me/net")]
    assert "polypath.push_to_hub(net, repo_id)" in str(warning.message)


OLD_FAMILY = """
from dataclasses import dataclass
from torch import nn
import polypath as pp
from polypath.families.crescendonet import CrescendoNet

@dataclass(frozen=True, kw_only=True)
class Old(CrescendoNet):
    def draw(self, b):
        return super().draw(b)

    def words(self):
        return super().words() | {"first": lambda wiring, value: {"block1.join": [value]}}

    def names(self):
        return [*super().names(), "first=1"]
"""


def test_a_users_family_of_old_methods_still_works():
    scope: dict[str, Any] = {"__name__": "users"}
    _, caught = told(lambda: exec(compile(OLD_FAMILY, "users.py", "exec"), scope))
    line = OLD_FAMILY[: OLD_FAMILY.index("class Old")].count("\n") + 1
    assert [(w.filename, str(w.message).split(";")[0]) for w in caught] == [
        ("users.py", f"Old.{old} is now {new}")
        for old, new in (("draw", "build_graph"), ("words", "selectors"), ("names", "path_names"))
    ]
    assert {w.lineno for w in caught} <= {line, line - 1}  # of the class, or of its decorator
    family = scope["Old"](widths=(4, 4), hidden=(8,), scale=2)
    net, caught = told(lambda: family.build(seed=0))
    assert isinstance(net, pp.PathNet)
    assert net(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
    inherited = pp.create_model("crescendonet_32", widths=(4, 4), hidden=(8,), scale=2).named_paths()
    assert list(net.named_paths()) == [*inherited, "first=1"]
    assert {w.filename for w in caught} == {"users.py"}  # its calls of what it inherits
    for old, new in (("names", "path_names"), ("words", "selectors")):
        plain: Any = type(family).__mro__[1](widths=(4, 4), hidden=(8,), scale=2)
        found, (warning,) = told(lambda plain=plain, old=old: getattr(plain, old)())
        assert repr(found) == repr(getattr(plain, new)())
        assert (warning.filename, f"family.{new}()" in str(warning.message)) == (__file__, True)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: pp.create_model(cast(Any, 3)), "model = 3: must be a name"),
        (lambda: pp.create_model("crescendonet_32", num_classes="4"), r"num_classes = '4': must be a whole number"),
        (lambda: pp.create_model("crescendonet_32", seed=cast(Any, "a")), "seed = 'a': must be a whole number"),
        (lambda: pp.get_recipe(cast(Any, 3)), "recipe = 3: must be a name"),
    ],
)
def test_values_of_another_type_are_refused_by_name(call, told):
    with pytest.raises(ValueError, match=told):
        call()


# --- wrong types ---------------------------------------------------------------------------------------------

NUMBER, LIST, OTHER = 3, ["x", 7], object()
TEXT, NETWORK = (NUMBER, None, LIST, OTHER), (NUMBER, None, LIST, OTHER, "word")
OPTIONAL_TEXT, STATISTICS, FLAG = (NUMBER, LIST, OTHER), (NUMBER, LIST, OTHER, "word"), (NUMBER, None, LIST, "word")
PATHS, SEVERAL_PATHS = (NUMBER, LIST, OTHER), (NUMBER, None, OTHER, "word")
COUNT, OPTIONAL_COUNT, LISTS = ("word", None, LIST, 2.5), ("word", LIST, 2.5), (NUMBER, None, OTHER)
CALLS: dict[str, tuple[tuple[str, ...], dict[str, tuple[Any, ...]]]] = {
    "AnytimePredictor": (
        (),
        {"bundle": OPTIONAL_TEXT, "runtime": TEXT, "threads": OPTIONAL_COUNT, "precision": TEXT, "limits": NETWORK},
    ),
    "Ensemble": (
        ("net", "paths"),
        {
            "net": NETWORK,
            "paths": SEVERAL_PATHS,
            "weights": TEXT,
            "stats": STATISTICS,
            "seed": OPTIONAL_COUNT,
        },
    ),
    "cost": (("net",), {"net": NETWORK, "paths": PATHS, "size": (None, "word", 2.5), "batch_size": COUNT}),
    "count_paths": (("net",), {"net": NETWORK, "paths": PATHS}),
    "create_model": (("name",), {"name": TEXT, "seed": OPTIONAL_COUNT}),
    "depth_distribution": (("net",), {"net": NETWORK, "paths": PATHS}),
    "evaluation_batches": (
        ("data", "config", "batch_size"),
        {"data": NETWORK, "config": NETWORK, "batch_size": COUNT, "part": TEXT},
    ),
    "export_path": (
        ("net", "path", "folder"),
        {
            "net": NETWORK,
            "paths": PATHS,
            "folder": TEXT,
            "format": TEXT,
            "stats": STATISTICS,
            "size": ("word", 2.5),
            "name": OPTIONAL_TEXT,
        },
    ),
    "extract": (("net", "path"), {"net": NETWORK, "paths": PATHS, "stats": STATISTICS}),
    "fuse": (("net",), {"net": NETWORK, "paths": PATHS, "siblings": TEXT, "hold": FLAG}),
    "get_recipe": (("name",), {"name": TEXT}),
    "latency": (("net",), {"net": NETWORK, "paths": PATHS, "size": (None, "word", 2.5), "batch_size": COUNT}),
    "list_models": ((), {"pattern": TEXT}),
    "load": (("folder",), {"source": TEXT, "revision": OPTIONAL_TEXT, "device": TEXT}),
    "load_images": (("config",), {"config": NETWORK, "progress": STATISTICS, "accept": STATISTICS, "quiet": FLAG}),
    "push_to_hub": (
        ("net", "name"),
        {
            "net": NETWORK,
            "repo_id": TEXT,
            "private": (NUMBER, LIST, "word"),
            "token": OPTIONAL_TEXT,
            "commit_message": TEXT,
        },
    ),
    "recalibrate": (
        ("net", "paths", "batches"),
        {
            "net": NETWORK,
            "paths": SEVERAL_PATHS,
            "batches": LISTS,
            "num_images": COUNT,
            "seed": OPTIONAL_COUNT,
        },
    ),
    "resume": (
        ("folder",),
        {
            "run_dir": TEXT,
            "epochs": OPTIONAL_COUNT,
            "data": STATISTICS,
            "data_moved": OPTIONAL_TEXT,
            "quiet": FLAG,
        },
    ),
    "save": (
        ("net", "folder"),
        {
            "net": NETWORK,
            "folder": TEXT,
            "overwrite": FLAG,
            "classes": (NUMBER, LIST, OTHER),
            "mean": (NUMBER, LIST, OTHER),
            "std": (NUMBER, LIST, OTHER),
            "image_size": ("word", 2.5),
            "resize": (NUMBER, LIST, OTHER),
            "resize_to": OPTIONAL_COUNT,
            "path_table": LISTS,
            "licence": TEXT,
            "dataset": OPTIONAL_TEXT,
            "notes": (*LISTS, "word", LIST),
        },
    ),
    "train": (
        ("recipe", "folder"),
        {"recipe": NETWORK, "run_dir": TEXT, "data": STATISTICS, "data_moved": OPTIONAL_TEXT, "quiet": FLAG},
    ),
    "training_batches": (
        ("data", "config", "batch_size", "seed"),
        {"data": NETWORK, "config": NETWORK, "batch_size": COUNT, "seed": COUNT},
    ),
    "write_bundle": (
        ("net", "folder"),
        {
            "net": NETWORK,
            "folder": TEXT,
            "paths": (NUMBER, OTHER, "word"),
            "statistics": STATISTICS,
            "held_out": STATISTICS,
            "keep": (*LISTS, "word", LIST),
            "name": OPTIONAL_TEXT,
            "about": (NUMBER, LIST, OTHER, "word"),
            "notes": (*LISTS, "word", LIST),
            "measure": LISTS,
            "precision": (*TEXT, "int4"),
            "max_drop": ("word", OTHER, -1.0),
            "calibration": STATISTICS,
        },
    ),
}
"""For each public function and class that users instantiate: its arguments, and wrong values of each argument."""
SAYS = {("create_model", "name"): "model", ("get_recipe", "name"): "recipe"}
"""The word for an argument in messages, if it is not the argument's name."""


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, Any]:
    config = pp.DataConfig(validation=60, train_images=160, cache=False)
    net = pp.create_model("resnet20_cifar").eval()
    pictures = [(torch.zeros(2, 3, 32, 32), torch.zeros(2))]
    place = tmp_path_factory.mktemp("wrong") / "there"
    return {
        "net": net,
        "path": "whole",
        "paths": ["whole"],
        "folder": place,
        "name": "crescendonet-digits",
        "recipe": pp.get_recipe("crescendonet-digits"),
        "data": pp.load_images(config),
        "config": config,
        "batch_size": 8,
        "batches": pictures,
        "seed": 0,
    }


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_named(name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """In one line, before anything is read, written or sent."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    function: Any = getattr(pp, name)
    needed, arguments = CALLS[name]
    parameters = list(inspect.signature(function).parameters)
    for argument, wrong in arguments.items():
        for value in wrong:
            call = {parameter: given[key] for parameter, key in zip(parameters, needed, strict=False)}
            if name == "training_batches":
                call["seed"] = 0
            with pytest.raises((TypeError, ValueError)) as error:
                function(**(call | {argument: value}))
            told = str(error.value)
            assert re.search(rf"\b{SAYS.get((name, argument), argument)}\b", told), (argument, value, told)
            assert "object has no attribute" not in told
    assert not given["folder"].exists()


def test_every_public_function_is_in_that_table():
    made = (pp.Bundle, pp.Cost, pp.DataConfig, pp.Family, pp.Latency, pp.Paths, pp.Recipe, pp.Trace, pp.Wiring)
    built = (pp.NetBuilder, pp.PathNet)  # what a family's author calls
    values = {name: getattr(pp, name) for name in pp.__all__}
    calls = {name for name, value in values.items() if callable(value) and value not in made + built}
    assert calls == CALLS.keys()
    for name, (_, arguments) in CALLS.items():
        kinds = inspect.signature(values[name]).parameters.values()
        every = {p.name for p in kinds if p.kind is not p.VAR_KEYWORD}
        assert every - arguments.keys() <= {"profile"}  # which test_predictor.py has


def test_the_package_has_its_version():
    assert pp.__version__ == metadata.version("polypath")
