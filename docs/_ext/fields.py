"""Directives that make reference pages of classes: public names, the fields of a recipe, kinds of a registry."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

NAMES = re.compile(r"    (\w+(?:, \w+)*): (.*)")
"""The first line of an argument, or of several, in the ``Args`` of a docstring."""


class PublicNames(SphinxDirective):
    """``.. public-names:: create_model PathNet``: each with the first sentence of its docstring.

    With ``:module:`` those of another module than ``polypath``, without names all that its ``__all__`` has.
    """

    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {"module": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.options.get("module", "polypath"))
        prefix = "" if "module" in self.options else "pp."
        lines = []
        for name in self.arguments[0].split() if self.arguments else module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value):
                link = f":mod:`{prefix}{name} <{value.__name__}>`"
            else:
                role = "class" if inspect.isclass(value) else "func"
                link = f":{role}:`{prefix}{name} <{value.__module__}.{value.__qualname__}>`"
            lines += within(value, definition(link, [first_sentence(value)]))
        return self.parse_text_to_nodes("\n".join(lines))


class RecipeFields(SphinxDirective):
    """``.. recipe-fields:: CLASS``: its fields as options, with type, default and what the docstring says."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"option": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        config = getattr(importlib.import_module(module), name)
        said, kinds = arguments_of(config), typing.get_type_hints(config)
        prefix = f"{self.options['option']}." if "option" in self.options else ""
        lines = []
        for field in dataclasses.fields(config):
            if field.name not in said:
                raise self.error(f"{self.arguments[0]}: its docstring says nothing of {field.name}")
            option = f"--{prefix}{field.name}".replace("_", "-")
            lines += definition(f"``{option}``: {shown(kinds[field.name])}{default_of(field)}", said[field.name])
        return self.parse_text_to_nodes("\n".join(within(config, lines)))


class Kinds(SphinxDirective):
    """``.. kinds:: MODULE.TABLE``: the classes of a registry, by the names that files know them by."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        import polypath.families.registry
        import polypath.training.path_objectives
        import polypath.training.sandwich  # noqa: F401 (these imports fill the registries)

        module, _, name = self.arguments[0].rpartition(".")
        table: Mapping[str, type] = getattr(importlib.import_module(module), name)
        lines = []
        for kind, value in table.items():
            link = f"``{kind}``, :class:`~{value.__module__}.{value.__qualname__}`"
            lines += within(value, definition(link, [first_sentence(value)]))
        return self.parse_text_to_nodes("\n".join(lines))


def within(value: Any, lines: list[str]) -> list[str]:
    """``lines`` whose references count from the module of ``value``, as those of its docstring do."""
    module = value.__name__ if inspect.ismodule(value) else value.__module__
    return [f".. py:currentmodule:: {module}", "", *lines, ".. py:currentmodule:: None", ""]


def definition(term: str, text: Iterable[str]) -> list[str]:
    return [term, *(f"    {line}" for line in text), ""]


def first_sentence(value: Any) -> str:
    paragraph = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.:])\s(?=[A-Z])", paragraph)[0].rstrip(":")


def arguments_of(config: type) -> dict[str, list[str]]:
    """What a docstring's ``Args`` say of each argument, line by line."""
    section = (inspect.getdoc(config) or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in section.splitlines():
        if named := NAMES.fullmatch(line):
            current = [named[2]]
            found |= dict.fromkeys(named[1].split(", "), current)
        else:
            current.append(line.strip())
    return found


def shown(kind: Any) -> str:
    """A type as a reader of options needs it: the legal words, or the name."""
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(f"``{word}``" for word in typing.get_args(kind))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(shown(part) for part in typing.get_args(kind))
    if kind is type(None):
        return "``None``"
    if typing.get_origin(kind) is tuple:
        return "several of " + shown(typing.get_args(kind)[0])
    if typing.get_origin(kind) is dict:
        return "a table"
    words = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
    return words.get(kind, f":class:`~{kind.__module__}.{kind.__qualname__}`")


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default, where it is a plain value."""
    value = field.default
    if value is dataclasses.MISSING:
        return "" if field.default_factory is not dataclasses.MISSING else " (needed)"
    return "" if dataclasses.is_dataclass(value) else f" (``{value!r}``)"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("recipe-fields", RecipeFields)
    app.add_directive("kinds", Kinds)
    return {"parallel_read_safe": True}
