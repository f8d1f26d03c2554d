"""Choices as frozen values with a text form. A choice tells which operands of which joins are alive.

The text consists of ``key=value`` pairs joined by ``;``. If the key is a join's name, the value is the operand labels
joined by ``,`` (``block1.join=1,3;block2.join=2``). Otherwise the key is a selector of the family (``branches=1,3``).
The text of the whole network is ``whole``. A choice does not store dead joins or joins with all their operands, so
texts that run the same nodes give equal choices.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from polypath.core.checks import did_you_mean, listed
from polypath.core.wiring import Join, Route, Wiring

WHOLE_TEXT = "whole"
Selectors = Mapping[str, Callable[[Wiring, str], Mapping[str, Iterable[str]]]]


@dataclass(frozen=True)
class Paths(Mapping[str, tuple[str, ...]]):
    """A choice in canonical form, made by ``Paths.of`` or ``net.paths(text)``. ``Paths()`` is the whole network."""

    choices: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def of(cls, wiring: Wiring, choice: Mapping[str, Iterable[str]]) -> Paths:
        """Check a choice against a wiring and bring it into canonical form.

        Raises:
            ValueError: an unknown join or label, an empty set, two operands of a switch, a choice at a concat. The
                message lists the legal values.
        """
        if not isinstance(choice, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (callers are not all typed)
            raise ValueError(
                f"paths = {reprlib.repr(choice)}: must be one choice, as text (whole, key=value), as Paths or as a "
                f"mapping from joins to operands; the joins are {listed(wiring.joins)}"
            )
        checked = {name: _check(wiring, name, labels) for name, labels in choice.items()}
        alive = {node.name for node in wiring.alive(checked)}
        kept = [
            (join.name, checked[join.name])
            for join in wiring.joins.values()
            if join.name in alive and join.name in checked and not _is_default(join, checked[join.name])
        ]
        return cls(tuple(kept))

    @classmethod
    def parse(cls, text: str, wiring: Wiring, selectors: Selectors | None = None) -> Paths:
        """Parse the text form; ``selectors`` are the family's own keys, each with a function of wiring and value.

        Raises:
            ValueError: text that is not a ``key=value`` list, a join chosen twice, or a choice that :meth:`of` rejects.
        """
        selectors = selectors or {}
        keys = [*selectors, *wiring.joins]
        choice: dict[str, Iterable[str]] = {}
        text = text.strip()
        for pair in [] if text == WHOLE_TEXT else text.split(";"):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not equals or not key or not value:
                raise ValueError(
                    f"path {text!r}: {pair!r} is not key=value or {WHOLE_TEXT!r}; the keys are {listed(keys)}"
                )
            part = selectors[key](wiring, value) if key in selectors else {key: value.split(",")}
            if key not in selectors and key not in wiring.joins:
                raise ValueError(f"path {text!r}: unknown key {key!r}; {did_you_mean(key, keys)}")
            if twice := [name for name in part if name in choice]:
                raise ValueError(f"path {text!r}: {twice[0]!r} is chosen twice")
            choice.update(part)
        return cls.of(wiring, choice)

    @classmethod
    def along(cls, wiring: Wiring, chain: Route) -> Paths:
        """Return the choice under which exactly one chain runs.

        Raises:
            ValueError: the chain goes through a concat, of which all operands always run.
        """
        return cls.of(wiring, {join: (label,) for join, label in chain.taken})

    def __getitem__(self, join: str) -> tuple[str, ...]:
        return self._table[join]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self.choices)

    def __str__(self) -> str:
        return ";".join(f"{join}={','.join(labels)}" for join, labels in self.choices) or WHOLE_TEXT

    def __repr__(self) -> str:
        return f"Paths({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Paths) and self.choices == other.choices

    def __hash__(self) -> int:
        return hash(self.choices)

    @property
    def _table(self) -> dict[str, tuple[str, ...]]:
        table = self.__dict__.get("_cached")
        if table is None:
            table = self.__dict__["_cached"] = dict(self.choices)
        return table


def _is_default(join: Join, labels: tuple[str, ...]) -> bool:
    if join.kind == "switch":
        return not join.gates and labels == join.labels[-1:]
    return len(labels) == len(join.labels)


def _check(wiring: Wiring, name: str, labels: Iterable[str]) -> tuple[str, ...]:
    join = wiring.joins.get(name)
    if join is None:
        raise ValueError(f"unknown join {name!r}; {did_you_mean(name, wiring.joins)}")
    wanted = _texts(labels)
    if wanted is None:
        raise ValueError(f"join {name!r} = {reprlib.repr(labels)}: must be labels among {', '.join(join.labels)}")
    if join.kind == "concat":
        raise ValueError(f"join {name!r} is a concat, so all its operands {', '.join(join.labels)} must run")
    for label in wanted:
        if label not in join.labels:
            raise ValueError(f"join {name!r} has no operand {label!r}; its operands are {', '.join(join.labels)}")
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"join {name!r}: an operand appears twice in {','.join(wanted)!r}")
    if not wanted:
        raise ValueError(f"join {name!r}: choose at least one of {', '.join(join.labels)}")
    if join.kind == "switch" and len(wanted) != 1:
        raise ValueError(f"join {name!r} is a switch: choose exactly one of {', '.join(join.labels)}")
    return tuple(label for label in join.labels if label in wanted)


def _texts(labels: Any) -> list[str] | None:
    """Read operand labels from comma-separated text or an iterable of texts; return None for anything else."""
    if isinstance(labels, str):
        labels = labels.split(",")
    if not isinstance(labels, Iterable):
        return None
    given = list(cast(Iterable[Any], labels))
    return [label.strip() for label in given] if all(isinstance(label, str) for label in given) else None
