"""What a check is given, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stapes.model import SpeechLLM
from stapes.recipe import Recipe
from stapes.types import SAMPLE_RATE_HZ, Audio

Verdict = Literal["ok", "warning", "wrong"]
SOUND_SECONDS = 61.0  # longer than any check asks for


@dataclass(frozen=True)
class Finding:
    """One line of a doctor's report.

    Attributes:
        check: what was looked at.
        verdict: "wrong" if it breaks a promise that other parts rely on, "warning" if it is worth knowing.
        found: in one line.
    """

    check: str
    verdict: Verdict
    found: str


@dataclass(frozen=True)
class Pair:
    """An encoder, an LLM and an adapter, put together for examination.

    Attributes:
        model: of these parts, its adapter fresh.
        recipe: that describes them, with one stage, in which the adapter is trained.
        sound: (N,) at 16 kHz, at least ``SOUND_SECONDS`` long.
    """

    model: SpeechLLM
    recipe: Recipe
    sound: np.ndarray

    def cut(self, seconds: float, start: float = 0.0) -> np.ndarray:
        """That much of the sound, from ``start`` seconds on and round to its beginning."""
        first = round(start * SAMPLE_RATE_HZ)
        return np.roll(self.sound, -first)[: round(seconds * SAMPLE_RATE_HZ)]

    def audio(self, *arrays: np.ndarray) -> Audio:
        """Waveforms as a batch, where the model is."""
        return Audio.from_arrays(arrays).to(self.model.device)


def synthesise(seconds: float = SOUND_SECONDS) -> np.ndarray:
    """Sound (N,) float32 to try an encoder on where no recording is given: bursts of a gliding tone over noise, with pauses."""
    time = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    glide = 2 * np.pi * np.cumsum(300 + 200 * np.sin(3 * time) + 50 * np.sin(0.37 * time)) / SAMPLE_RATE_HZ
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * time), 0, None) * (np.sin(2 * np.pi * 0.21 * time) > -0.8)
    tone = sum(np.sin(harmonic * glide) / harmonic for harmonic in (1, 2, 3, 5, 8))
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.1 * tone * syllables + 0.01 * noise).astype(np.float32)


def difference(found: Tensor, wanted: Tensor) -> float:
    """How far apart two tensors are, relative to the second; infinite where one is not a number or their shapes differ."""
    if found.shape != wanted.shape or not bool(found.isfinite().all()):
        return float("inf")
    return float((found - wanted).norm() / wanted.norm().clamp(min=torch.finfo(torch.float32).tiny))


def size(parameters: int) -> str:
    """A number of parameters for people: "134.5 M"."""
    return f"{parameters / 1e6:,.1f} M" if parameters >= 1e5 else f"{parameters:,}"
