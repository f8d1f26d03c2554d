"""The protocol is frozen: a changed number here means another protocol."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from polypath.analysis.deadline import bursty_trace
from polypath.data.split import Split
from polypath.storage.digests import file_digest
from polypath.worth import protocol
from polypath.worth.protocol import arranged, asked, cut, load_task, read_trace, reference, reference_input


def test_the_numbers_are_frozen() -> None:
    frozen = [protocol.HELD_OUT, protocol.PROFILE_RUNS, protocol.WARM_UPS, *protocol.BOX]
    assert (protocol.VERSION, frozen) == ("anytime-1", [0.1, 200, 10, 0.02, 4.0])
    assert file_digest(protocol.TRACE) == "0e12ac2ebda4f9b546e671d8594711c92c74d1b4360e5f10081d7c0841a35929"
    assert {len(digest) for digest in protocol.DIGESTS.values()} == {64}


def test_the_trace_is_its_seeds() -> None:
    trace = read_trace()
    drawn = bursty_trace(2000, trace.seed)
    assert np.array_equal(np.round(drawn.budgets, 4), trace.budgets)
    assert np.array_equal(drawn.neighbour, trace.neighbour)
    assert 0.1 < trace.neighbour.mean() < 0.4
    assert np.array_equal(read_trace(12).budgets, trace.budgets[:12])


def test_each_request_s_image_can_be_computed_in_any_language() -> None:
    assert asked(read_trace(), 10_000)[:4].tolist() == [622, 2157, 664, 6410]
    images = asked(read_trace(), 7)
    assert set(images.tolist()) == set(range(7))


@torch.no_grad()
def test_the_reference_costs_what_a_resnet_20_does() -> None:
    net, macs = reference(), []

    def count(module: nn.Module, args: object, out: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        macs.append(out.shape[2] * out.shape[3] * module.weight.numel())

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    assert net(reference_input()).shape == (1, 64, 8, 8)
    assert (len(macs), sum(macs)) == (19, 40_550_400)


def small(order: list[int]) -> Split:
    draw = np.random.default_rng(0)
    pixels, labels = draw.integers(0, 256, (40, 3, 5, 4), np.uint8), draw.integers(0, 2, 40)
    return Split(torch.from_numpy(pixels[order]), torch.from_numpy(labels[order]))


def test_the_order_in_which_images_are_stored_changes_nothing() -> None:
    images, digest = arranged(small(list(range(40))), ("cat", "dog"))
    mixed, same = arranged(small(list(range(39, -1, -1))), ("cat", "dog"))
    assert digest == same
    assert np.array_equal(images.pixels, mixed.pixels)
    assert np.array_equal(images.labels, mixed.labels)
    own = [hashlib.sha256(image.tobytes()).hexdigest() for image in images.pixels]
    assert own == sorted(own)
    text = "".join(f"{one} {('cat', 'dog')[label]}\n" for one, label in zip(own, images.labels, strict=True))
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    assert arranged(small(list(range(40))), ("cat", "doc"))[1] != digest


def test_a_tenth_of_each_class_is_held_out() -> None:
    images, _ = arranged(small(list(range(40))), ("cat", "dog"))
    train, held_out = cut(images)
    counts = [int((images.labels == label).sum()) for label in (0, 1)]
    assert [int((held_out.labels == label).sum()) for label in (0, 1)] == [count // 10 for count in counts]
    assert len(train) + len(held_out) == 40
    for label in (0, 1):
        of_class = images.pixels[images.labels == label]
        assert np.array_equal(held_out.pixels[held_out.labels == label], of_class[: counts[label] // 10])


def test_a_task_has_all_images_once() -> None:
    task = load_task("digits")
    assert (task.name, len(task.classes), task.test.pixels.shape[1:]) == ("digits", 10, (8, 8, 1))
    assert len(task.train) + len(task.held_out) + len(task.test) == 1797
    assert set(task.digests) == {"train", "test"}


@pytest.mark.slow
def test_the_images_here_are_the_protocols(cifar10) -> None:
    task = load_task(str(cifar10))
    assert task.digests == protocol.DIGESTS
    assert (len(task.train), len(task.held_out), len(task.test)) == (45_000, 5_000, 10_000)
    assert np.bincount(task.held_out.labels).tolist() == [500] * 10
