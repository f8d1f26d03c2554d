"""JSON to dataclasses: what passes, and errors that name the field, its value and what is legal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

import pytest
from msgspec import Meta

from polypath.storage.decode import decode, read


class Facts(TypedDict):
    size: int


@dataclass(frozen=True)
class Inner:
    kind: Literal["sgd", "adam"] = "sgd"
    rate: float = 0.1
    pair: tuple[float, float] = (0.0, 1.0)
    percent: Annotated[float, Meta(ge=0, le=100)] | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"inner.rate = {self.rate}: must not be negative")


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    rows: list[Inner] = field(default_factory=list)
    named: dict[str, list[Inner]] = field(default_factory=dict)
    maybe: Inner | None = None
    word: Literal["a", "b"] | None = None
    facts: dict[str, Facts] = field(default_factory=dict)
    batches: dict[int, float] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_tables_become_dataclasses_and_lists_tuples() -> None:
    value = {
        "count": 3,
        "inner": {"rate": 1, "pair": [0, 2]},
        "rows": [{}, {"kind": "adam"}],
        "named": {"a": [{"percent": 7}]},
        "maybe": None,
        "facts": {"f": {"size": 1}},
        "batches": {"8": 0.5},
        "anything": {"nan": float("nan"), "deep": [[1]]},
    }
    found = decode(value, Outer, "outer")
    assert found.inner == Inner(rate=1.0, pair=(0.0, 2.0))
    assert found.rows == [Inner(), Inner(kind="adam")]
    assert found.named == {"a": [Inner(percent=7.0)]}
    assert found.maybe is None
    assert found.facts == {"f": {"size": 1}}
    assert found.batches == {8: 0.5}
    assert found.anything["deep"] == [[1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1}, f"outer has no field 'speed'; it has {', '.join(Outer.__annotations__)}"),
        ({"count": "3"}, "outer.count = '3': expected a whole number, got a text"),
        ({"count": 3.5}, "outer.count = 3.5: expected a whole number, got a number"),
        ({"count": True}, "outer.count = True: expected a whole number, got true or false"),
        ({"count": 10**400}, f"outer.count = 1{'0' * 17}...{'0' * 19}: must be below 2**63"),
        ({"count": float("inf")}, "outer.count = inf: must be a finite number"),
        ({"inner": {"kind": "lion"}}, "outer.inner.kind = 'lion': must be one of sgd, adam"),
        ({"inner": {"kind": 3}}, "outer.inner.kind = 3: must be one of sgd, adam"),
        ({"inner": {"rate": float("nan")}}, "outer.inner.rate = nan: must be a finite number"),
        ({"inner": {"rate": -1}}, "inner.rate = -1.0: must not be negative"),
        ({"inner": {"pair": [1, 2, 3]}}, "outer.inner.pair = [1, 2, 3]: expected a list of length 2, got 3"),
        ({"inner": {"pair": [1, "x"]}}, "outer.inner.pair[1] = 'x': expected a number, got a text"),
        ({"inner": []}, "outer.inner = []: expected a table, got a list"),
        ({"rows": [{}, {"speed": 1}]}, "outer.rows[1] has no field 'speed'; it has kind, rate, pair, percent"),
        ({"named": {"a": [{"percent": 101}]}}, "outer.named['a'][0].percent = 101: expected a number <= 100.0"),
        ({"word": "c"}, "outer.word = 'c': must be one of a, b"),
        ({"maybe": {"rate": "x"}}, "outer.maybe.rate = 'x': expected a number, got a text"),
        ({"facts": {"f": {}}}, "outer.facts['f'] lacks the field 'size'"),
        ({"inner": {"pair": {"x": 1}}}, "outer.inner.pair = {'x': 1}: expected a list, got a table"),
        ({"inner": {"kind": ["sgd"]}}, "outer.inner.kind = ['sgd']: must be one of sgd, adam"),
        ({"rows": nested(100_000)}, "outer.rows[0] = [[[[[[[...]]]]]]]: expected a table, got a list"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        decode({"count": 1, **changes}, Outer, "outer")
    assert str(caught.value) == message


def test_what_is_no_table_or_lacks_a_field() -> None:
    with pytest.raises(ValueError, match=r"^outer lacks the field 'count'$"):
        decode({}, Outer, "outer")
    with pytest.raises(ValueError, match=r"^outer = None: expected a table, got null$"):
        decode(None, Outer, "outer")


def test_other_fields_and_infinity_pass_where_it_is_said() -> None:
    value = {"rate": float("inf"), "speed": 1}
    assert decode(value, Inner, "inner", others=True, finite=False) == Inner(rate=float("inf"))
    for options in ({"others": True}, {"finite": False}):
        with pytest.raises(ValueError, match=r"inf: must be a finite number|no field 'speed'"):
            decode(value, Inner, "inner", **options)


def test_a_file_is_named(tmp_path) -> None:
    file = tmp_path / "mine.json"
    for text, message in (
        ("{", r"mine\.json: is damaged or not JSON \("),
        ('{"rate": "x"}', r"mine\.json: mine\.rate = 'x': expected a number"),
        ('{"rate": 1e400}', r"mine\.json: mine\.rate = inf"),
        ("[" * 100_000, r"mine\.json: is damaged or not JSON \("),
        ("[" * 101 + "]" * 101, r"mine\.json: is damaged or not JSON \(values are nested more than 100 times\)"),
        ("[" * 100 + "]" * 100, r"mine\.json: mine = \[\[.*expected a table"),
        ("\ufeff{}", r"mine\.json: is damaged or not JSON \("),
        ('{"rate": 1, "rate": 2}', r"mine\.json: is damaged or not JSON \(the key 'rate' occurs twice\)"),
        ('{"a": ' + "1" * 5000 + "}", r"mine\.json: is damaged or not JSON \("),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read(file, Inner)
    file.write_text('{"kind": "adam"}')
    assert read(file, Inner) == Inner(kind="adam")
