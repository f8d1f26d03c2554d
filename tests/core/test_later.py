"""Config fields added after 0.1, and files without them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import pytest

from conftest import ROOT
from polypath.core.later import is_later, later, leave_out_later
from polypath.families.base import FAMILIES
from polypath.training.recipe import recipe_from_json, recipe_to_json

V0_1 = ROOT / "tests/compatibility/v0_1"
RECIPES = sorted(V0_1.glob("trained/*/recipe.json"))
CONFIGS = sorted(V0_1.glob("networks/*/config.json"))


def lacking(config: Any, values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Names and dataclass fields of a config and its parts that a file does not have."""
    for f in fields(config):
        part, value = values.get(f.name), getattr(config, f.name)
        if f.name not in values:
            yield f"{where}{f.name}", f
        elif is_dataclass(value) and isinstance(part, Mapping):
            yield from lacking(value, part.get("arguments", part), f"{where}{f.name}.")


@pytest.mark.parametrize("file", RECIPES, ids=lambda p: p.parent.name)
def test_fields_that_a_recipe_of_0_1_lacks_are_later_ones(file) -> None:
    document = json.loads(file.read_text())
    missing = dict(lacking(recipe_from_json(document), document))
    assert all(is_later(f) for f in missing.values()), [name for name, f in missing.items() if not is_later(f)]
    assert {"optim.bias_lr", "data.augment.jitter"} <= missing.keys()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda p: p.parent.name)
def test_fields_that_a_network_of_0_1_lacks_are_later_ones(file) -> None:
    document = json.loads(file.read_text())
    spec = FAMILIES[document["family"]](**document["arguments"])
    assert all(is_later(f) for _, f in lacking(spec, document["arguments"]))


def test_later_fields_with_new_values_are_kept() -> None:
    document = json.loads(RECIPES[0].read_text())
    for change, kept in (({}, False), ({"bias_lr": 2.0}, True)):
        recipe = recipe_from_json(document | {"optim": document["optim"] | change})
        values = recipe_to_json(recipe)
        leave_out_later(recipe, values)
        assert ("bias_lr" in values["optim"]) == kept
        assert "bias_decay" not in values["optim"]
        assert "jitter" not in values["data"]["augment"]
        assert values["model"]["arguments"] == document["model"]["arguments"]


def test_a_later_field_is_a_plain_default() -> None:
    @dataclass
    class Config:
        old: int = field(default=1)
        new: int = later(2)

    assert (Config().new, [is_later(f) for f in fields(Config)]) == (2, [False, True])
