"""A recipe's stages in order, each from where the last one ended: ``stapes train``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from stapes import checkpoint, lora, memory
from stapes.adapters import ADAPTERS
from stapes.data.loader import TrainingData
from stapes.device import settle
from stapes.errors import CheckpointError, RecipeError
from stapes.losses import LOSSES, READ_BY_LLM
from stapes.model import SpeechLLM
from stapes.recipe import Recipe
from stapes.training.display import Display, listed
from stapes.training.loop import LOG, Loop
from stapes.training.validation import Validation

LISTED = 5
CLAIM = "resuming.json"  # in a run folder, whose it is
START = "0-before"  # the folder of what was before the first stage


def train(recipe: Recipe, folder: Path, device: str = "auto") -> Path:
    """Train a recipe into a run folder, or go on with one that was interrupted.

    Args:
        recipe: as ``recipe.load`` gives it.
        folder: of the run; one subfolder a stage, the result on top.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        ``folder``.

    Raises:
        StapesError: anything wrong with recipe, data, weights or an earlier run in ``folder``.
    """
    recipe = checkpoint.inherit(recipe)
    validate(recipe)
    stages = recipe.resolved_stages
    if device == "cpu" or not torch.cuda.is_available():
        memory.keep()
    # An alignment leaves the compressor's map without a gradient, which processes must be told to expect.
    expects_unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    AcceleratorState._reset_state()  # an earlier training in this process may have had another precision
    engine = Accelerator(
        cpu=device == "cpu",
        mixed_precision="bf16" if stages[0].precision == "bf16" else "no",
        kwargs_handlers=[expects_unused],
    )
    settle(engine.device)
    display = Display(engine.is_main_process)
    _check_claim(recipe, folder)
    torch.manual_seed(stages[0].seed)  # of a fresh adapter
    model = checkpoint.build(recipe)
    mixtures = [
        TrainingData(recipe.data, model.encoder, model.tasks, stage.mixture, engine.is_main_process) for stage in stages
    ]  # all of them before the first step: what is wrong with the last one is known now, not in the night
    validation = None
    if recipe.data.dev:
        most = max(stage.evaluate_utterances for stage in stages)
        validation = Validation.load(recipe.data.dev, most, model.encoder, model.tasks)
    _claim(recipe, folder, engine)
    display.track(folder / "tensorboard")
    forgotten = [key for key in model.tasks if not any(key in data.asked for data in mixtures)]
    if recipe.init is not None and forgotten:
        listing = ", ".join(forgotten)
        display.note(
            f"nothing is trained for {listing}: what the model knew of it may be lost, unless data.train has some of it too"
        )
    if validation is not None and recipe.init is not None:
        _score_start(model, validation, recipe, mixtures, folder, engine, display)
    epoch = 0
    for number, (stage, data) in enumerate(zip(stages, mixtures, strict=True), 1):
        if number == 1 or stage.mixture is not None:
            _report(data, display)
        for name in model.losses.keys() & stage.losses.keys():
            model.losses[name].observe(data.mixture())  # type: ignore[operator]
        if validation is not None and validation.criterion(stage, data.asked) is None:
            tasks = ", ".join(data.asked)
            display.note(f"stage {stage.name}: none of its tasks ({tasks}) is in data.dev; its last checkpoint is kept")
        loop = Loop(model, data, validation, recipe, stage, folder / f"{number}-{stage.name}", engine, display, epoch)
        loop.run()
        epoch = loop.epoch
    if engine.is_main_process:
        checkpoint.save(model, folder, recipe, checkpoint.trained_state(model))
        logs = [(folder / f"{number}-{stage.name}" / LOG).read_text() for number, stage in enumerate(stages, 1)]
        start = (folder / START / LOG).read_text() if (folder / START / LOG).exists() else ""
        (folder / LOG).write_text("".join([start, *logs]))
        if validation is not None:
            before = [("before", _kept(start, None))] if start else []
            criteria = [validation.criterion(stage, data.asked) for stage, data in zip(stages, mixtures, strict=True)]
            kept = [(stage.name, _kept(log, by)) for stage, log, by in zip(stages, logs, criteria, strict=True)]
            display.stages([*before, *kept])
    engine.wait_for_everyone()
    return folder


def _check_claim(recipe: Recipe, folder: Path) -> None:
    """Raise CheckpointError for a folder that is another run's or holds other things; nothing is written."""
    mine = folder / CLAIM
    if not mine.exists():
        if folder.exists() and any(folder.iterdir()):
            raise CheckpointError(folder, "not empty and not a run of `stapes train`", "a new folder", "choose another --run")
    elif mine.read_text() != recipe.model_dump_json(indent=1):
        keys = _differing(json.loads(mine.read_text()), recipe.model_dump(mode="json"))
        named = ", ".join(keys[:LISTED]) + (", ..." if len(keys) > LISTED else "")
        raise CheckpointError(
            folder, f"a run of another recipe ({named})", "a new folder, or the recipe it began with", "choose another --run"
        )


def _differing(first: Any, second: Any, key: str = "") -> list[str]:
    """The keys in which two recipes differ, as they are written on the command line."""
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return [] if first == second else [key]
    below = ((name, f"{key}.{name}".lstrip(".")) for name in first | second)
    return [found for name, path in below for found in _differing(first.get(name), second.get(name), path)]


def _claim(recipe: Recipe, folder: Path, engine: Accelerator) -> None:
    """Make the run folder this recipe's."""
    if engine.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLAIM).write_text(recipe.model_dump_json(indent=1))
        free = shutil.disk_usage(folder).free
        if free < 2**30:
            raise CheckpointError(folder, f"{free / 2**20:.0f} MB free on this disk", "at least 1 GB", "make room")
    engine.wait_for_everyone()


def validate(recipe: Recipe) -> None:
    """Raise RecipeError for what is wrong with the stages of a resolved recipe (``checkpoint.inherit``) as a whole."""
    precisions = {stage.precision for stage in recipe.resolved_stages}
    if len(precisions) > 1:
        raise RecipeError("stages", f"precisions {', '.join(sorted(precisions))}", "one for all stages")
    for number, stage in enumerate(recipe.resolved_stages):
        so_far = recipe.resolved_stages[: number + 1]
        if "ctc" in stage.losses and recipe.ctc is None:
            raise RecipeError(f"stages.{number}.losses", "ctc", "a model with a CTC head", "add `ctc: {merges: 1000}`")
        adapter = (recipe.adapter or {})["name"]
        own: Sequence[str] = ADAPTERS[adapter].losses  # type: ignore[attr-defined]
        for name in sorted(set(stage.losses) - {"next_token", "ctc", *LOSSES, *own}):
            expected = f"of the adapter's own losses: {', '.join(own) or 'none'}"
            raise RecipeError(f"stages.{number}.losses", f"{name} with the adapter '{adapter}'", expected)
        trained = any("losses" in earlier.trainable for earlier in so_far)
        learns = {"classifier"} | ({"matching"} if recipe.losses.matching.projection_dim else set())
        if not trained and recipe.init is None and (idle := sorted(learns & stage.losses.keys())):
            found = f"the layers of {' and '.join(idle)} would stay as random as they begin"
            raise RecipeError(f"stages.{number}.trainable", found, fix="add losses to what is trained")
        if "distillation" in stage.losses and any("llm" in earlier.trainable for earlier in so_far):
            found = "distillation where the LLM's own weights are trained: the teacher would follow the student"
            raise RecipeError(f"stages.{number}.losses", found, fix="train llm.lora instead of llm")
        if "encoder.lora" in stage.trainable and recipe.encoder_lora is None:
            expected, fix = "a model with encoder_lora", "add `encoder_lora: {rank: 8}`"
            raise RecipeError(f"stages.{number}.trainable", "encoder.lora", expected, fix)
        if "encoder.layers" in stage.trainable and (recipe.encoder or {}).get("layer") != "weighted":
            expected, fix = "an encoder that mixes its layers", "add `layer: weighted` to encoder"
            raise RecipeError(f"stages.{number}.trainable", "encoder.layers", expected, fix)
        if {"encoder", "encoder.lora", "encoder.layers"} & set(stage.trainable) and stage.cache:
            found = "the encoder is trained, cached features would go stale"
            raise RecipeError(f"stages.{number}.cache", found, fix="set cache: false in this stage")
    if (recipe.data.speed or recipe.data.noise) and all(stage.cache for stage in recipe.resolved_stages):
        found = "cached features and waveform augmentation (speed, noise)"
        raise RecipeError("train.cache", found, "one of them", "set cache: false in the stages that are to have it")


def _score_start(
    model: SpeechLLM,
    validation: Validation,
    recipe: Recipe,
    mixtures: Sequence[TrainingData],
    folder: Path,
    engine: Accelerator,
    display: Display,
) -> None:
    """Score a model that was trained before as it comes, into the log of step 0; once, however often the run is resumed.

    It is asked what the first stage that has the LLM write is asked, so that there is a score to compare each of that stage's
    with; where no stage does, what the first is.
    """
    file, stages = folder / START / LOG, recipe.resolved_stages
    number = next((number for number, stage in enumerate(stages) if READ_BY_LLM & stage.losses.keys()), 0)
    if engine.is_main_process and not file.exists():
        lora.set_trainable(model, stages[0].trainable)  # a cache has to know that the encoder stays as it is
        model.to(engine.device).eval()
        validation.attach(model.encoder, stages[0].cache)
        scores = validation.scores(model, stages[number], recipe.decoding, mixtures[number].asked)
        display.note(f"before the first step: {listed(scores)}")
        file.parent.mkdir(exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"stage": "before", "step": 0, "evaluation": scores}) + "\n")
        part.rename(file)
    engine.wait_for_everyone()


def _kept(log: str, criterion: str | None) -> dict[str, float]:
    """The scores of the checkpoint that a stage kept: of its evaluations, the last of the best; without criterion, the last."""
    records = (json.loads(line) for line in log.splitlines())
    evaluations: list[dict[str, float]] = [record["evaluation"] for record in records if "evaluation" in record]
    return evaluations[-1] if criterion is None else min(reversed(evaluations), key=lambda scores: scores[criterion])


def _report(data: TrainingData, display: Display) -> None:
    hours = sum(row.duration for row in data.utterances) / 3600
    display.note(f"training on {len(data.utterances)} utterances, {hours:.2f} h")
    for rows, reason in ((data.too_long, "are too long"), (data.unlabelled, "have no labels for their task")):
        if rows:
            ids = ", ".join(row.id for row in rows[:LISTED])
            more = ", ..." if len(rows) > LISTED else ""
            display.note(f"left out {len(rows)} utterances that {reason}: {ids}{more}")
