"""Checks of values: what each rule allows, what its message says, and numbers of other libraries."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest
import torch

import polypath as pp
from polypath.core.checks import (
    FLAG,
    NAME,
    SHARE,
    Rule,
    check,
    check_fields,
    did_you_mean,
    each,
    interval,
    listed,
    near,
    number,
    one_of,
    optional,
    plain,
    plain_fields,
    whole,
    whole_text,
)
from polypath.data.config import DataConfig
from polypath.training.optim import OptimConfig


@pytest.mark.parametrize(
    ("rule", "legal", "illegal", "words"),
    [
        (one_of("a", "b"), ["a", "b"], ["c", "", None, ["a"]], "one of a, b"),
        (whole(1), [1, 10**9], [0, -1, 1.0, True, "1", None], "a whole number of at least 1"),
        (whole(0, 3), [0, 3], [-1, 4], "a whole number from 0 to 3"),
        (number(0), [0, 0.5, 7], [-0.1, float("nan"), float("inf"), "1", True], "a finite number of at least 0"),
        (number(above=0), [0.1, 5], [0, 0.0, -1, float("inf")], "a finite number above 0"),
        (number(0, below=1), [0, 0.99], [1, 1.0, -0.1], "a number in [0, 1)"),
        (number(above=0, high=1), [0.1, 1], [0, 1.1], "a number in (0, 1]"),
        (SHARE, [0, 0.5, 1], [-0.1, 1.1, None], "a number in [0, 1]"),
        (FLAG, [True, False], [0, 1, "true", None], "true or false"),
        (NAME, ["x"], ["", "  ", 3, None], "a name"),
        (interval(1), [(0.1, 1.0), (1, 1)], [(0, 1), (0.5, 1.5), (1.0, 0.5), (0.5,), 0.5], "0 < low <= high <= 1"),
        (interval(), [(1, 1000)], [(1, 2, 3)], "two numbers, 0 < low <= high"),
        (
            each(whole(1)),
            [(), (1, 2), [3]],
            [(0,), (1, 1.5), 3],
            "a list in which each entry is a whole number of at least 1",
        ),
        (
            each(SHARE, count=2),
            [(0, 1)],
            [(0,), (0, 1, 1)],
            "a list of length 2 in which each entry is a number in [0, 1]",
        ),
        (optional(whole(1)), [None, 1], [0, "x"], "a whole number of at least 1, or None"),
    ],
)
def test_rules(rule: Rule, legal: list[Any], illegal: list[Any], words: str):
    for value in legal:
        check("field", value, rule)
    for value in illegal:
        with pytest.raises(ValueError) as caught:
            check("field", value, rule)
        assert str(caught.value).startswith(f"field = {plain(value)!r}: must be ")
        assert words in str(caught.value)


@dataclass(frozen=True)
class Config:
    width: Any = 1
    sizes: Any = (1,)


def test_fields_are_named_after_their_class_or_a_prefix():
    check_fields(Config(), width=whole(1), sizes=each(whole(1)))
    for prefix, name in ((None, "Config.width"), ("model", "model.width"), ("", "width")):
        with pytest.raises(ValueError, match=f"^{name} = 0: must be a whole number of at least 1$"):
            check_fields(Config(width=0), prefix, sizes=each(whole(1)), width=whole(1))


def test_texts_of_whole_numbers():
    assert whole_text("branch", " 2 ", 1, 4) == 2
    for text in ("0", "5", "-1", "2.0", "x", ""):
        with pytest.raises(ValueError, match=r"branch = .*: must be one of 1, 2, 3, 4"):
            whole_text("branch", text, 1, 4)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (torch.tensor(3), 3),
        (torch.tensor([1, 2]), (1, 2)),
        ([np.int64(3), [torch.tensor(4)]], (3, (4,))),
        ("text", "text"),
        (None, None),
    ],
)
def test_numbers_of_other_libraries_become_plain(given: Any, expected: Any):
    found = plain(given)
    assert found == expected
    assert type(found) is type(expected)
    json.dumps(found)


def test_fields_become_plain():
    @dataclass(frozen=True)
    class Mine(Config):
        def __post_init__(self) -> None:
            plain_fields(self)

    assert Mine(np.int64(3), [np.int64(4)]) == Mine(3, (4,))
    assert asdict(Config(width=np.int64(3)))["width"] is not 3  # noqa: F632 (the twin keeps what it was given)


def test_families_and_configs_take_numbers_of_other_libraries():
    y = torch.tensor([0, 4, 2])
    net = pp.create_model("crescendonet_32", num_classes=y.max() + 1, widths=np.array([4, 4]), hidden=[np.int64(8)])
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    json.dumps(net.config)
    eight: Any = np.int64(8)  # what callers pass, whatever the types say
    assert pp.cost(net, size=eight, batch_size=eight).size == (8, 8)
    json.dumps(asdict(DataConfig(size=eight)))
    json.dumps(asdict(OptimConfig(lr=np.float32(0.1))))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"CrescendoNet\.scale = 0: must be a whole number of at least 1"):
        pp.create_model("crescendonet_32", scale=np.int64(0))


def test_near_names():
    known = ["train", "resume", "paths", "extract"]
    assert near("trian", known) == ["train"]
    assert near("xyzzy", known) == []
    assert did_you_mean("trian", known) == "did you mean train?"
    assert did_you_mean("xyzzy", known) == "there are train, resume, paths, extract"
    assert did_you_mean("x", []) == "there are none"
    assert listed([str(n) for n in range(14)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"
