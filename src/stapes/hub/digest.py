"""Digests: of the bytes of a file or folder, and of tensors, which say whether two copies of a model are the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from stapes.errors import WeightsError

_WRAPPERS = ("module.", "_orig_mod.", "model.")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 that says which weights these are, whatever file, order or precision they came in.

    Each tensor adds its name, its shape and its values as little-endian float16, in the order of the names. Names are
    canonical without the wrappers that depend on how a model was opened: ``module.``, ``_orig_mod.`` and ``model.`` in front
    are dropped. A float32 copy of float16 weights therefore has the digest of the original: widening is exact, and narrowing
    again gives the same bits. A bfloat16 copy has another one, for it keeps 8 of the 11 bits.

    Args:
        tensors: name -> tensor of any shape and floating-point type, each used tensor once (tied ones under one name).

    Returns:
        64 hexadecimal digits.

    Raises:
        WeightsError: two names are the same once canonical.
    """
    canonical = {_canonical(name): tensor for name, tensor in tensors.items()}
    if len(canonical) != len(tensors):
        raise WeightsError("digest", "two tensors have the same canonical name", "each used tensor once")
    total = hashlib.sha256()
    for name in sorted(canonical):
        values = canonical[name].detach().to(device="cpu", dtype=torch.float16).contiguous()
        total.update(f"{name} {list(values.shape)}\n".encode())
        total.update(values.numpy().astype("<f2", copy=False).tobytes())
    return total.hexdigest()


def _canonical(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def file_sha256(path: Path) -> str:
    """The sha256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """The sha256 over the names and sha256 of all files below a folder, in the order of the names; 64 hexadecimal digits."""
    total = hashlib.sha256()
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        total.update(f"{name} {file_sha256(folder / name)}\n".encode())
    return total.hexdigest()
