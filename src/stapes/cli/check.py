"""``stapes check``: is a recipe right, what would it train, and does that fit into memory? No weights are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stapes.cli import options

if TYPE_CHECKING:
    from stapes.recipe import Recipe, Stage
    from stapes.training.footprint import Memory
    from stapes.training.sizes import Outline


def check(
    recipe: options.Recipe,
    settings: options.Settings = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Check a recipe before it is trained.

    Every key, component and manifest is looked at, parameters are counted (all of them, and those that each stage trains), and
    the memory of a training step and of inference is estimated. Weights are not loaded. Sizes of what is not fetched yet are
    those that are known of well-known models; else it is named, its size unknown. A manifest that is not there is named too.

    Examples:

    \b
      stapes check mine.yaml
          the resolved recipe, parameters, memory and data, or the first thing that is wrong with them
    \b
      stapes check stapes-base --set lora.rank=32 --json
          the same as JSON, with one key changed
    \b
      stapes check papers/connect_ctc_whisper_llama --device cuda
          what a paper's model would need on a GPU, also before its data is there
    """
    from stapes import checkpoint
    from stapes import recipe as recipes
    from stapes.training.stages import validate

    options.silence_libraries()
    with options.only_results_on_stdout():
        where = _device_kind(device)
        resolved = checkpoint.inherit(recipes.load(recipe, settings or []))
        validate(resolved)
        facts = _facts(resolved, where)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    _show(facts)


def _device_kind(name: str) -> str:
    """The kind of device whose memory is asked for; this machine need not have it."""
    from stapes.device import resolve_device

    kind = name.partition(":")[0]
    return kind if kind in ("cpu", "cuda", "mps") else resolve_device(name).type


def _facts(recipe: Recipe, device: str) -> dict[str, Any]:
    """Everything there is to say about a resolved recipe on a kind of device, as JSON has it."""
    from stapes import lora
    from stapes.model import BASES
    from stapes.training import footprint, sizes

    found = sizes.outline(recipe)
    using = None if found.missing else footprint.inference(found, recipe, _number_bytes(device))
    parameters = {part: total for part, (_, total) in sizes.counts(found.model).items()}
    return {
        "recipe": recipe.model_dump(mode="json"),
        "parameters": parameters,
        "lora": {part: lora.targets(found.model[part]) for part in BASES if f"{part}.lora" in parameters},
        "missing": found.missing,
        "sizes_from": found.origins,
        "stages": [_stage(found, recipe, stage, device) for stage in recipe.resolved_stages],
        "embeddings_per_second": _reading(found, recipe),
        "inference": {} if using is None else {"memory_bytes": _bytes(using)},
        **_data(recipe),
    }


def _reading(found: Outline, recipe: Recipe) -> dict[str, Any]:
    """How much the LLM has to read, and how that is known; nothing of it where a part's size is not."""
    from stapes.training import footprint

    if found.missing:
        return {}
    read, _ = footprint.rates(found, recipe)
    source = "exact"
    if read < (found.embeddings_per_second or 0.0):
        source = "ours, what the CTC head leaves of ordinary speech"
    elif (most := found.most_embeddings_per_second) is not None:
        source = f"ours, the tokens of ordinary speech; the number depends on what is heard, {most:g} a second at most"
    return {"read": read, "source": source}


def _stage(found: Outline, recipe: Recipe, stage: Stage, device: str) -> dict[str, Any]:
    """What a stage trains and takes; nothing of it where a part's size is not known."""
    from stapes.training import footprint, sizes

    if found.missing:
        return {"name": stage.name}
    trainable = {part: trained for part, (trained, _) in sizes.counts(found.model, stage).items() if trained}
    needed = footprint.training(found, recipe, stage, plain_attention=device == "cpu")
    return {"name": stage.name, "trainable": trainable, "memory_bytes": _bytes(needed)}


def _bytes(needed: Memory) -> dict[str, int]:
    return {"weights": needed.weights, "training": needed.training, "activations": needed.activations, "total": needed.total}


def _number_bytes(device: str) -> int:
    """Of the numbers of encoder and LLM in inference, as ``--dtype auto`` has them."""
    return 2 if device == "cuda" else 4


def _data(recipe: Recipe) -> dict[str, Any]:
    """The recipe's manifests, read and checked, and the paths of those that are not there."""
    from stapes.data.manifest import read_manifest

    mixtures = [stage.mixture for stage in recipe.resolved_stages if stage.mixture is not None] + [recipe.data.train]
    used = list(dict.fromkeys(("train", source.path) for mixture in mixtures for source in mixture))
    used += list(dict.fromkeys(("dev", source.path) for source in recipe.data.dev))
    used += [("noise", recipe.data.noise.path)] if recipe.data.noise else []
    absent = [path for path in dict.fromkeys(path for _, path in used) if not Path(path).exists()]
    rows = []
    for use, path in used:
        if path in absent:
            continue
        utterances = read_manifest(path)
        too_long = sum(utterance.duration > recipe.data.max_seconds for utterance in utterances) if use == "train" else 0
        hours = sum(utterance.duration for utterance in utterances) / 3600
        rows.append({"use": use, "path": path, "utterances": len(utterances), "hours": round(hours, 3), "too_long": too_long})
    return {"data": rows, "missing_data": absent}


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
    if reading := facts["embeddings_per_second"]:
        console.print(f"the LLM reads {reading['read']:.3g} embeddings a second ({reading['source']})", highlight=False)
    if facts["inference"]:
        needed = {name: f"{count / 1e9:.2f} GB" for name, count in facts["inference"]["memory_bytes"].items()}
        parts = f"weights {needed['weights']}, activations of a batch and the LLM's cache about {needed['activations']}"
        console.print(f"memory in inference: about {needed['total']} ({parts})", highlight=False)
    for part, origin in facts["sizes_from"].items():
        console.print(f"sizes of the {part}: {origin}", highlight=False)
    for part, reason in facts["missing"].items():
        console.print(f"{part}: {reason}", highlight=False)
    if facts["data"]:
        table = Table("data", "manifest", "utterances", "hours", "too long")
        for row in facts["data"]:
            table.add_row(row["use"], row["path"], f"{row['utterances']:,}", f"{row['hours']:.2f}", f"{row['too_long'] or ''}")
        console.print(table)
    if facts["missing_data"]:
        console.print(f"not there and not counted: {', '.join(facts['missing_data'])}", markup=False, highlight=False)
