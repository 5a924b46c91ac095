"""Names in recipes -> classes, with errors that help: the nearest name, the keywords that a class takes.

A table maps a name to "module:Class", imported when first asked for, so that ``import stapes`` stays quick and a folder's
table can stand above the files it lists.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from stapes.errors import RecipeError


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as "did you mean 'stride'?", or the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


class Table:
    """A named set of interchangeable components.

    Args:
        kind: what the members are, for messages and as the recipe's section ("adapter").
        members: name -> "module:Class".
        above_zero: options that are sizes or rates, of whatever member: none of them is zero or less.
    """

    def __init__(self, kind: str, members: Mapping[str, str], above_zero: Iterable[str] = ()) -> None:
        self.kind, self.members, self.above_zero = kind, dict(members), frozenset(above_zero)

    def __iter__(self) -> Any:
        return iter(self.members)

    def __getitem__(self, name: str) -> type:
        """The class called ``name``; raises RecipeError with the nearest name if there is none."""
        if name not in self.members:
            raise RecipeError(f"{self.kind}.name", f"unknown {self.kind} '{name}'", fix=nearest(name, self.members))
        module, attribute = self.members[name].split(":")
        found: type = getattr(importlib.import_module(module), attribute)
        return found

    def options(self, name: str, derived: Iterable[str] = ()) -> dict[str, inspect.Parameter]:
        """The constructor's keywords that a recipe may set: all but those that are ``derived`` from other components."""
        parameters = inspect.signature(self[name]).parameters
        return {key: value for key, value in parameters.items() if key not in set(derived)}

    def check(self, config: Mapping[str, Any], derived: Iterable[str] = ()) -> None:
        """Raise RecipeError unless ``config`` (a name and keywords) fits the class's signature."""
        name = config.get("name")
        if not isinstance(name, str):
            raise RecipeError(self.kind, f"name is {name!r}", "a string", f"known: {', '.join(sorted(self.members))}")
        options = self.options(name, derived)
        for key in config:
            if key == "name" or key in options:
                continue
            if key in set(derived):
                raise RecipeError(f"{self.kind}.{key}", "this is derived from the other components", fix="remove it")
            raise RecipeError(f"{self.kind}.{key}", f"'{name}' has no such option", fix=nearest(key, options))
        for key in self.above_zero & config.keys():
            if isinstance(config[key], (int, float)) and config[key] <= 0:
                raise RecipeError(f"{self.kind}.{key}", f"{config[key]}", "more than 0")
        for key, parameter in options.items():
            required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
            if required and key not in config:
                raise RecipeError(f"{self.kind}.{key}", "missing", f"a value for this option of '{name}'")

    def build(self, config: Mapping[str, Any], **derived: Any) -> Any:
        """Construct the component that ``config`` names, passing it those of ``derived`` that its signature asks for."""
        self.check(config, derived)
        found = self[config["name"]]
        wanted = inspect.signature(found).parameters
        return found(
            **{key: value for key, value in config.items() if key != "name"},
            **{key: value for key, value in derived.items() if key in wanted},
        )
