"""``stapes ls``: the models, recipes, weights and components that there are."""

from __future__ import annotations

import ast
import itertools
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stapes.cli import options

if TYPE_CHECKING:
    from rich.table import Column

    from stapes.registry import Table


def ls(as_json: options.AsJson = False) -> None:
    """List shipped models, recipes, packs of pretrained weights, and the components that a recipe can name.

    Examples:

    \b
      stapes ls
          tables of everything
    \b
      stapes ls --json
          the same as one JSON object
    """
    facts = {"models": _models(), "recipes": _recipes(), "packs": _packs(), "components": _components()}
    if as_json:
        typer.echo(json.dumps(facts))
        return
    _show(facts)


def _models() -> list[dict[str, Any]]:
    """The models that come with the package."""
    from stapes import checkpoint

    rows = []
    for path in sorted(checkpoint.MODELS.glob(f"*/{checkpoint.DESCRIPTION}")):
        description = checkpoint.read_description(path.parent)
        recipe = description["recipe"]
        parts = {part: recipe[part]["name"] for part in ("encoder", "adapter", "llm")}
        parts["tasks"] = ", ".join(description["prompts"])
        weights = {part: recipe[part].get("weights") for part in ("encoder", "llm")}
        size = (path.parent / checkpoint.TENSORS).stat().st_size
        rows.append({"name": path.parent.name, **parts, "weights": weights, "bytes": size, "folder": str(path.parent)})
    return rows


def _recipes() -> list[dict[str, str]]:
    """The recipes that come with the package, each with the first sentence of its comment."""
    from stapes import recipe

    return [{"name": name, "what": _first_sentence(path), "file": str(path)} for name, path in recipe.shipped().items()]


def _first_sentence(recipe: Path) -> str:
    """Of the comment that a recipe begins with; it may go over several lines."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
    return re.split(r"(?<=[.?!])\s", comment)[0]


def _packs() -> list[dict[str, Any]]:
    """Packs of pretrained weights, and where those lie that were fetched."""
    from stapes import hub

    return [
        {
            "name": row.name,
            "what": row.what,
            "licence": row.licence,
            "download_bytes": row.download_bytes,
            "bytes": row.bytes,
            "folder": None if row.folder is None else str(row.folder),
        }
        for row in hub.available()
    ]


def _components() -> dict[str, dict[str, str]]:
    """What a recipe's sections can name: kind -> name -> the first line of its documentation."""
    from stapes.adapters import ADAPTERS
    from stapes.encoders import ENCODERS
    from stapes.llms import LLMS
    from stapes.tasks import TASKS

    return {table.kind: {name: _first_line(table, name) for name in table} for table in (ENCODERS, ADAPTERS, LLMS, TASKS)}


def _first_line(table: Table, name: str) -> str:
    """The first line of a member's module, without importing it."""
    found = find_spec(table.members[name].partition(":")[0])
    source = "" if found is None or found.origin is None else Path(found.origin).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table as Grid

    console = Console()
    grid = Grid(_whole("model"), "encoder", "adapter", "LLM", "tasks", "MB", title="shipped models", title_justify="left")
    for row in facts["models"]:
        grid.add_row(*(row[key] for key in ("name", "encoder", "adapter", "llm", "tasks")), f"{row['bytes'] / 1e6:.1f}")
    console.print(grid if facts["models"] else "no model is shipped with this installation")
    grid = Grid(_whole("recipe"), "what", title="recipes (stapes train NAME)", title_justify="left")
    for row in facts["recipes"]:
        grid.add_row(row["name"], row["what"])
    console.print(grid)
    grid = Grid(
        _whole("pack"), "what", "licence", "MB", "fetched", title="pretrained weights (stapes fetch NAME)", title_justify="left"
    )
    for row in facts["packs"]:
        grid.add_row(row["name"], row["what"], row["licence"], f"{row['bytes'] / 1e6:.0f}", "yes" if row["folder"] else "")
    console.print(grid)
    for kind, members in facts["components"].items():
        grid = Grid(_whole(kind), "what", title_justify="left")
        for name, what in members.items():
            grid.add_row(name, what)
        console.print(grid)


def _whole(header: str) -> Column:
    """A column of names, which are to be copied: on a narrow terminal the others make way for it."""
    from rich.table import Column

    return Column(header, no_wrap=True)
