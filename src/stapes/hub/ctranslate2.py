"""Reads the weights of a CTranslate2 ``model.bin`` of format version 6, as data.

Layout, little-endian: u32 version; string specification; u32 revision; u32 count; then for each variable: string name,
u8 rank, u32 sizes, u8 type, u32 bytes, the values; then u32 count of aliases and pairs of strings. A string is a u16 length,
which includes a final NUL, and its bytes.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stapes.errors import WeightsError

VERSION = 6
_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}


class _Reader:
    """A position in a file's bytes; every read is checked against their end."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.position = path, path.read_bytes(), 0

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self.data):
            raise WeightsError(self.path, f"ends at byte {len(self.data)}", f"at least {end} bytes")
        start, self.position = self.position, end
        return memoryview(self.data)[start:end]

    def number(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]
        return value

    def string(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode("utf-8", errors="replace")

    def tensor(self) -> Tensor:
        shape = [self.number("I") for _ in range(self.number("B"))]
        code, size = self.number("B"), self.number("I")
        if code not in _TYPES or int(np.prod(shape, dtype=object)) * np.dtype(_TYPES[code]).itemsize != size:
            raise WeightsError(self.path, f"a variable of type {code}, shape {shape} in {size} bytes", "one that fits")
        values = np.frombuffer(self.take(size), dtype=_TYPES[code]).reshape(shape)
        return torch.from_numpy(values.copy())


def read_ctranslate2(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Read the variables of a ``model.bin``.

    Args:
        path: the file.

    Returns:
        The name of the specification ("WhisperSpec"), and name -> tensor in the file's own types. Aliases, which name tied
        weights a second time, are left out.

    Raises:
        WeightsError: the file has another version, is cut short or is no such file.
    """
    reader = _Reader(path)
    version = reader.number("I")
    if version != VERSION:
        raise WeightsError(path, f"version {version}", f"a CTranslate2 file of version {VERSION}")
    specification = reader.string()
    reader.number("I")
    variables = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        variables[name] = reader.tensor()
    return specification, variables
