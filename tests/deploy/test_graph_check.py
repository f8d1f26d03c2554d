"""Graphs of unknown origin: refused before a runtime loads them, or run as the manifest says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.small import FORMS, small_net
from polypath.cli import main
from polypath.deploy import check, onnx_graph
from polypath.deploy import manifest as manifests
from polypath.deploy.bundle import SHIPPED, Bundle
from polypath.deploy.graph_check import IMAGES, LOGITS, GraphRefused, Value, check_graph
from polypath.deploy.graph_sizes import sizes_of
from polypath.deploy.predictor import AnytimePredictor
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.triton import write_repository
from polypath.families.registry import get_preset

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

WEIGHTS = (SHIPPED / "model.safetensors").stat().st_size

GRAPH = "column=1.onnx"
FIRST_OF_FAMILY = {get_preset(name).spec.family: name for name in reversed(FORMS)}.values()


def sealed(folder: Path) -> None:
    """Give the manifest the files' facts and a digest that fits, as the bundle's author could."""
    file = folder / manifests.NAME
    values = json.loads(file.read_text())
    for name in values["files"]:
        data = (folder / name).read_bytes()
        values["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    file.write_text(json.dumps(values | {"digest": manifests.digest(values)}))


def rewritten(folder: Path, change) -> None:
    """Change the graph of the first path."""
    model = onnx.load(folder / GRAPH, load_external_data=False)
    change(model)
    (folder / GRAPH).write_bytes(model.SerializeToString())
    sealed(folder)


def external(model):
    """The first weight that is stored in another file."""
    return next(tensor for tensor in model.graph.initializer if tensor.external_data)


def place(**changes):
    """Change where the first weight is read from; None takes an entry out."""

    def change(model):
        tensor = external(model)
        entries = {entry.key: entry.value for entry in tensor.external_data} | changes
        del tensor.external_data[:]
        for key, value in entries.items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)

    return change


def node(op, inputs, outputs, domain="", **options):
    return onnx.helper.make_node(op, inputs, outputs, domain=domain, **options)


def before_all(*nodes):
    """Nodes before the graph's own, the last of which gives ``images`` under another name."""

    def change(model):
        for old in model.graph.node:
            for i, name in enumerate(old.input):
                if name == IMAGES:
                    old.input[i] = nodes[-1].output[0]
        kept = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *kept])

    return change


def constant(name, values, kind=None):
    array = np.asarray(values, kind or np.int64)
    return node("Constant", [], [name], value=onnx.numpy_helper.from_array(array))


def looped(model):
    body = onnx.helper.make_graph([], "body", [], [])
    before_all(node("Loop", [IMAGES], ["x"], body=body))(model)


def hidden_graph(model):
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("then_branch", body))


def function(model):
    imports = [onnx.helper.make_opsetid("", 20)]
    model.functions.append(onnx.helper.make_function("mine", "f", ["x"], ["y"], [node("Relu", ["x"], ["y"])], imports))


def fewer(model):
    """5 logits where the manifest has 10 classes, and the graph says 10."""
    last = model.graph.node[-1]
    last.output[0] = "all"
    model.graph.node.extend(
        [
            constant("from", [0]),
            constant("to", [5]),
            constant("axis", [1]),
            node("Slice", ["all", "from", "to", "axis"], [LOGITS]),
        ]
    )


def set_dim(values, i, size):
    def change(model):
        getattr(model.graph, values)[0].type.tensor_type.shape.dim[i].dim_value = size

    return change


def set_field(get, **values):
    def change(model):
        for name, value in values.items():
            setattr(get(model), name, value)

    return change


HOSTILE = {
    "above": (place(location="../model.safetensors"), r"is read from '\.\./model.safetensors'; the allowed files are"),
    "absolute": (place(location="/etc/passwd"), "is read from '/etc/passwd'"),
    "in a folder": (place(location="./model.safetensors"), r"is read from '\./model"),
    "not weights": (place(location="manifest.json"), "is read from 'manifest.json'"),
    "not said": (place(location=None), "is read from ''"),
    "past the end": (place(offset=str(WEIGHTS - 64)), f"a file of {WEIGHTS:,} bytes; its shape needs"),
    "below 0": (place(offset="-1"), "must be whole numbers"),
    "no number": (place(length="0x10"), "must be whole numbers"),
    "no length": (place(length=None), "must be whole numbers"),
    "too long": (place(length="999"), "its shape needs"),
    "huge": (place(offset="9" * 30), "must be whole numbers"),
    "twice": (lambda m: external(m).external_data.add(key="location", value="/etc/passwd"), "is read from"),
    "other shape": (lambda m: external(m).dims.append(7), "its shape needs"),
    "no shape": (lambda m: external(m).dims.append(-1), "which is not supported"),
    "other type": (set_field(external, data_type=10), "has type 10"),
    "text": (set_field(external, data_type=8), "has type 8"),
    "short": (lambda m: m.graph.initializer.add(name="x", data_type=1, dims=[4], raw_data=b"1234"), "needs 16"),
    "loop": (looped, "operator 'Loop', but control flow is not allowed"),
    "graph in an attribute": (hidden_graph, "'then_branch' of node .* must be a number, a text, or an array"),
    "function": (function, "functions"),
    "domain": (before_all(node("Relu", [IMAGES], ["x"], domain="com.microsoft")), "operator 'com.microsoft.Relu'"),
    "operator": (before_all(node("NonZero", [IMAGES], ["x"])), "operator 'NonZero', which is not allowed"),
    "version": (set_field(lambda m: m.opset_import[0], version=99), r"sets are \[\('', 99\)\]: must be ONNX's own"),
    "two sets": (lambda m: m.opset_import.add(domain="x", version=1), "must be ONNX's own"),
    "image size": (
        set_dim("input", 2, 64),
        r"inputs contain 'images' .* must have name images, type float32, shape \(batch, 3, 32, 32\)",
    ),
    "batch": (set_dim("input", 0, 1), "of batch size 1: must allow any batch size"),
    "classes": (set_dim("output", 1, 5), r"outputs contain 'logits' .* \(batch, 10\)"),
    "type": (
        set_field(lambda m: m.graph.input[0].type.tensor_type, elem_type=11),
        "inputs contain 'images' of type 11",
    ),
    "two inputs": (lambda m: m.graph.input.append(m.graph.input[0]), "the graph has 2 inputs: must have 1"),
    "fewer logits": (fewer, r"'logits' has shape \(1, 5\) for one image: must be \(1, 10\)"),
    "bomb": (
        before_all(constant("n", [10**6, 3, 32, 32]), node("Expand", [IMAGES, "n"], ["x"])),
        "for one image, which is more than 4,194,304 elements",
    ),
    "computed bomb": (
        before_all(
            constant("a", [10**5, 1, 1, 1]),
            constant("b", [10**5, 3, 32, 32]),
            node("Mul", ["a", "b"], ["n"]),
            node("Expand", [IMAGES, "n"], ["x"]),
        ),
        "more than 4,194,304 elements|shapes in the graph do not fit",
    ),
    "resized bomb": (
        before_all(constant("n", [1, 3, 10**5, 10**5]), node("Resize", [IMAGES, "", "", "n"], ["x"])),
        "for one image, which is more than 4,194,304 elements",
    ),
    "one name twice": (
        before_all(node("Relu", [IMAGES], ["x"]), node("Neg", [IMAGES], ["x"])),
        "two values have the name 'x'",
    ),
    "a weight's name": (
        lambda m: before_all(node("Relu", [IMAGES], [external(m).name]))(m),
        "two values have the name .*",
    ),
    "many nodes": (
        before_all(*(node("Identity", [IMAGES], [f"x{i}"]) for i in range(70_000))),
        "nodes: at most 65,536 are allowed",
    ),
    "numbers of shapes": (
        before_all(
            constant("zero", 0),
            constant("one", 1),
            constant("most", 2**20),
            node("Range", ["zero", "most", "one"], ["more0"]),
            *(node("Add", [f"more{i}", f"more{i}"], [f"more{i + 1}"]) for i in range(6)),
            node("Relu", [IMAGES], ["x"]),
        ),
        "the shapes that the graph computes have more than 4,194,304 elements",
    ),
    "untold": (
        before_all(
            node("ReduceSum", [IMAGES], ["s"]),
            node("Cast", ["s"], ["n"], to=7),
            node("Squeeze", ["n"], ["m"]),
            constant("zero", 0),
            constant("one", 1),
            node("Range", ["zero", "m", "one"], ["x"]),
        ),
        "is not known before the graph runs|shapes in the graph do not fit",
    ),
}


def graph_of(folder: Path) -> Path:
    bundle = Bundle.open(folder)
    return bundle.graphs.file(bundle.path("column=1"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_graph_may_not_have(kind, copied):
    change, words = HOSTILE[kind]
    rewritten(copied, change)
    with pytest.raises(GraphRefused, match=words) as caught:
        graph_of(copied)
    assert f"{GRAPH} is refused: " in str(caught.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_read_what_was_checked(runtime, copied):
    pytest.importorskip(runtime)
    rewritten(copied, HOSTILE["above"][0])
    bundle = Bundle.open(copied)
    found = open_runtime(runtime, bundle, 1)
    with pytest.raises(GraphRefused, match="is read from"):
        found.prepare("column=1", 1)
    assert found.prepare(bundle.paths[1].name, 1)(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 10)


def test_a_graph_is_checked_once_for_all_runtimes(copied, monkeypatch):
    checked = []
    monkeypatch.setattr("polypath.deploy.graphs.check_graph", lambda file, *asked: checked.append(file.name))
    bundle = Bundle.open(copied)
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        open_runtime(runtime, bundle, 1).prepare("column=1", 1)
    assert checked == [GRAPH]


@pytest.mark.parametrize("data", [b"", b"\x08", b"pickle", b"\xff" * 100])
def test_what_is_no_graph(data, copied):
    (copied / GRAPH).write_bytes(data)
    sealed(copied)
    with pytest.raises(GraphRefused, match=r"is damaged, or is not an ONNX file|must be ONNX's own"):
        graph_of(copied)


def test_no_runtime_is_taken_instead_and_nothing_is_exported(copied, tmp_path, capsys, images):
    """A bundle that does not hold what it says is refused, though torch could run the weights."""
    from PIL import Image

    rewritten(copied, HOSTILE["above"][0])
    Image.fromarray(images[0]).save(tmp_path / "x.png")
    assert main(["predict", str(copied), str(tmp_path / "x.png")]) == 2
    assert "is refused: weight" in capsys.readouterr().err
    with pytest.raises(GraphRefused):
        write_repository(Bundle.open(copied), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_weight_may_not_be_a_link_out_of_the_manifest(copied, tmp_path):
    """Links are followed, as the Hub's cache has them; what they lead to must have the manifest's digest."""
    (tmp_path / "secret").write_bytes(bytes((copied / "model.safetensors").stat().st_size))
    (copied / "model.safetensors").unlink()
    (copied / "model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="its checksum does not match"):
        Bundle.open(copied)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_answers_that_are_not_finite_are_an_error(runtime, copied, tmp_path, images, capsys, set_times):
    from PIL import Image

    pytest.importorskip(runtime)
    file = copied / "model.safetensors"
    data = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:header])["head.classifier.bias"]["data_offsets"]
    data[header + begin : header + end] = np.full((end - begin) // 4, np.nan, np.float32).tobytes()
    file.write_bytes(data)
    sealed(copied)
    with pytest.raises(ValueError, match="is damaged: its logits are not finite"):
        AnytimePredictor(Bundle.open(copied), runtime, 1)
    Image.fromarray(images[0]).save(tmp_path / "x.png")
    assert main(["predict", str(copied), str(tmp_path / "x.png"), "--runtime", runtime]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_wrong_number_of_answers_is_an_error(bundle, set_times, monkeypatch):
    predictor = AnytimePredictor(bundle, "torch", 1)
    x = np.zeros((2, 3, 32, 32), np.float32)
    assert predictor.run_path("whole", x).shape == (2, 10)
    for wrong in ((2, 5), (2, 20), (2, 10, 1), (1, 10)):
        answer = np.zeros(wrong, np.float32)
        monkeypatch.setattr(predictor.runtime, "prepare", lambda path, batch, answer=answer: lambda x: answer)
        with pytest.raises(ValueError, match=r"returns shape \(.*\): must be \(2, 10\), one logit for each class"):
            predictor.run_path("whole", x)


def test_a_network_of_other_classes_than_the_manifest(copied):
    file = copied / manifests.NAME
    values = json.loads(file.read_text())
    values["classes"] = values["classes"][:5]
    file.write_text(json.dumps(values))
    sealed(copied)
    with pytest.raises(ValueError, match="the network has 10 classes, but the manifest lists 5"):
        open_runtime("torch", Bundle.open(copied), 1).prepare("whole", 1)


def written(net, text, fold, folder) -> tuple[Path, tuple[int, int, int]]:
    from polypath.core.extract import extract
    from polypath.deploy.runtimes.torch_ import folded

    side = max(net.min_size, 16)
    shape = (net.in_chans, side, side)
    child = extract(net, text).eval()
    program = onnx_graph.exported(folded(child) if fold else child, check.images(2, shape))
    model = onnx_graph.to_onnx(program, fold=fold, name="x")
    onnx_graph.write(model, folder / "x.onnx")
    return folder / "x.onnx", shape


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "dr_resnet_small" else pytest.mark.slow) for n in FIRST_OF_FAMILY]
)
@pytest.mark.parametrize("fold", [True, False])
def test_what_exports_write_is_allowed(name, fold, tmp_path):
    """The whole network of every family, gates included, in a bundle's form and as a separate file."""
    net = small_net(name).eval()
    file, shape = written(net, "whole", fold, tmp_path)
    check_graph(file, [], [Value(IMAGES, shape)], [Value(LOGITS, (net.num_classes,))])


@pytest.mark.parametrize(
    ("begin", "end", "step", "shape"), [(0, 2, 1, (1, 3)), (-1, -5, -2, (32, 3)), (1, 9, 2, (3, 32))]
)
def test_sizes_of_sliced_shapes_are_inferred(begin, end, step, shape):
    """As transformers' exports have them: a map is given a part of another's shape."""
    cut = [node("Shape", [IMAGES], ["all"]), *(constant(n, [v]) for n, v in (("b", begin), ("e", end), ("s", step)))]
    graph = onnx.helper.make_graph(
        [
            *cut,
            constant("axis", [0]),
            node("Slice", ["all", "b", "e", "axis", "s"], ["part"]),
            node("Expand", ["one", "part"], [LOGITS]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info(IMAGES, 1, ["batch", 3, 32, 32])],
        [onnx.helper.make_tensor_value_info(LOGITS, 1, None)],
        [onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    assert sizes_of(onnx, model, 2**22)[LOGITS] == shape


def test_sizes_are_those_of_a_run(bundle):
    """Inferred sizes for one image, compared with the shapes in ONNX Runtime."""
    import onnxruntime

    file = bundle.folder / GRAPH
    model = onnx.load(file, load_external_data=False)
    told = sizes_of(onnx, model, 2**22)
    names = [name for node in model.graph.node for name in node.output]
    assert set(names) <= set(told)
    kinds = ("Conv", "BatchNormalization", "Relu", "MaxPool", "ReduceMean", "Gather", "Gemm")
    floats = [node.output[0] for node in model.graph.node if node.op_type in kinds]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in floats)
    whole = onnx.load(file)
    del whole.graph.output[:]
    whole.graph.output.extend(model.graph.output)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Any = session.run(None, {IMAGES: np.zeros((1, 3, 32, 32), np.float32)})
    assert {name: array.shape for name, array in zip(floats, found, strict=True)} == {n: told[n] for n in floats}
