"""The options of cards can be set and change something; the generated part is between its marks."""

from __future__ import annotations

import pytest

from conftest import ROOT
from polypath.cli.train import customised
from polypath.reproduce.choices import BEGIN, CARDS, CHOICES, END, Choice, card, option_text, recipes_of
from polypath.training.recipe import lookup, replace
from polypath.training.recipes import get_recipe

ALL = [pytest.param(paper, choice, id=f"{paper}: {choice.what}") for paper, of in CHOICES.items() for choice in of]


@pytest.mark.parametrize(("paper", "choice"), ALL)
def test_an_option_changes_a_recipe_of_its_paper(paper: str, choice: Choice) -> None:
    recipe = get_recipe(choice.on)
    assert choice.on in [own.name for own in recipes_of(paper)]
    changed = replace(recipe, choice.option)
    assert all(lookup(changed, name) == value for name, value in choice.option.items())
    assert any(lookup(recipe, name) != value for name, value in choice.option.items())
    commanded = customised(recipe, option_text(choice.option).split(), "train")
    for name, value in choice.option.items():
        found = lookup(commanded, name)
        assert found == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)


def test_options_are_written_as_the_command_takes_them() -> None:
    assert option_text({"model.norm_eps": 2e-5}) == "--model.norm-eps 2e-05"
    assert option_text({"model.shortcuts": False, "model.bias": True}) == "--model.no-shortcuts --model.bias"
    assert option_text({"model.blocks": (1, 2), "model.ending": "concat"}) == "--model.blocks 1 2 --model.ending concat"


@pytest.mark.parametrize(("paper", "name"), CARDS.items())
def test_a_card_says_what_is_assumed_and_is_made_again(paper: str, name: str) -> None:
    text = (ROOT / f"docs/cards/{name}.md").read_text(encoding="utf-8")
    assert card(text, paper) == text, f"docs/cards/{name}.md is old: run `make docs`"
    emptied = text[: text.index(BEGIN)] + f"{BEGIN}\n{END}" + text[text.index(END) + len(END) :]
    assert card(emptied, paper) == text
    made = text[text.index(BEGIN) : text.index(END)]
    for recipe in recipes_of(paper):
        assert all(f"| `{field}` | {reason} |" in made for field, reason in recipe.assumed.items())
    with pytest.raises(ValueError, match="once each"):
        card(text.replace(END, ""), paper)
