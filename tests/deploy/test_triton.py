"""Triton's configuration, read by the protocol buffer definition of the fields that it uses.

Names, numbers and types are those of ``model_config.proto`` in Triton's own repository; Triton itself is not run.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("onnx")  # which brings protobuf

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from polypath.deploy import Bundle
from polypath.deploy.triton import write_repository

TEXT, WHOLE, LONG, UNSIGNED, TRUTH = 9, 5, 3, 4, 8  # types of FieldDescriptorProto
MESSAGES = {
    "Input": [("name", 1, TEXT), ("data_type", 2, ".t.DataType"), ("*dims", 4, LONG)],
    "Output": [("name", 1, TEXT), ("data_type", 2, ".t.DataType"), ("*dims", 3, LONG), ("label_filename", 4, TEXT)],
    "Policy": [
        ("timeout_action", 1, ".t.Action"),
        ("default_timeout_microseconds", 2, UNSIGNED),
        ("allow_timeout_override", 3, TRUTH),
        ("max_queue_size", 4, 13),
    ],
    "Batching": [
        ("*preferred_batch_size", 1, WHOLE),
        ("max_queue_delay_microseconds", 2, UNSIGNED),
        ("default_queue_policy", 7, "Policy"),
    ],
    "Config": [
        ("name", 1, TEXT),
        ("platform", 2, TEXT),
        ("max_batch_size", 4, WHOLE),
        ("*input", 5, "Input"),
        ("*output", 6, "Output"),
        ("dynamic_batching", 11, "Batching"),
    ],
}


def config_type():
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    for name, values in (("DataType", {"TYPE_INVALID": 0, "TYPE_FP32": 11}), ("Action", {"REJECT": 0, "DELAY": 1})):
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added: Any = message.field.add(name=field.lstrip("*"), number=number, label=3 if field[0] == "*" else 1)
            if isinstance(kind, int):
                added.type = kind
            else:
                added.type = 14 if kind.startswith(".") else 11
                added.type_name = kind if kind.startswith(".") else f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Config"))


@pytest.mark.parametrize(("most", "preferred"), [(8, [2, 4, 8]), (1, [])])
def test_every_path_is_a_model_with_a_readable_configuration(tmp_path, most, preferred):
    import onnx

    bundle = Bundle.open()
    names = write_repository(bundle, tmp_path / "models", max_batch=most)
    assert len(names) == len(set(names)) == len(bundle.paths)
    for name in names:
        folder = tmp_path / "models" / name
        config: Any = text_format.Parse((folder / "config.pbtxt").read_text(), config_type()())
        assert (config.name, config.platform, config.max_batch_size) == (name, "onnxruntime_onnx", most)
        graph = onnx.load(str(folder / "1" / "model.onnx"), load_external_data=False)  # the weights are inside
        assert not [tensor.name for tensor in graph.graph.initializer if tensor.external_data]
        (image,), (logits,) = config.input, config.output
        assert [image.name, logits.name] == [graph.graph.input[0].name, graph.graph.output[0].name]
        for tensor, value in ((image, graph.graph.input[0]), (logits, graph.graph.output[0])):
            batch, *rest = value.type.tensor_type.shape.dim
            assert not batch.HasField("dim_value")  # Triton adds the batch itself
            assert (tensor.data_type, list(tensor.dims)) == (11, [dim.dim_value for dim in rest])
        assert (folder / logits.label_filename).read_text().split("\n")[:-1] == list(bundle.classes)
        batching = config.dynamic_batching
        assert list(batching.preferred_batch_size) == preferred
        assert (batching.default_queue_policy.timeout_action, batching.default_queue_policy.max_queue_size) == (0, 256)


def test_a_field_that_triton_does_not_know_would_be_noticed():
    with pytest.raises(text_format.ParseError):
        text_format.Parse('name: "a" max_batch: 3', config_type()())


def test_bad_batches(tmp_path):
    with pytest.raises(ValueError, match="max_batch = 0"):
        write_repository(Bundle.open(), tmp_path / "models", max_batch=0)
