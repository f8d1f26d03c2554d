"""Deprecated options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from polypath.core.deprecation import notes_are_logged
from polypath.deploy import export_path, write_bundle, write_stepwise
from polypath.reproduce.runner import reproduce
from polypath.training.sweep import sweep


def test_a_removed_option_is_accepted_with_a_warning() -> None:
    @notes_are_logged
    def double(x: int, *, plus: int = 0) -> int:
        return 2 * x + plus

    taken: Callable[..., Any] = double
    with pytest.warns(DeprecationWarning, match=r"double\(\) ignores the argument say, .* polypath's logger") as seen:
        assert taken(3, plus=1, say=print) == 7
    assert [warning.filename for warning in seen] == [__file__]
    with pytest.raises(TypeError, match="tell"):
        taken(3, tell=print)


@pytest.mark.parametrize("function", [export_path, write_bundle, write_stepwise, reproduce, sweep])
def test_functions_that_took_say_in_0_1_still_do(function: Callable[..., Any]) -> None:
    with pytest.warns(DeprecationWarning, match="ignores the argument say"), pytest.raises(TypeError, match="missing"):
        function(say=print)
    assert "say" not in inspect.signature(function).parameters
