"""Where a model runs and in which precision: what ``--device`` and ``--dtype`` mean everywhere."""

from __future__ import annotations

import torch
from torch import nn

from stapes import lora, packed
from stapes.encoders.base import LAYER_WEIGHTS
from stapes.errors import RecipeError
from stapes.model import SpeechLLM
from stapes.registry import nearest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is the first of cuda, mps and cpu that is there.

    Raises:
        RecipeError: this machine has no such device.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [kind for kind, present in has.items() if present]
    if name == "auto":
        return torch.device(there[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RecipeError("device", f"unknown device '{name}'", fix=nearest(str(name), ["auto", *has])) from None
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type not in there or (device.index or 0) >= count:
        raise RecipeError("device", f"'{name}' is not there", f"one that this machine has: {', '.join(there)}")
    return device


def resolve_dtype(name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision of that name; None and "auto" are bfloat16 on cuda (float16 where it lacks that) and float32 elsewhere.

    Raises:
        RecipeError: there is no such precision.
    """
    if name is None or name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if isinstance(name, torch.dtype) and name in DTYPES.values():
        return name
    if name not in DTYPES:
        raise RecipeError("dtype", f"unknown dtype '{name}'", fix=nearest(str(name), ["auto", *DTYPES]))
    return DTYPES[str(name)]


def settle(device: torch.device) -> None:
    """What a process does before it computes on a device: on a GPU, do without cuDNN's attention from then on.

    It is built anew for every shape, and in speech hardly two batches have one; a decoder even makes one with every token.
    Measured in training (docs/results.md, "On a GPU").
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of an encoder or LLM to a precision, in place.

    What was trained beside them stays float32, the mixture of an encoder's layers and LoRA, which is merged before
    (``lora.merge``) and kept to be saved. Buffers stay as they are too: a rounded mel filter bank or rotary frequency is
    another model. So do the weights of batch norms, which have to be as precise as their statistics, and those are buffers.
    What is quantised is packed into integers, and stays so.
    """
    for path, part in module.named_modules():
        for name, parameter in part.named_parameters(path, recurse=False):
            is_kept = isinstance(part, BATCH_NORMS) or lora.MARK in f".{name}" or name == LAYER_WEIGHTS
            if parameter.is_floating_point() and not is_kept:
                parameter.data = parameter.data.to(dtype)


def place(model: SpeechLLM, device: torch.device, dtype: torch.dtype) -> None:
    """Move a model to a device, and cast its encoder and LLM to a precision.

    Adapter and CTC head stay float32: they are small, and which label leads by how little decides what the LLM gets to read.
    On a CPU, the weights of encoder and LLM lie ready for its kernels (``packed.py``).
    """
    settle(device)
    for module in (model.encoder, model.llm):
        cast(module, dtype)
    model.to(device)
    for module in (model.encoder, model.llm):
        packed.pack(module, without=lora.MARK)
