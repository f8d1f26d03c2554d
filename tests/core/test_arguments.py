"""Arguments of public functions, checked at their door."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from polypath.core.arguments import takes
from polypath.core.checks import TEXT, WHOLE_NUMBER, json_value, optional


@takes(name=TEXT, count=optional(WHOLE_NUMBER))
def function(name: str, count: int | None = None, *, more: object = ()) -> tuple[str, int | None, object]:
    """Its text."""
    return name, count, more


def test_it_is_the_function_that_it_was():
    given = [object()]
    assert function("a", more=given)[2] is given
    assert type(function("a", np.int64(3))[1]) is int  # pyright: ignore[reportArgumentType]
    assert type(function("a", count=torch.tensor(3))[1]) is int  # pyright: ignore[reportArgumentType]
    assert function.__doc__ == "Its text."
    assert list(inspect.signature(function).parameters) == ["name", "count", "more"]


@pytest.mark.parametrize(
    ("args", "options", "told"),
    [
        ((3,), {}, "name = 3: must be text"),
        ((), {"name": 3}, "name = 3: must be text"),
        (("a", "b"), {}, "count = 'b': must be a whole number, or None"),
    ],
)
def test_a_wrong_type_is_named_with_what_is_legal(args: tuple[Any, ...], options: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=f"^{told}$"):
        function(*args, **options)


def test_python_says_what_is_missing_or_too_much():
    with pytest.raises(TypeError, match=r"function\(\) missing 1 required positional argument: 'name'"):
        function()  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"function\(\) got an unexpected keyword argument 'other'"):
        function("a", other=1)  # pyright: ignore[reportCallIssue]


def test_a_rule_for_no_argument_is_a_mistake():
    with pytest.raises(TypeError, match=r"has no argument 'names'"):
        takes(names=TEXT)(lambda name: name)


def test_json_values_are_plain():
    given = {"a": np.float32(0.5), np.int64(3): [torch.tensor(2), (np.bool_(True), None)], "b": {"c": np.arange(2)}}
    assert json_value("about", given) == {"a": 0.5, "3": [2, [True, None]], "b": {"c": [0, 1]}}


@pytest.mark.parametrize("value", [{"a": object()}, {"a": float("nan")}, [np.float64("inf")], {(1, 2): 3}, {1j}])
def test_what_json_has_no_form_for_is_refused(value):
    with pytest.raises(ValueError, match=r"^about: give JSON values \(text, finite numbers"):
        json_value("about", value)
