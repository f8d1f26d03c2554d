"""Bundles with paths in int8: written, chosen from, kept apart by the processor's instructions."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import polypath as pp
from deploy.int8 import PATHS, calibration, held_out, small_net, weights_only
from deploy.test_bundle import rewrite
from deploy.test_graph_check import sealed
from polypath.cli import main
from polypath.core.extras import installed
from polypath.deploy import (
    AnytimePredictor,
    Bundle,
    BundleNetwork,
    latency_profile,
    needs,
    write_bundle,
    write_networks,
)
from polypath.deploy import int8 as int8_paths
from polypath.deploy import precision as precisions
from polypath.deploy.bundle import SHIPPED
from polypath.deploy.graph_check import GraphRefused
from polypath.deploy.quantise import Calibration
from polypath.deploy.runtimes import open_runtime
from polypath.profiling.instructions import instructions, kind_of
from training.tiny import tiny

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
RUNTIMES = [name for name in ("onnxruntime", "openvino") if installed(name)]


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Weights in int8 in place of NNCF; graphs in int8 take half of the time."""

    def measure(tasks: Any, seconds: float | None = None) -> dict[str, list[float]]:
        return {n: [(0.5 if n.endswith("@int8") else 1.0) * (1 if "branches" in n else 2)] * 50 for n in tasks}

    patch.setattr(int8_paths, "check_installed", lambda format: None)
    patch.setattr(int8_paths, "quantised", weights_only)
    patch.setattr("polypath.deploy.quantise.version_of", lambda package: "0")
    patch.setattr(latency_profile, "measure", measure)


def write(place: Path, precision: str, paths: Sequence[str] = PATHS, **options: Any) -> Bundle:
    net = small_net()
    options = {"held_out": held_out(net), "calibration": calibration(), "keep": list(paths), "max_drop": 5.0} | options
    return write_bundle(net, place, paths, precision=precision, **options)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def stood_in(monkeypatch) -> None:
    stand_in(monkeypatch)


@pytest.fixture(scope="module")
def written(tmp_path_factory, one_registry) -> dict[str, Bundle]:
    """The same network as bundles of each kind."""
    place = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        return {kind: write(place / kind, kind) for kind in ("int8", "mixed")}


@pytest.fixture
def whole(written) -> Bundle:
    return written["int8"]


@pytest.fixture
def mixed(written) -> Bundle:
    return written["mixed"]


@pytest.fixture
def copied(whole, tmp_path) -> Bundle:
    """A copy of a bundle in int8, to be damaged."""
    return Bundle.open(shutil.copytree(whole.folder, tmp_path / "copied"))


def answers(bundle: Bundle, path: str, runtime: str) -> np.ndarray:
    x = held_out(bundle.net).choose[0][0].numpy()  # pyright: ignore[reportIndexIssue]
    return np.asarray(open_runtime(runtime, bundle).prepare(path, len(x))(x))


def test_paths_in_int8_stand_in_place_of_float(whole):
    bundle = whole
    values = json.loads((bundle.folder / "manifest.json").read_text())
    assert values["format_version"] == 2
    assert "networks" not in values
    assert [path.name for path in bundle.paths] == ["branches=1@int8", "whole@int8"]
    assert all((path.precision, path.error, path.test_error) == ("int8", None, None) for path in bundle.paths)
    found = bundle.path("whole@int8").errors_with(instructions())
    assert found is not None
    assert found.error is not None
    assert found.test_error is not None
    assert found.error < 40
    assert [rung.path for rung in bundle.ladder] == ["branches=1@int8", "whole@int8"]
    assert all(rung.step is None for rung in bundle.ladder)
    assert {file.name for file in bundle.folder.glob("*.onnx")} == {"branches=1.int8.onnx", "whole.int8.onnx"}
    assert values["about"]["int8"]["calibration"] == {"images": 64, "seed": 2, "nncf": "0"}
    rows = [row for row in values["checks"] if row["path"] == "whole@int8"]
    assert {row["runtime"] for row in rows} == set(RUNTIMES)
    assert all(row["agreement"] > 0.95 for row in rows)
    assert f"int8 ({instructions()})" in (bundle.folder / "README.md").read_text()
    assert Bundle.open(bundle.folder).manifest == bundle.manifest


def test_both_runtimes_answer_alike_and_near_float(mixed):
    bundle = mixed
    found = {runtime: answers(bundle, "whole@int8", runtime) for runtime in RUNTIMES}
    plain = answers(bundle, "whole", "onnxruntime")
    for logits in found.values():
        assert (logits.argmax(1) == plain.argmax(1)).mean() > 0.95
        assert not np.array_equal(logits, plain)
        assert (logits.argmax(1) == found["onnxruntime"].argmax(1)).mean() >= int8_paths.AGREEMENT


def test_a_mixed_bundle_has_both_and_climbs_by_float(mixed, stood_in, caplog):
    bundle = mixed
    assert {path.name for path in bundle.paths} == {"branches=1", "branches=1@int8", "whole", "whole@int8"}
    assert [rung.path for rung in bundle.ladder] == ["branches=1", "whole"]
    with caplog.at_level(logging.INFO, "polypath"):
        predictor = AnytimePredictor(bundle, "onnxruntime")
    assert "left out" not in caplog.text
    errors = {path.name: path.error for path in predictor.bundle.paths}
    assert None not in errors.values()
    assert predictor.choose(1.5) == "whole@int8"  # a float path takes 2 ms
    assert predictor.choose(3.0) == min(errors, key=lambda name: errors[name] or 0.0)
    assert bundle.path(bundle.path("whole").text).name == "whole"  # float, where the text is asked for
    assert len(predictor.predict_confident(np.zeros((2, 16, 16, 3), np.uint8), risk=0.6, trust=0.5).paths) == 2


@pytest.mark.slow
def test_int8_that_is_not_worth_its_time_leaves_the_bundle_as_it_is(stood_in, monkeypatch, tmp_path):
    plain = write(tmp_path / "plain", "float32")

    def slow(tasks: Any, seconds: float | None = None) -> dict[str, list[float]]:
        return {n: [2.0 if n.endswith("@int8") else 1.0] * 50 for n in tasks}

    monkeypatch.setattr(latency_profile, "measure", slow)
    mixed = write(tmp_path / "mixed", "mixed")
    for file in plain.folder.iterdir():
        there = (mixed.folder / file.name).read_bytes()
        if file.name == "manifest.json":
            values, others = json.loads(file.read_bytes()), json.loads(there)
            for differs in ("name", "digest"):
                del values[differs], others[differs]
            assert values == others
            assert values["format_version"] == 1
        else:
            assert there == file.read_bytes()


def halved(model: Any, calibration: Calibration) -> Any:
    """Damaged weights: an answer is another."""
    made = weights_only(model, calibration)
    for tensor in made.graph.initializer:
        if tensor.name.endswith("_int8"):
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[: len(array) // 2] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return made


def test_what_loses_too_much_stays_in_float(stood_in, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(int8_paths, "quantised", halved)
    with caplog.at_level(logging.INFO, "polypath"):
        bundle = write(tmp_path / "bundle", "int8", ["whole"], max_drop=0.5)
    assert [(path.name, path.precision) for path in bundle.paths] == [("whole", "f32")]
    assert "whole stays in float32: int8 loses more than 0.5 points" in caplog.text
    assert [path.name for path in write(tmp_path / "any", "int8", ["whole"], max_drop=100).paths] == ["whole@int8"]


@pytest.mark.slow
def test_where_runtimes_disagree_the_path_stays_in_float(stood_in, tmp_path, monkeypatch, caplog):
    if len(RUNTIMES) < 2:
        pytest.skip("one runtime agrees with itself")
    monkeypatch.setattr(int8_paths, "AGREEMENT", 1.01)
    with caplog.at_level(logging.INFO, "polypath"):
        bundle = write(tmp_path / "bundle", "int8", ["whole"])
    assert all(path.precision == "f32" for path in bundle.paths)
    assert "the runtimes agree on only 100.0% of int8 answers" in caplog.text


def test_on_another_kind_of_machine_auto_leaves_int8_out(mixed, whole, stood_in, monkeypatch, caplog):
    monkeypatch.setattr(precisions, "instructions", lambda: "amx")
    with caplog.at_level(logging.INFO, "polypath"):
        predictor = AnytimePredictor(mixed, "onnxruntime")
    assert {path.name for path in predictor.bundle.paths} == {"branches=1", "whole"}
    assert "paths branches=1@int8, whole@int8 are left out: their errors are not known" in caplog.text
    assert f"this machine's instructions (amx; known: {instructions()})" in caplog.text
    assert {path.precision for path in AnytimePredictor(mixed, "onnxruntime", precision="int8").bundle.paths} == {
        "int8"
    }
    with pytest.raises(ValueError, match=r"the errors of all paths of .* are unknown with .*\(amx; .*precision 'int8'"):
        AnytimePredictor(whole, "onnxruntime")
    taken = AnytimePredictor(whole, "onnxruntime", precision="int8")
    assert all(path.error is None for path in taken.bundle.paths)
    assert taken.predict(np.zeros((16, 16, 3), np.uint8)).path == "whole@int8"


def test_a_part_of_the_ladder_has_no_held_out_answers(whole, stood_in):
    bundle = whole.with_paths(["whole@int8"])
    with pytest.raises(ValueError, match="no held-out answers of these paths"):
        AnytimePredictor(bundle, "onnxruntime").predict_confident(np.zeros((16, 16, 3), np.uint8))


def test_signals_are_handled_after_openvino_compiled_int8(mixed):
    """It leaves a stack for signals whose memory is freed: SIGTERM was a segmentation fault."""
    pytest.importorskip("openvino")
    answers(mixed, "whole@int8", "openvino")
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM]


def test_torch_runs_float_only(mixed, whole, stood_in, caplog):
    with caplog.at_level(logging.INFO, "polypath"):
        assert len(AnytimePredictor(mixed, "torch").bundle.paths) == 2
    assert "paths in int8 are left out: torch cannot run them" in caplog.text
    with pytest.raises(ValueError, match="'whole@int8' is in int8, but runtime 'torch' runs only float32"):
        open_runtime("torch", mixed).prepare("whole@int8", 1)
    for precision in ("auto", "int8"):
        with pytest.raises(ValueError, match="runtime torch cannot run int8 paths"):
            AnytimePredictor(whole, "torch", precision=precision)
    with pytest.raises(ValueError, match=r"precision 'f32': .* has only paths in int8"):
        AnytimePredictor(whole, "onnxruntime", precision="f32")


def test_a_bundle_without_int8_says_so(bundle):
    with pytest.raises(ValueError, match="has no paths in int8; `polypath export --precision int8` writes them"):
        AnytimePredictor(bundle, "onnxruntime", precision="int8")
    with pytest.raises(ValueError, match="precision = 'int4': must be one of auto, f32, bf16, int8"):
        AnytimePredictor(bundle, "onnxruntime", precision="int4")


@pytest.mark.slow
def test_several_networks_each_have_their_own(tmp_path, stood_in):
    networks = {
        name: BundleNetwork(net, PATHS, None, held_out(small_net()), calibration=calibration())
        for name, net in (("a", small_net()), ("b", small_net(1)))
    }
    bundle = write_networks(networks, tmp_path / "two", precision="mixed", max_drop=100)
    assert "a:whole@int8" in {path.name for path in bundle.paths}
    assert bundle.path("a:whole@int8").files == {"onnx": "a/whole.int8.onnx"}
    assert set(bundle.manifest.about["int8"]["calibration"]) == {"a", "b"}
    assert len(AnytimePredictor(bundle, "onnxruntime").bundle.paths) == len(bundle.paths)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"calibration": None}, "precision 'int8' needs training images for calibration"),
        ({"held_out": None}, "precision 'int8' needs held-out images"),
        ({"precision": "int4"}, "precision = 'int4': must be one of float32, int8, mixed"),
        ({"max_drop": -1.0}, "max_drop = -1.0: must be a number in"),
        ({"max_drop": float("nan")}, "max_drop = nan"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(stood_in, tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        write(tmp_path / "bundle", options.pop("precision", "int8"), **options)
    assert list(tmp_path.glob("bundle*")) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"error": 5.0}, "'whole@int8' in int8 must state its errors by kind"),
        ({"test_error": 5.0}, "'whole@int8' in int8 must state its errors by kind"),
        ({"files": {}}, "'whole@int8' in int8 has no ONNX graph"),
        ({"precision": "int4"}, "precision"),
        ({"errors": {"avx2": {"error": 101}}}, "error"),
    ],
)
def test_damaged_precisions_are_refused(copied, change, told):
    bundle = copied
    rewrite(bundle.folder, lambda values: values["paths"][-1].update(change))
    with pytest.raises(ValueError, match=told):
        Bundle.open(bundle.folder)


def test_format_1_has_no_int8(copied):
    bundle = copied
    rewrite(bundle.folder, lambda values: values.update(format_version=1))
    with pytest.raises(ValueError, match="format_version 1 must have only one network in f32"):
        Bundle.open(bundle.folder)


def test_a_path_in_int8_has_no_step(copied):
    bundle = copied
    rewrite(bundle.folder, lambda values: values["ladder"][0].update(step={"reads": ["input"]}))
    with pytest.raises(ValueError, match="'branches=1@int8' in int8 cannot have a step"):
        Bundle.open(bundle.folder)


def test_bf16_is_not_emulated(bundle, monkeypatch):
    monkeypatch.setattr(precisions, "has_bf16", lambda: False)
    with pytest.raises(ValueError, match="precision 'bf16': this processor has no bf16 instructions"):
        AnytimePredictor(bundle, "torch", precision="bf16")
    monkeypatch.setattr(precisions, "has_bf16", lambda: True)
    assert precisions.usable(bundle, "bf16", ["torch"]) == (bundle, ["torch"], "")


def test_instructions_are_those_of_the_best_kind():
    assert kind_of({"sse2", "avx2", "fma"}) == "avx2"
    assert kind_of({"avx2", "avx_vnni"}) == "avx_vnni"
    assert kind_of({"avx2", "avx512f", "avx512bw"}) == "avx512"
    assert kind_of({"avx2", "avx512bw", "avx512_vnni", "avx_vnni"}) == "avx512_vnni"
    assert kind_of({"avx512bw", "avx512_vnni", "amx_int8"}) == "amx"
    assert kind_of({"sse2"}) == "other"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max-drop", "1"], "--max-drop 1: is only allowed with --precision int8 or mixed"),
        (["--calibration-images", "9"], "--calibration-images 9: is only allowed with --precision int8 or mixed"),
        (
            ["--precision", "int8", "--format", "onnx"],
            "--precision int8: is only allowed for a bundle; --format onnx writes float32",
        ),
        (["--precision", "int4"], "invalid choice: 'int4'"),
        (["--precision", "int8", "--max-drop", "101"], "'101' is not a number in [0, 100]"),
        (["--precision", "mixed"], "precision 'mixed' needs training images for calibration: export a run"),
    ],
)
def test_the_command_says_what_does_not_go(stood_in, options, told, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(needs._NEEDS, "int8", ())
    assert main(["export", str(SHIPPED), "--out", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_is_exported_in_int8_and_answers(stood_in, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(needs._NEEDS, "int8", ())
    pp.train(tiny(epochs=1), tmp_path / "run", quiet=True)
    options = ["--precision", "mixed", "--max-drop", "100", "--calibration-images", "40", "--keep", "--measure", "1"]
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out"), *options]) == 0
    told = capsys.readouterr().out
    assert f"errors in int8 were measured with {instructions()} instructions" in told
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.manifest.about["int8"]["calibration"]["images"] == 40
    assert {path.precision for path in bundle.paths} == {"f32", "int8"}
    rows = [row for row in bundle.manifest.latency if row.get("precision") == "int8"]
    assert {row["runtime"] for row in rows} == set(RUNTIMES)
    Image.new("L", (8, 8), 200).save(tmp_path / "digit.png")
    name = next(path.name for path in bundle.paths if path.precision == "int8")
    ask = ["predict", str(tmp_path / "out"), str(tmp_path / "digit.png"), "--path", name, "--json"]
    assert main([*ask, "--runtime", "onnxruntime"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == name
    assert main([*ask, "--precision", "f32"]) == 2
    assert "not in this bundle" in capsys.readouterr().err


# --- graphs of others -------------------------------------------------------------------------------------


def changed(bundle: Bundle, change: Callable[[Any], None]) -> None:
    """Change the graph of the whole, and the manifest's facts of it."""
    file = bundle.folder / "whole.int8.onnx"
    model = onnx.load(file)
    change(model.graph)
    file.write_bytes(model.SerializeToString())
    sealed(bundle.folder)


def tensor(graph: Any, ending: str) -> Any:
    return next(tensor for tensor in graph.initializer if tensor.name.endswith(ending))


def valued(*values: float) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        scale = tensor(graph, "_scale")
        array = np.asarray(values[0] if len(values) == 1 else values, np.float32)
        scale.CopyFrom(onnx.numpy_helper.from_array(array, scale.name))

    return change


def per_channel(axis: int | None, count: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        node = next(node for node in graph.node if node.op_type == "DequantizeLinear")
        values = {node.input[1]: np.ones(count, np.float32), node.input[2]: np.zeros(count, np.int8)}
        for held in [held for held in graph.initializer if held.name in values]:
            held.CopyFrom(onnx.numpy_helper.from_array(values[held.name], held.name))
        if axis is not None:
            node.attribute.append(onnx.helper.make_attribute("axis", axis))

    return change


def without_zero_point(graph: Any) -> None:
    del next(node for node in graph.node if node.op_type == "DequantizeLinear").input[2]


def computed_scale(graph: Any) -> None:
    node = next(node for node in graph.node if node.op_type == "DequantizeLinear")
    graph.node.insert(0, onnx.helper.make_node("Identity", [node.input[1]], ["computed"]))
    next(node for node in graph.node if node.op_type == "DequantizeLinear").input[1] = "computed"


def blocks(graph: Any) -> None:
    node = next(node for node in graph.node if node.op_type == "DequantizeLinear")
    node.attribute.append(onnx.helper.make_attribute("block_size", 4))


def wide_zero_point(graph: Any) -> None:
    zero = tensor(graph, "_zero")
    zero.CopyFrom(onnx.numpy_helper.from_array(np.asarray(0, np.int64), zero.name))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (valued(float("nan")), "not a finite number above 0"),
        (valued(float("inf")), "not a finite number above 0"),
        (valued(0.0), "not a finite number above 0"),
        (valued(-0.1), "not a finite number above 0"),
        (valued(1e31), "not a finite number above 0"),
        (valued(0.1, 0.2), r"scales of shape \[2\] and zero points of shape \[\]"),
        (per_channel(0, 3), "3 scales, which do not fit axis 0 of"),
        (per_channel(7, 8), "8 scales, which do not fit axis 7 of"),
        (without_zero_point, "must have a scale and a zero point"),
        (computed_scale, "must have a scale and a zero point"),
        (blocks, "'block_size', which is not allowed|shapes in the graph do not fit"),
        (wide_zero_point, "a zero point of type 7|shapes in the graph do not fit"),
    ],
)
def test_damaged_scales_are_refused(copied, change, told):
    bundle = copied
    changed(bundle, change)
    with pytest.raises(GraphRefused, match=told):
        open_runtime("onnxruntime", Bundle.open(bundle.folder)).prepare("whole@int8", 1)


def test_a_scale_for_each_channel_is_taken(copied):
    bundle = copied
    changed(bundle, per_channel(0, 8))
    assert answers(Bundle.open(bundle.folder), "whole@int8", "onnxruntime").shape == (200, 3)


# --- NNCF itself ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nncf_writes_a_small_graph_that_answers_as_float_does(tmp_path):
    pytest.importorskip("nncf")
    net = small_net()
    options: dict[str, Any] = {"held_out": held_out(net), "calibration": calibration(), "max_drop": 5.0}
    bundle = write_bundle(net, tmp_path / "bundle", ["whole"], precision="int8", **options)
    assert [path.name for path in bundle.paths] == ["whole@int8"]
    graph = onnx.load(bundle.folder / "whole.int8.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    weights = [tensor for tensor in graph.initializer if len(tensor.dims) == 4]
    assert weights
    assert all(tensor.data_type == onnx.TensorProto.INT8 for tensor in weights)
    largest = max(int(np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max()) for tensor in weights)
    assert largest <= 64  # half of the range: no sum of two products overflows 16 bits
    found = {runtime: answers(bundle, "whole@int8", runtime).argmax(1) for runtime in RUNTIMES}
    x = held_out(net).choose[0][0]  # pyright: ignore[reportIndexIssue]
    wanted = net(x).detach().numpy().argmax(1)
    for labels in found.values():
        assert (labels == wanted).mean() > 0.93
        assert (labels == found["onnxruntime"]).mean() >= int8_paths.AGREEMENT


def test_without_nncf_export_says_what_to_install(tmp_path):
    if installed("nncf"):
        pytest.skip("nncf is here")
    net = small_net()
    with pytest.raises(ImportError, match=r"needs nncf: pip install 'polypath\[quantize\]'"):
        write_bundle(net, tmp_path / "bundle", precision="int8", held_out=held_out(net), calibration=calibration())
