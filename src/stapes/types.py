"""The few types that everything else passes around.

Letters used for shapes in every docstring of this package:

    B batch    N samples    M mel bins    T encoder frames    K speech embeddings    L positions of the LLM    U target tokens
    E encoder width    D LLM width    V vocabulary    P pieces (the vocabulary of the CTC head)

Values travel with their lengths: nothing computes a length a second time, and nothing pads without saying so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stapes.errors import ShapeError

SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True)
class Audio:
    """A batch of waveforms.

    Attributes:
        samples: (B, N) float32 in [-1, 1], zero after each length.
        lengths: (B,) int64, in samples.
        sample_rate: in Hz.
    """

    samples: Tensor
    lengths: Tensor
    sample_rate: int = SAMPLE_RATE_HZ

    @classmethod
    def from_arrays(cls, arrays: Sequence[np.ndarray], sample_rate: int = SAMPLE_RATE_HZ) -> Audio:
        """Pad one-dimensional float arrays of any lengths into a batch."""
        lengths = torch.tensor([len(array) for array in arrays], dtype=torch.int64)
        samples = torch.zeros(len(arrays), int(lengths.max()) if len(arrays) else 0)
        for row, array in zip(samples, arrays, strict=True):
            row[: len(array)] = torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float32)
        return cls(samples, lengths, sample_rate)

    @property
    def seconds(self) -> Tensor:
        """(B,) float64, the duration of each waveform."""
        return self.lengths.double() / self.sample_rate

    def to(self, device: torch.device | str) -> Audio:
        """The same batch on another device."""
        return Audio(self.samples.to(device), self.lengths.to(device), self.sample_rate)


@dataclass(frozen=True)
class Padded:
    """A batch of sequences of unequal length.

    Attributes:
        values: (B, T, E).
        lengths: (B,) int64, in steps of ``values``; what lies beyond is padding.
    """

    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if self.values.dim() != 3 or self.lengths.shape != self.values.shape[:1]:
            raise ShapeError(
                "Padded", f"values {tuple(self.values.shape)} with lengths {tuple(self.lengths.shape)}", "(B, T, E) with (B,)"
            )

    @classmethod
    def from_rows(cls, rows: Sequence[Tensor]) -> Padded:
        """Pad B tensors of shape (T_i, E) with zeros."""
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=rows[0].device)
        return cls(torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True), lengths)

    @property
    def mask(self) -> Tensor:
        """(B, T) bool, true where a step is real."""
        return torch.arange(self.values.shape[1], device=self.values.device) < self.lengths[:, None].to(self.values.device)

    def rows(self) -> list[Tensor]:
        """The B sequences without their padding, each (T_i, E)."""
        return [row[:length] for row, length in zip(self.values, self.lengths.tolist(), strict=True)]

    def zero_padding(self) -> Padded:
        """The same batch with zeros in the padding, whatever stood there (NaN included)."""
        return Padded(self.values.masked_fill(~self.mask[:, :, None], 0.0), self.lengths)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Padded:
        """The same batch on another device or in another precision."""
        return Padded(self.values.to(device=device, dtype=dtype), self.lengths.to(device=device))


@dataclass(frozen=True)
class Entity:
    """A labelled span of a text: ``text[start:end]`` is ``phrase``; offsets in characters."""

    label: str
    start: int
    end: int
    phrase: str


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest: a stretch of sound and what is known of it.

    Attributes:
        id: unique within its manifest.
        audio: the sound file.
        text: the transcript as the corpus wrote it; empty for non-speech.
        duration: in seconds.
        start: where the stretch begins in the file, in seconds.
        speaker, language, raw_text, sentiment, kind: as in the manifest; None where unknown.
        entities, raw_entities: spans of ``text`` and of ``raw_text``; None where the corpus has no such labels.
        translations: language code -> text.
        synthetic: whether the sound was made by a speech synthesiser; a score that rests on it has to say so.
        source: "file:line" of the manifest, for error messages.
    """

    id: str
    audio: Path
    text: str
    duration: float
    start: float = 0.0
    speaker: str | None = None
    language: str | None = None
    entities: tuple[Entity, ...] | None = None
    raw_text: str | None = None
    raw_entities: tuple[Entity, ...] | None = None
    translations: dict[str, str] = field(default_factory=dict)
    sentiment: str | None = None
    kind: str | None = None
    synthetic: bool = False
    source: str = ""


@dataclass(frozen=True)
class Score:
    """A measured number that says how it was measured.

    Attributes:
        value: in percent.
        parts: the counts or sub-scores behind it, by name.
        interval: 95 % bootstrap interval (low, high), in percent; None where none was computed.
        signature: metric, normaliser, versions: what one has to know to compare it.
    """

    value: float
    parts: dict[str, Any] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    signature: str = ""
