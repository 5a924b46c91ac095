"""YAML -> a checked recipe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from stapes.adapters import ADAPTERS
from stapes.adapters import DERIVED as ADAPTER_DERIVED
from stapes.encoders import ENCODERS
from stapes.errors import RecipeError
from stapes.llms import LLMS
from stapes.recipe.sections import HeldOut, Recipe, Source
from stapes.registry import Table, nearest
from stapes.tasks import TASKS

COMPONENTS: dict[str, tuple[Table, Sequence[str]]] = {
    "encoder": (ENCODERS, ()),
    "adapter": (ADAPTERS, ADAPTER_DERIVED),
    "llm": (LLMS, ()),
}


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: 1e-4 is a number, not a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    A recipe may begin with another one: ``extends`` names a file, relative to its own folder, or a recipe of the package. What
    it says itself goes before, key by key; another component (``name``) replaces the whole section, and a list the whole list.

    Args:
        path: a YAML file, or the name of a recipe that comes with the package.
        overrides: "section.key=value" each, the value in YAML.

    Raises:
        RecipeError: file, key, what was found, and the nearest name.
    """
    path = find(path)
    values = _read(path)
    for override in overrides:
        _override(values, override)
    return parse(values, str(path))


def _read(path: Path, extending: Sequence[Path] = ()) -> dict[str, Any]:
    """A recipe's mapping, laid over that of the recipe that it extends; ``extending`` are those that led here."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except yaml.YAMLError as error:
        raise RecipeError(path, f"not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(path, f"a {type(values).__name__}", "a mapping of sections")
    if "extends" not in values:
        return values
    name = values.pop("extends")
    if not isinstance(name, str):
        raise RecipeError(f"{path}: extends", repr(name), "the name of a recipe")
    beside = path.parent / name
    parent = beside if beside.is_file() else find(name)
    chain = [*extending, path.resolve()]
    if parent.resolve() in chain:
        names = " -> ".join(each.name for each in [*chain, parent])
        raise RecipeError(f"{path}: extends", f"a circle ({names})", "a recipe that stands alone at the end")
    return _laid_over(_read(parent, chain), values)


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above``, with what it does not say from ``below``."""
    merged = below | above
    for key in below.keys() & above.keys():
        lower, upper = below[key], above[key]
        if isinstance(lower, dict) and isinstance(upper, dict) and upper.get("name") in (None, lower.get("name")):
            merged[key] = _laid_over(lower, upper)
    return merged


def find(name: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the package.

    Raises:
        RecipeError: it is neither; names the nearest.
    """
    if Path(name).is_file():
        return Path(name)
    known = shipped()
    found = known.get(str(name).removesuffix(".yaml"))
    if found is None:
        raise RecipeError(name, "no such recipe", "a YAML file or a recipe of the package", nearest(Path(name).stem, known))
    return found


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name: from the wheel, or from the checkout that the package lies in."""
    for folder in (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes"):
        if folder.is_dir():
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    return {}


def parse(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe's mapping; see ``load``."""
    values = dict(values)
    stages, shared = values.get("stages"), values.get("train") or {}
    if isinstance(stages, list) and isinstance(shared, dict):
        values["stages"] = [_inherit(shared, stage) if isinstance(stage, dict) else stage for stage in stages]
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from None
    if recipe.init is None:
        for section in ("encoder", "adapter", "llm"):
            if getattr(recipe, section) is None:
                raise RecipeError(f"{where}: {section}", "missing", "this section, or `init: MODEL`")
    for section, (table, derived) in COMPONENTS.items():
        config = getattr(recipe, section)
        if config is not None:
            table.check(config, derived)
    _check_tasks(recipe, where)
    return recipe


def _check_tasks(recipe: Recipe, where: str) -> None:
    """Raise RecipeError for tasks that are alike or unknown, and for manifests of tasks that are not there."""
    keys: list[str] = []
    for config in recipe.tasks:
        keys.append(TASKS.build(config).key)
        if keys.count(keys[-1]) > 1:
            raise RecipeError(f"{where}: tasks", f"'{keys[-1]}' twice", "tasks that differ in name, style or language")
    if recipe.init is not None and "tasks" not in recipe.model_fields_set:
        return  # they are those of the model that it starts from
    places: list[tuple[str, Sequence[Source | HeldOut]]] = [("data.train", recipe.data.train), ("data.dev", recipe.data.dev)]
    places += [(f"stages.{number}.mixture", stage.mixture or []) for number, stage in enumerate(recipe.stages)]
    for place, sources in places:
        for number, source in enumerate(sources):
            if source.task and source.task not in keys:
                raise RecipeError(f"{where}: {place}.{number}.task", f"'{source.task}'", fix=nearest(source.task, keys))


def _inherit(shared: dict[str, Any], stage: dict[str, Any]) -> dict[str, Any]:
    """A stage with what it takes from ``train``; its own length replaces the shared one, however that is given."""
    if "steps" in stage or "epochs" in stage:
        shared = {key: value for key, value in shared.items() if key not in ("steps", "epochs")}
    return shared | stage


def _override(values: dict[str, Any], override: str) -> None:
    """Apply one "section.key=value" to a mapping; "stages.0.steps=10" reaches into a list."""
    key, separator, text = override.partition("=")
    if not separator:
        raise RecipeError(f"--set {override}", "no '='", "section.key=value")
    *path, last = key.strip().split(".")
    target: Any = values
    try:
        for part in path:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        value = yaml.load(text, _Loader)
        target[int(last) if isinstance(target, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise RecipeError(f"--set {override}", f"it leads nowhere ({error})", "section.key=value") from error


def _explain(error: ValidationError, where: str) -> RecipeError:
    """The first thing that is wrong, in one line."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        model: Any = Recipe
        for part in first["loc"][:-1]:
            model = _field_model(model, part)
        return RecipeError(f"{where}: {key}", "unknown key" + more, fix=nearest(str(first["loc"][-1]), model.model_fields))
    return RecipeError(
        f"{where}: {key}",
        f"{first['input']!r}{more}",
        first["msg"].removeprefix("Value error, ").removeprefix("Input should be "),
    )


def _field_model(model: Any, part: int | str) -> Any:
    """The section model that a key of ``model`` leads to."""
    if isinstance(part, int):
        return model
    annotation = model.model_fields[part].annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
