"""A trained model as one folder that needs nothing else: encoder and LLM beside what training made.

llm/, encoder/      transformers' layout, LoRA merged into the weights: other tools open them as they are
model.safetensors   adapter and CTC head; LoRA too, where it was not to be merged
stapes.json         a run folder's, whose sources are ``path:llm`` and ``path:encoder``: relative to the folder, which may move
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stapes import checkpoint, hub, lora
from stapes.encoders import ENCODERS
from stapes.errors import CheckpointError
from stapes.llms import LLMS
from stapes.model import BASES, SpeechLLM
from stapes.recipe import Recipe


def export(
    name: str | Path,
    folder: Path,
    merge: bool = True,
    dtype: torch.dtype = torch.float32,
    on_step: Callable[[], None] = lambda: None,
) -> Path:
    """Write a trained model, its encoder and its LLM into a new folder.

    It is written aside, opened again to see that it can be, and only then given its name.

    Args:
        name: a shipped name, a run folder or a hub id.
        folder: must not be there.
        merge: add LoRA to the weights it belongs to; otherwise they are written as they are, and LoRA with the adapter.
        dtype: of the encoder and the LLM as written. What was trained beside them stays float32.
        on_step: called four times: when the model is read, the LLM written, the encoder written, the folder opened again.

    Returns:
        ``folder``.

    Raises:
        CheckpointError: no such model, its LLM is in 4 or 8 bits, the folder is there already, or there is no room for it.
        WeightsError: the encoder's or the LLM's weights cannot be had.
    """
    from safetensors import SafetensorError

    if folder.exists():
        raise CheckpointError(folder, "is there already", "a new folder", "choose another, or remove it")
    source = checkpoint.find(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _describe(aside, *_write(source, aside, merge, dtype, on_step))
        on_step()
        aside.rename(folder)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(folder, f"cannot be written ({error})", "a disk with room for it") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _write(
    source: Path, folder: Path, merge: bool, dtype: torch.dtype, on_step: Callable[[], None]
) -> tuple[Recipe, dict[str, Tensor], set[str]]:
    """Write encoder and LLM; returns the recipe of what is now in the folder, its trained tensors, and what of it is stored."""
    recipe = Recipe.model_validate(checkpoint.read_description(source)["recipe"])
    if bits := (recipe.llm or {}).get("quantize"):  # rounded into so few bits, LoRA would be lost or worse (``lora.merge``)
        fix = "use the run folder itself, or train without llm.quantize"
        raise CheckpointError(source, f"llm.quantize: {bits}", "an LLM in full precision", fix)
    model, _, _ = checkpoint.load(source)
    _check_room(model, folder.parent, dtype)
    on_step()
    state = {
        name: tensor.clone()
        for name, tensor in checkpoint.trained_state(model).items()
        if lora.part_of(name) not in BASES and not (merge and lora.MARK in name)
    }
    stored = model.stored - set(BASES)
    for part in (model.llm, model.encoder):
        if merge:
            lora.merge(part)
        lora.remove(part)
        for parameter in part.parameters():
            parameter.data = parameter.data.to(dtype)
    sections: dict[str, Any] = {"lora": None, "encoder_lora": None} if merge else {}
    llm, encoder = dict(recipe.llm or {}), dict(recipe.encoder or {})
    if "weights" not in LLMS.options(llm["name"]):
        llm = {"name": "causal"}
    sections["llm"] = llm | {"weights": "path:llm"}
    model.llm.save(folder / "llm")
    on_step()
    if "weights" in ENCODERS.options(encoder["name"]):
        sections["encoder"] = encoder | {"weights": "path:encoder"}
        model.encoder.save(folder / "encoder")
    on_step()
    return recipe.model_copy(update=sections), state, stored


def _describe(folder: Path, recipe: Recipe, state: dict[str, Tensor], stored: set[str]) -> None:
    """Make the folder a run folder, with the digests of what is opened there."""
    whole = {part: dict(getattr(recipe, part)) for part in BASES}
    for config in whole.values():
        if "weights" in config:
            config["weights"] = hub.within(folder, config["weights"])
    model = checkpoint.assemble(recipe.model_copy(update=whole), stored)
    for part in BASES:
        module, weights = getattr(model, part), getattr(recipe, part).get("weights")
        module.source = weights or module.source
    checkpoint.load_trained(model, state, folder)
    checkpoint.save(model, folder, recipe, state)


def _check_room(model: SpeechLLM, disk: Path, dtype: torch.dtype) -> None:
    small = sum(tensor.numel() for tensor in checkpoint.trained_state(model).values())
    bases = sum(parameter.numel() for part in (model.llm, model.encoder) for parameter in part.parameters())
    needed, free = 4 * small + dtype.itemsize * bases, shutil.disk_usage(disk).free
    if free < needed:
        raise CheckpointError(disk, f"{free / 1e9:.2f} GB free on this disk", f"at least {needed / 1e9:.2f} GB", "make room")
