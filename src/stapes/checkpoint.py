"""Run folders: what a trained model is, on disk. Loading is strict.

model.safetensors   the trained tensors only: adapter, CTC head, modules of losses, LoRA, the mixture of an encoder's layers,
                    and base weights that a stage trains
stapes.json         what they belong to: encoder and LLM (sources, digest), adapter, task, prompt, decoding, versions
recipe.yaml         the resolved recipe that trained them
metrics.jsonl       the training's log
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import stapes
from stapes import hub, lora
from stapes.errors import CheckpointError, RecipeError, WeightsError
from stapes.model import BASES, SpeechLLM
from stapes.recipe import Decoding, Recipe, Stage, Train, parse
from stapes.tasks import TASKS

FORMAT = 2
TENSORS, DESCRIPTION, RECIPE = "model.safetensors", "stapes.json", "recipe.yaml"
FILES = (TENSORS, DESCRIPTION, RECIPE)  # what a hub has to have of a model
MODELS = Path(__file__).parent / "models"
ADAPTING = {"learning_rate": 2e-4, "lora_learning_rate": 3e-4, "warmup_steps": 20, "average_decay": 0.98}  # ours


def trained_state(model: SpeechLLM) -> dict[str, Tensor]:
    """The tensors that training made: the small parts, and what else is ``stored``; tied ones once."""
    parts = {"adapter", "ctc", "losses", "encoder.layers", *(f"{base}.lora" for base in BASES), *model.stored}
    return {
        name: parameter.detach() for name, parameter in model.named_parameters() if lora.part_of(name) in parts
    } | model.tables()


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
            "exactly the tensors of this adapter and LoRA" + "".join(f" and {part}" for part in sorted(model.stored)),
            "load it with the recipe that trained it",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def build(recipe: Recipe) -> SpeechLLM:
    """The model that a recipe describes and trains; with ``init``, its trained tensors and components."""
    if recipe.init is None:
        model = assemble(recipe)
    else:
        model = load(recipe.init, adapter=recipe.adapter)[0]
        model.set_tasks([TASKS.build(task) for task in recipe.tasks])
        model.set_losses(recipe.loss_modules)
    trained = {part for stage in recipe.resolved_stages for part in stage.trainable}
    model.store(trained & set(BASES))
    return model


def assemble(recipe: Recipe, stored: Iterable[str] = ()) -> SpeechLLM:
    """The components that a recipe names, put together; ``stored`` as in ``SpeechLLM.store``.

    Raises:
        RecipeError: the adapter has state that is no parameter.
    """
    sections = recipe.model_dump(include={"encoder", "adapter", "llm", "tasks", "ctc"})
    llm_lora, encoder_lora = (each.model_dump() if each else None for each in (recipe.lora, recipe.encoder_lora))
    model = SpeechLLM.build(**sections, llm_lora=llm_lora, encoder_lora=encoder_lora, loss_modules=recipe.loss_modules)
    lost = sorted(model.adapter.state_dict().keys() & dict(model.adapter.named_buffers()).keys())
    if lost:
        raise RecipeError(
            f"adapter '{sections['adapter']['name']}'",
            f"buffers that a checkpoint would not have: {', '.join(lost)}",
            "parameters, or buffers that the recipe gives again (persistent=False)",
        )
    model.store(stored)
    return model


def inherit(recipe: Recipe) -> Recipe:
    """A recipe with what its ``init`` model says: components, decoding, and how a trained model is adapted.

    What ``Train.trainable`` names by default is trained, at the rates of ``ADAPTING``, and CTC holds the alignment (a new
    speaker or room is first of all a matter of sound); precision and batches are those of the model's last stage. That goes
    for every stage. What the recipe itself says goes before all of it; of the components, it may give options of the adapter
    that leave its tensors as they are, such as the rate of one that pools.

    Raises:
        RecipeError: the recipe names components of its own, or another adapter.
        CheckpointError: the model cannot be found.
    """
    if recipe.init is None:
        return recipe
    parent = Recipe.model_validate(read_description(find(recipe.init))["recipe"])
    names = ("encoder", "adapter", "llm", "ctc", "lora", "encoder_lora")
    adapter = dict(parent.adapter or {})
    for name in names:
        if name == "adapter" and recipe.adapter is not None and recipe.adapter["name"] == adapter["name"]:
            adapter |= recipe.adapter
        elif name in recipe.model_fields_set:
            raise RecipeError(f"{name}", f"given together with init: {recipe.init}", "one of them", f"remove {name} or init")
    last = parent.resolved_stages[-1]
    adapting: dict[str, Any] = {"precision": last.precision, "batch_seconds": last.batch_seconds, **ADAPTING}
    if parent.ctc is not None:
        adapting["losses"] = {"next_token": 1.0, "ctc": 1.0}
    stages = [Stage(**adapting | stage.model_dump(exclude_unset=True)) for stage in recipe.stages]
    return recipe.model_copy(
        update={name: getattr(parent, name) for name in names}
        | {"adapter": adapter}
        | {"tasks": recipe.tasks if "tasks" in recipe.model_fields_set else parent.tasks}
        | {"train": Train(**adapting | recipe.train.model_dump(exclude_unset=True)), "stages": stages}
        | {"losses": recipe.losses if "losses" in recipe.model_fields_set else parent.losses}
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
    for section, part in (("lora", model.llm), ("encoder_lora", model.encoder)):
        if values[section] is not None and values[section]["targets"] == "auto":
            values[section]["targets"] = lora.targets(part)  # as found: another version may find others
    description = {
        "format": FORMAT,
        "stapes": stapes.__version__,
        "encoder": _identity(recipe.encoder, model.encoder.source, model.encoder.digest),
        "llm": _identity(recipe.llm, model.llm.source, model.llm.digest),
        "prompts": _prompts(model),
        "stored": sorted(model.stored),
        "recipe": values,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    (folder / RECIPE).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def load(
    name: str | Path, decoding: Mapping[str, Any] | None = None, adapter: Mapping[str, Any] | None = None
) -> tuple[SpeechLLM, Decoding, Path]:
    """Load a trained model.

    Args:
        name: a shipped name, a run folder or a hub id.
        decoding: options that replace the checkpoint's.
        adapter: the section that replaces the checkpoint's, with the same tensors; None for its own.

    Returns:
        The model in evaluation mode, its decoding options, and its folder.

    Raises:
        CheckpointError: not a checkpoint; tensors that do not fit; other base weights; another prompt.
        WeightsError: the encoder's or the LLM's weights cannot be had.
    """
    folder = find(name)
    description = read_description(folder)
    recipe = Recipe.model_validate(description["recipe"])
    if adapter is not None:
        recipe = recipe.model_copy(update={"adapter": dict(adapter)})
    model = assemble(recipe, description.get("stored", ()))
    for part, module in (("encoder", model.encoder), ("llm", model.llm)):
        wanted = description[part]["digest"]
        if module.digest != wanted:
            raise CheckpointError(
                folder / DESCRIPTION,
                f"the {part} loaded from {module.source} has digest {str(module.digest)[:12]}",
                f"{wanted[:12]}, the {part} that this model was trained with",
                f"use the weights of {description[part]['source']}",
            )
    if _prompts(model) != description["prompts"]:
        raise CheckpointError(
            folder / DESCRIPTION,
            "this tokenizer renders other prompts",
            "those of training",
            "use the LLM's own tokenizer files",
        )
    state = read_trained(folder)
    # Nothing that answers needs the modules of losses: a file may come without those of any of them.
    model.set_losses({name: options for name, options in model.loss_options.items() if _has(state, model.losses[name], name)})
    load_trained(model, state, folder / TENSORS)
    return model, recipe.decoding.model_copy(update=dict(decoding or {})), folder


def read_trained(folder: Path) -> dict[str, Tensor]:
    """The tensors of a run folder.

    Raises:
        CheckpointError: the file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(folder / TENSORS)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(folder / TENSORS, f"unreadable ({error})", "a whole safetensors file", "copy it again") from error
    return state


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
        try:
            return hub.snapshot(str(name), FILES)
        except WeightsError as error:
            raise CheckpointError(name, f"no such folder, and as a hub id: {error.found}", fix=error.fix) from error
    shipped = sorted(path.parent.name for path in MODELS.glob(f"*/{DESCRIPTION}"))
    known = ", ".join(shipped) or "none in this installation"
    raise CheckpointError(name, "no such model", f"a run folder, a hub id (owner/name) or a shipped model ({known})")


def read_description(folder: Path) -> dict[str, Any]:
    """The contents of ``stapes.json``; sources that lie in the folder (``path:llm``), as in an export, with their whole path.

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
    missing = {"format", "encoder", "llm", "prompts", "recipe"} - description.keys()
    if missing or description["format"] != FORMAT:
        raise CheckpointError(
            folder / DESCRIPTION,
            f"format {description.get('format')}" + (f", without {', '.join(sorted(missing))}" if missing else ""),
            f"format {FORMAT}",
        )
    parse(description["recipe"], str(folder / DESCRIPTION))
    for part in BASES:
        config = description["recipe"].get(part) or {}
        if isinstance(config.get("weights"), str):
            config["weights"] = hub.within(folder, config["weights"])
        elif isinstance(config.get("weights"), list):
            config["weights"] = [hub.within(folder, source) for source in config["weights"]]
    return description


def _has(state: Mapping[str, Tensor], loss: nn.Module, name: str) -> bool:
    """Whether a file has anything of a loss, or there is nothing to have."""
    return any(key.startswith(f"losses.{name}.") for key in state) or not list(loss.parameters())


def _prompts(model: SpeechLLM) -> dict[str, list[dict[str, list[int]]]]:
    """Token ids of every prompt, by task."""
    return {key: [prompt._asdict() for prompt in prompts] for key, prompts in model.prompts.items()}


def _identity(config: Mapping[str, Any] | None, source: str, digest: str) -> dict[str, Any]:
    weights = (config or {}).get("weights", [])
    return {"sources": [weights] if isinstance(weights, str) else list(weights), "source": source, "digest": digest}
