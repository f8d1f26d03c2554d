from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import polypath as pp
from conftest import assert_close
from contracts.gated import undecided
from contracts.small import FORMS, fixed_paths, small_net
from polypath.cli import main
from polypath.deploy import check, onnx_graph
from polypath.deploy.bundle import Bundle
from polypath.deploy.export import export_path
from polypath.deploy.runtimes.torch_ import folded
from polypath.deploy.stepwise_write import write_stepwise
from polypath.deploy.write import HeldOut, write_bundle
from polypath.families.registry import get_preset

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


FIRST_OF_FAMILY = {get_preset(name).spec.family: name for name in reversed(FORMS)}.values()


@pytest.mark.parametrize(
    ("name", "paths"),
    [*((n, 1) for n in FIRST_OF_FAMILY), *(pytest.param(n, 2, marks=pytest.mark.slow) for n in FORMS)],
)
def test_paths_of_every_model_equal_eager(name, paths, tmp_path):
    """One or two choices in which no gate decides; benchmarks/exports.py has the result for all named paths."""
    net = small_net(name).eval()
    for text in fixed_paths(net)[-paths:]:
        if (graph := drawn(net, text)) in EXPORTED:
            continue  # models that differ in what this path leaves out
        EXPORTED.add(graph)
        done = export_path(net, text, tmp_path, "onnx", size=max(net.min_size, 16), name=text)
        assert {c.runtime for c in done.checks} >= {"onnxruntime"}


EXPORTED: set[str] = set()


def drawn(net, text: str) -> str:
    child = folded(pp.extract(net, text))
    return f"{child}{child.wiring}"


@pytest.fixture(scope="module")
def net():
    net = small_net("crescendonet_32").eval()
    net.config |= {
        "classes": tuple("abcde"),
        "normalisation": {"mean": [0.5] * 3, "std": [0.2] * 3},
        "image": {"size": [16, 16], "resize": "crop", "to": None},
    }
    return net


@pytest.mark.slow
def test_a_torch_file_runs_without_this_package(net, tmp_path):
    """Loading runs pickle, so only this test does it: in a process that cannot import polypath."""
    done = export_path(net, "branches=1", tmp_path, "torch")
    x = check.images(3, (3, 16, 16))
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['polypath'] = None\n"  # importing it is an error
        "program = torch.export.load(sys.argv[1])\n"
        "out = program.module()(torch.load(sys.argv[2]))\n"
        "assert not any(name.startswith('polypath.') for name in sys.modules)\n"
        "print(out.tolist())\n"
    )
    command = [sys.executable, "-I", "-c", code, str(done.files[0]), str(tmp_path / "x.pt")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    with torch.inference_mode():
        wanted = net(x, paths="branches=1")
    assert_close(torch.tensor(json.loads(ran.stdout.splitlines()[-1])), wanted)


def test_files_shrink_to_the_path_s_own_weights_and_norms_are_folded(net, tmp_path):
    onnx = pytest.importorskip("onnx")
    small = export_path(net, "branches=1", tmp_path / "a", "onnx")
    kinds = {node.op_type for node in onnx.load(small.files[0]).graph.node}
    assert "BatchNormalization" not in kinds
    assert "If" not in kinds
    params = pp.cost(net, "branches=1", 16).params
    assert small.bytes < 4 * params + 20_000
    whole = pp.cost(net, None, 16).params
    assert 4 * whole > 4 * params + 4000
    with pytest.raises(ValueError, match="exists"):
        export_path(net, "branches=1", tmp_path / "a", "onnx")


def test_openvino_s_files_equal_eager(net, tmp_path):
    pytest.importorskip("openvino")
    done = export_path(net, "branches=2", tmp_path, "openvino")
    assert [file.suffix for file in done.files] == [".xml", ".bin"]
    assert done.checks[0].max_abs < 1e-4 * float(net(check.images(3, (3, 16, 16)), paths="branches=2").abs().max())


def test_what_differs_is_refused_and_leaves_nothing(net, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "TOLERANCE", 1e-12)
    with pytest.raises(ValueError, match=r"is refused: .* differs from eager PyTorch by up to "):
        export_path(net, "branches=1", tmp_path / "a", "onnx")
    assert not (tmp_path / "a").exists()


def test_a_comparison_can_fail():
    net = torch.nn.Linear(3, 2)
    good = check.compare("itself", lambda x: net(torch.from_numpy(x)).detach().numpy(), net, (3,), "x")
    assert good.max_abs == 0.0
    for wrong in (
        lambda x: net(torch.from_numpy(x)).detach().numpy() + 1e-3,
        lambda x: np.full((len(x), 2), np.nan, np.float32),
        lambda x: np.zeros((len(x), 3), np.float32),
    ):
        with pytest.raises(ValueError, match="refused"):
            check.compare("other", wrong, net, (3,), "x")


def test_unknown_formats_are_refused(net, tmp_path):
    with pytest.raises(ValueError, match="must be one of"):
        export_path(net, "whole", tmp_path, "caffe")


def test_a_graph_that_chooses_is_refused():
    class Chooses(torch.nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    program = torch.export.export(Chooses(), (torch.ones(2, 3),))
    with pytest.raises(ValueError, match="'If', but control flow is not allowed"):
        onnx_graph.to_onnx(program, fold=False, name="x")


def test_a_bundle_is_written_checked_and_opened(net, tmp_path, caplog):
    caplog.set_level("INFO", "polypath.deploy")
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 3, 16, 16, generator=g), torch.randint(0, 5, (200,), generator=g)
    from polypath.core.recalibrate import recalibrate

    texts = ["branches=1", "branches=2"]
    stats = recalibrate(net, texts, [(x, y)], 200, seed=0)
    scored = HeldOut([(x, y)], [(x, y)], seed=np.int64(0))  # pyright: ignore[reportArgumentType]
    about = {"images": np.int64(200), "share": torch.tensor(0.5), "of": {"each": np.arange(2)}, np.int32(7): [True]}
    made = write_bundle(
        net, tmp_path / "b", texts, statistics=stats, held_out=scored, keep=texts, name="mine", about=about
    )
    again = Bundle.open(tmp_path / "b")
    assert again.digest == made.digest
    assert [p.name for p in again.paths] == texts
    assert all(p.statistics and p.error is not None and p.test_error is not None for p in again.paths)
    assert again.manifest.about["held_out"]["images"] == {"choose": 80, "calibrate": 40, "stop": 80}
    assert again.manifest.about["held_out"]["seed"] == 0
    told = {key: again.manifest.about[key] for key in ("images", "share", "of", "7")}
    assert told == {"images": 200, "share": 0.5, "of": {"each": [0, 1]}, "7": [True]}
    assert {row["runtime"] for row in again.manifest.checks} >= {"onnxruntime"}
    told = [record.message for record in caplog.records if record.name.startswith("polypath.deploy.")]
    assert told.count("scored 2 paths on 200 images") == 2  # held-out and test images
    assert len(told) == 2 + len(again.manifest.checks)
    loaded = pp.load(tmp_path / "b")  # a bundle is a saved network too
    assert torch.equal(loaded(x[:2]), net(x[:2]))
    with pytest.raises(ValueError, match="exists"):
        write_bundle(net, tmp_path / "b", texts)
    with pytest.raises(ValueError, match="the network's config does not state how images are prepared"):
        write_bundle(small_net("dr_resnet16_cifar").eval(), tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, np.array([1.0, np.inf])])
def test_facts_that_are_no_json_are_refused_before_any_work(value, net, tmp_path, monkeypatch):
    monkeypatch.setattr("polypath.deploy.candidates.costs", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=r"^about: give JSON values"):
        write_bundle(net, tmp_path / "b", about={"a": [value]})
    assert not list(tmp_path.iterdir())


def test_gates_are_exported_as_one_graph_and_what_skips_loops_is_told(tmp_path, caplog):
    caplog.set_level("INFO", "polypath.deploy.export")
    net, x = undecided("dr_resnet16_cifar")
    program = export_path(net, "whole", tmp_path, "torch", size=24).files[0]
    assert "polypath.deploy.write_stepwise, or polypath export --format onnx without --paths" in caplog.messages[0]
    assert callable(pp.deploy.write_stepwise)
    with torch.inference_mode():
        wanted = net(x)
        assert not torch.allclose(wanted, net(x, paths="loops=max"), atol=1e-3)  # some gates are shut
        assert_close(torch.export.load(program).module()(x), wanted, within=1e-4)


def test_a_runtime_that_cannot_load_a_file_is_told_and_left_out(net, tmp_path, monkeypatch, caplog):
    pytest.importorskip("openvino")

    def refuse(*_):
        raise ValueError("whole.onnx: OpenVINO cannot load it (a pool)")

    monkeypatch.setattr("polypath.deploy.runtimes.openvino_.compiled_many", refuse)
    done = export_path(net, "branches=1", tmp_path / "a", "onnx")
    assert [c.runtime for c in done.checks] == ["onnxruntime"]
    told = [record.getMessage() for record in caplog.records if record.name.startswith("polypath")]
    assert told == ["whole.onnx: OpenVINO cannot load it (a pool); other runtimes can load it"]
    monkeypatch.setattr("polypath.deploy.runtimes.onnxruntime_.make_session", refuse)
    with pytest.raises(ValueError, match="a pool"):
        export_path(net, "branches=1", tmp_path / "b", "onnx")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("missing", "formats"),
    [
        ("onnxscript", ["bundle", "onnx", "openvino", "steps"]),
        ("onnxruntime", ["steps"]),
        ("openvino", ["openvino"]),
        ("onnx", ["bundle", "onnx", "openvino", "steps", "triton"]),
    ],
)
def test_what_is_missing_is_told_before_any_work(missing, formats, net, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)

    def work(*_, **__):
        raise AssertionError("work was done")

    for place in ("export.extract", "candidates.costs", "stepwise_write.cut"):
        monkeypatch.setattr(f"polypath.deploy.{place}", work)
    monkeypatch.setattr("polypath.cli.export._opened", work)
    monkeypatch.setattr(Bundle, "open", work)
    calls = {
        "bundle": lambda: write_bundle(net, tmp_path / "b"),
        "onnx": lambda: export_path(net, "whole", tmp_path / "b"),
        "openvino": lambda: export_path(net, "whole", tmp_path / "b", "openvino"),
        "steps": lambda: write_stepwise(net, tmp_path / "b"),
    }
    wanted = rf"needs {missing}: pip install 'polypath\[deploy\]'"
    for name in formats:
        if name in calls:
            with pytest.raises(ImportError, match=wanted):
                calls[name]()
        if name != "steps":  # the command decides on steps when it has seen the network
            assert main(["export", str(tmp_path), "--format", name, "--out", str(tmp_path / "b")]) == 2
            assert re.search(wanted, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_without_a_runtime_no_file_can_be_checked(net, tmp_path, monkeypatch):
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: export_path(net, "whole", tmp_path / "b"), lambda: write_bundle(net, tmp_path / "b")):
        with pytest.raises(ImportError, match="onnxruntime or openvino"):
            call()
    assert not list(tmp_path.iterdir())
