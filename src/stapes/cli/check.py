"""``stapes check``: is a recipe right, what would it train, and does that fit into memory? No weights are loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from stapes.cli import options

if TYPE_CHECKING:
    from stapes.recipe import Recipe, Stage
    from stapes.training.sizes import Outline


def check(
    recipe: options.Recipe,
    settings: options.Settings = None,
    as_json: options.AsJson = False,
) -> None:
    """Check a recipe before it is trained.

    Every key, component and manifest is looked at, parameters are counted (all of them, and those that each stage trains), and
    the memory of a training step is estimated. Weights are not loaded; what is not fetched yet is named, its size unknown.

    Examples:

    \b
      stapes check mine.yaml
          the resolved recipe, parameters, memory and data, or the first thing that is wrong with them
    \b
      stapes check stapes-base --set lora.rank=32 --json
          the same as JSON, with one key changed
    """
    from stapes import checkpoint
    from stapes import recipe as recipes
    from stapes.training.stages import validate

    options.silence_libraries()
    with options.only_results_on_stdout():
        resolved = checkpoint.inherit(recipes.load(recipe, settings or []))
        validate(resolved)
        facts = _facts(resolved)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    _show(facts)


def _facts(recipe: Recipe) -> dict[str, Any]:
    """Everything there is to say about a resolved recipe, as JSON has it."""
    from stapes import lora
    from stapes.model import BASES
    from stapes.training import sizes

    found = sizes.outline(recipe)
    parameters = {part: total for part, (_, total) in sizes.counts(found.model).items()}
    return {
        "recipe": recipe.model_dump(mode="json"),
        "parameters": parameters,
        "lora": {part: lora.targets(found.model[part]) for part in BASES if f"{part}.lora" in parameters},
        "missing": found.missing,
        "stages": [_stage(found, recipe, stage) for stage in recipe.resolved_stages],
        "data": _data(recipe),
    }


def _stage(found: Outline, recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """What a stage trains and takes; nothing of it where a part's size is not known."""
    from stapes.training import sizes

    if found.missing:
        return {"name": stage.name}
    trainable = {part: trained for part, (trained, _) in sizes.counts(found.model, stage).items() if trained}
    needed = sizes.memory(found, recipe, stage)
    memory = {"weights": needed.weights, "training": needed.training, "activations": needed.activations, "total": needed.total}
    return {"name": stage.name, "trainable": trainable, "memory_bytes": memory}


def _data(recipe: Recipe) -> list[dict[str, Any]]:
    """The recipe's manifests, read and checked."""
    from stapes.data.manifest import read_manifest

    used = [("train", source.path) for source in recipe.data.train]
    used += [("dev", recipe.data.dev)] if recipe.data.dev else []
    used += [("noise", recipe.data.noise.path)] if recipe.data.noise else []
    rows = []
    for use, path in used:
        utterances = read_manifest(path)
        too_long = sum(utterance.duration > recipe.data.max_seconds for utterance in utterances) if use == "train" else 0
        hours = sum(utterance.duration for utterance in utterances) / 3600
        rows.append({"use": use, "path": path, "utterances": len(utterances), "hours": round(hours, 3), "too_long": too_long})
    return rows


def _show(facts: dict[str, Any]) -> None:
    """The facts for people: the recipe as YAML, then tables."""
    import yaml
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True)
    console.print(yaml.safe_dump(facts["recipe"], sort_keys=False), markup=False, highlight=False)
    stages = facts["stages"]
    if facts["parameters"]:
        table = Table("part", "parameters", *(f"trained in {stage['name']}" for stage in stages))
        for part, total in facts["parameters"].items():
            trained = (stage.get("trainable", {}).get(part) for stage in stages)
            table.add_row(part, f"{total:,}", *("" if count is None else f"{count:,}" for count in trained))
        console.print(table)
    for part, names in facts["lora"].items():
        console.print(f"{part}.lora on {', '.join(names)}", highlight=False)
    for stage in stages:
        if "memory_bytes" in stage:
            needed = {name: f"{count / 1e9:.2f} GB" for name, count in stage["memory_bytes"].items()}
            parts = f"weights {needed['weights']}, gradients and optimiser {needed['training']}"
            parts += f", activations of a micro-batch about {needed['activations']}"
            console.print(f"memory in {stage['name']}: about {needed['total']} ({parts})", highlight=False)
    for part, reason in facts["missing"].items():
        console.print(f"{part}: {reason}", highlight=False)
    if facts["data"]:
        table = Table("data", "manifest", "utterances", "hours", "too long")
        for row in facts["data"]:
            table.add_row(row["use"], row["path"], f"{row['utterances']:,}", f"{row['hours']:.2f}", f"{row['too_long'] or ''}")
        console.print(table)
