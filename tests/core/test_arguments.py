"""Argument checks of public functions."""

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


def test_the_decorated_function_behaves_as_before():
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
def test_a_wrong_type_is_reported_with_the_legal_ones(args: tuple[Any, ...], options: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=f"^{told}$"):
        function(*args, **options)


def test_missing_and_extra_arguments_are_pythons_own_errors():
    with pytest.raises(TypeError, match=r"function\(\) missing 1 required positional argument: 'name'"):
        function()  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"function\(\) got an unexpected keyword argument 'other'"):
        function("a", other=1)  # pyright: ignore[reportCallIssue]


def test_a_rule_for_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match=r"has no argument 'names'"):
        takes(names=TEXT)(lambda name: name)


def test_json_values_are_plain():
    given = {"a": np.float32(0.5), np.int64(3): [torch.tensor(2), (np.bool_(True), None)], "b": {"c": np.arange(2)}}
    assert json_value("about", given) == {"a": 0.5, "3": [2, [True, None]], "b": {"c": [0, 1]}}


@pytest.mark.parametrize("value", [{"a": object()}, {"a": float("nan")}, [np.float64("inf")], {(1, 2): 3}, {1j}])
def test_values_that_json_cannot_hold_are_refused(value):
    with pytest.raises(ValueError, match=r"^about: give JSON values \(text, finite numbers"):
        json_value("about", value)
