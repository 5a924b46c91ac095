"""Writing a folder in transformers' layout, and checking that tensors are those of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stapes.errors import WeightsError

WEIGHTS_FILE = "model.safetensors"


def check_fits(where: str, model_class: Any, config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless ``tensors`` are exactly those of the model, in name and shape (tied ones once)."""
    with torch.device("meta"):
        model = model_class(config)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    expected.update({name: tuple(buffer.shape) for name, buffer in model.named_buffers() if name in model.state_dict()})
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise WeightsError(
            where,
            f"{len(wrong)} tensors do not fit, the first {name} {found.get(name, 'is missing')}",
            str(expected.get(name, "no such tensor")),
        )


def save_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``model.safetensors``."""
    from safetensors.torch import save_file

    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it private; a cache may be shared


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Read ``model.safetensors``."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(folder / WEIGHTS_FILE)
    return tensors


def save_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
