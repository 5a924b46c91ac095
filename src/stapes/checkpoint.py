"""Run folders: what a trained model is, on disk. Loading is strict.

model.safetensors   the trained tensors only: adapter, CTC head, LoRA, the mixture of an encoder's layers
stapes.json         what they belong to: encoder and LLM (sources, digest), adapter, task, prompt, decoding, versions
recipe.yaml         the resolved recipe that trained them
metrics.jsonl       the training's log
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import stapes
from stapes import lora
from stapes.encoders.base import LAYER_WEIGHTS
from stapes.errors import CheckpointError, RecipeError
from stapes.model import SpeechLLM
from stapes.recipe import Decoding, Recipe, Train, parse

FORMAT = 1
TENSORS, DESCRIPTION, RECIPE = "model.safetensors", "stapes.json", "recipe.yaml"
FILES = (TENSORS, DESCRIPTION, RECIPE)  # what a hub has to have of a model
MODELS = Path(__file__).parent / "models"
ADAPTING = {"learning_rate": 2e-4, "lora_learning_rate": 3e-4, "warmup_steps": 20, "average_decay": 0.98}  # ours


def trained_state(model: SpeechLLM) -> dict[str, Tensor]:
    """The tensors that training made: adapter, CTC head, LoRA layers and the mixture of the encoder's layers."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if name.startswith(("adapter.", "ctc.")) or lora.MARK in name or name == f"encoder.{LAYER_WEIGHTS}"
    }


def load_trained(model: SpeechLLM, state: Mapping[str, Tensor], where: object) -> None:
    """Copy trained tensors into ``model``.

    Raises:
        CheckpointError: a tensor is missing, extra or of another shape; the message says how many fit and names the rest.
    """
    own = trained_state(model)
    misfits = [f"missing {name}" for name in sorted(own.keys() - state.keys())]
    misfits += [f"unknown {name}" for name in sorted(state.keys() - own.keys())]
    misfits += [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    if misfits:
        fitting = len(own) - sum(not misfit.startswith("unknown") for misfit in misfits)
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise CheckpointError(
            where,
            f"{fitting} of {len(own)} tensors fit; {'; '.join(misfits[:3])}{more}",
            "exactly the tensors of this adapter and LoRA",
            "load it with the recipe that trained it",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def build(recipe: Recipe) -> SpeechLLM:
    """The model that a recipe describes; with ``init``, its trained tensors and components."""
    if recipe.init is not None:
        return load(recipe.init)[0]
    sections = recipe.model_dump(include={"encoder", "adapter", "llm", "task", "ctc"})
    llm_lora, encoder_lora = (each.model_dump() if each else None for each in (recipe.lora, recipe.encoder_lora))
    return SpeechLLM.build(**sections, llm_lora=llm_lora, encoder_lora=encoder_lora)


def inherit(recipe: Recipe) -> Recipe:
    """A recipe with what its ``init`` model says: components, decoding, and how a trained model is adapted.

    Everything small is trained, at low rates, and CTC holds the alignment (a new speaker or room is first of all a matter of
    sound); precision and batches are those of the model's last stage. What the recipe itself says goes before all of it.

    Raises:
        RecipeError: the recipe names components of its own.
        CheckpointError: the model cannot be found.
    """
    if recipe.init is None:
        return recipe
    parent = Recipe.model_validate(read_description(find(recipe.init))["recipe"])
    names = ("encoder", "adapter", "llm", "task", "ctc", "lora", "encoder_lora")
    for name in names:
        if name in recipe.model_fields_set:
            raise RecipeError(f"{name}", f"given together with init: {recipe.init}", "one of them", f"remove {name} or init")
    last = parent.resolved_stages[-1]
    adapting: dict[str, Any] = {"precision": last.precision, "batch_seconds": last.batch_seconds, **ADAPTING}
    if parent.ctc is not None:
        adapting["losses"] = {"next_token": 1.0, "ctc": 1.0}
    said = recipe.train.model_dump(exclude_unset=True)
    return recipe.model_copy(
        update={name: getattr(parent, name) for name in names}
        | {"train": Train(**adapting | said)}
        | {"decoding": parent.decoding.model_copy(update=recipe.decoding.model_dump(exclude_unset=True))}
    )


def save(
    model: SpeechLLM, folder: Path, recipe: Recipe, state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Write a run folder.

    Args:
        model: what ``state`` belongs to.
        folder: made if need be.
        recipe: resolved (``inherit``).
        state: as ``trained_state`` gives it, or an average of such.
        dtype: of the stored tensors; float16 when shipped.
    """
    from safetensors.torch import save as serialise

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in state.items()}
    (folder / f".{TENSORS}").write_bytes(serialise(tensors))
    (folder / f".{TENSORS}").rename(folder / TENSORS)
    values = recipe.model_dump(mode="json", exclude={"init"})
    description = {
        "format": FORMAT,
        "stapes": stapes.__version__,
        "encoder": _identity(recipe.encoder, model.encoder.source, model.encoder.digest),
        "llm": _identity(recipe.llm, model.llm.source, model.llm.digest),
        "prompt": {"before": model.before.tolist(), "after": model.after.tolist()},
        "recipe": values,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    (folder / RECIPE).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def load(name: str | Path, decoding: Mapping[str, Any] | None = None) -> tuple[SpeechLLM, Decoding, Path]:
    """Load a trained model.

    Args:
        name: a shipped name, a run folder or a hub id.
        decoding: options that replace the checkpoint's.

    Returns:
        The model in evaluation mode, its decoding options, and its folder.

    Raises:
        CheckpointError: not a checkpoint; tensors that do not fit; other base weights; another prompt.
        WeightsError: the encoder's or the LLM's weights cannot be had.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find(name)
    description = read_description(folder)
    recipe = Recipe.model_validate(description["recipe"])
    model = build(recipe)
    for part, module in (("encoder", model.encoder), ("llm", model.llm)):
        wanted = description[part]["digest"]
        if module.digest != wanted:
            raise CheckpointError(
                folder / DESCRIPTION,
                f"the {part} loaded from {module.source} has digest {str(module.digest)[:12]}",
                f"{wanted[:12]}, the {part} that this model was trained with",
                f"use the weights of {description[part]['source']}",
            )
    prompt = {"before": model.before.tolist(), "after": model.after.tolist()}
    if prompt != description["prompt"]:
        raise CheckpointError(
            folder / DESCRIPTION,
            "this tokenizer renders another prompt",
            "the one of training",
            "use the LLM's own tokenizer files",
        )
    try:
        state = load_file(folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(folder / TENSORS, f"unreadable ({error})", "a whole safetensors file", "copy it again") from error
    load_trained(model, state, folder / TENSORS)
    return model, recipe.decoding.model_copy(update=dict(decoding or {})), folder


def find(name: str | Path) -> Path:
    """The folder of a shipped name, a run folder (also one whose training still goes on) or a hub id.

    Raises:
        CheckpointError: there is none.
    """
    for folder in (Path(name), MODELS / str(name)):
        if (folder / DESCRIPTION).is_file():
            return folder
    if Path(name).is_dir():
        raise CheckpointError(name, f"no {DESCRIPTION} in this folder", "a run folder of `stapes train`")
    if str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        from stapes import hub

        return hub.snapshot(str(name), FILES)
    shipped = sorted(path.parent.name for path in MODELS.glob(f"*/{DESCRIPTION}"))
    known = ", ".join(shipped) or "none in this installation"
    raise CheckpointError(name, "no such model", f"a run folder, a hub id (owner/name) or a shipped model ({known})")


def read_description(folder: Path) -> dict[str, Any]:
    """The contents of ``stapes.json``.

    Raises:
        CheckpointError: unreadable, or of another format.
        RecipeError: a recipe that this version does not understand.
    """
    try:
        description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(folder / DESCRIPTION, f"unreadable ({error})", "JSON written by stapes") from error
    if not isinstance(description, dict):
        raise CheckpointError(folder / DESCRIPTION, f"a JSON {type(description).__name__}", "an object written by stapes")
    missing = {"format", "encoder", "llm", "prompt", "recipe"} - description.keys()
    if missing or description["format"] != FORMAT:
        raise CheckpointError(
            folder / DESCRIPTION,
            f"format {description.get('format')}" + (f", without {', '.join(sorted(missing))}" if missing else ""),
            f"format {FORMAT}",
        )
    parse(description["recipe"], str(folder / DESCRIPTION))
    return description


def _identity(config: Mapping[str, Any] | None, source: str, digest: str) -> dict[str, Any]:
    weights = (config or {}).get("weights", [])
    return {"sources": [weights] if isinstance(weights, str) else list(weights), "source": source, "digest": digest}
