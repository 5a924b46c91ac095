"""Sound of any length -> text: cut at pauses where it exceeds the encoder's window, decoded in batches, joined again.

Evaluation and transcription both come through here, so that a score is of what a user gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stapes.audio import segment
from stapes.decoding.generate import Hypothesis, generate
from stapes.model import SpeechLLM
from stapes.recipe import Decoding
from stapes.types import SAMPLE_RATE_HZ, Audio

BATCH_SECONDS = 120.0
CUT_SECONDS = 25.0  # long audio is cut into pieces well below the window: most of training is shorter still


@dataclass(frozen=True)
class TimedText:
    """The text of one stretch of sound, in seconds from its beginning."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What was heard in one sound.

    Attributes:
        text: all of it.
        segments: the stretches it was decoded in; one, unless the sound exceeds the encoder's window.
        capped: whether a stretch reached its cap of tokens, so that text may be missing.
        ctc_text: greedy CTC of the same stretches, without the LLM; None for a model without a CTC head.
    """

    text: str
    segments: list[TimedText]
    capped: bool
    ctc_text: str | None


@dataclass(frozen=True)
class _Stretch:
    sound: int
    start: float
    samples: np.ndarray

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def recognise(
    model: SpeechLLM,
    sounds: Sequence[np.ndarray],
    options: Decoding,
    batch_seconds: float = BATCH_SECONDS,
    on_progress: Callable[[float], None] | None = None,
) -> list[Transcript]:
    """Transcribe waveforms.

    Args:
        model: in evaluation mode.
        sounds: (N,) float32 each, 16 kHz.
        options: of decoding.
        batch_seconds: sound in one batch, padding included.
        on_progress: told the seconds of sound that each batch has finished.
    """
    stretches = [stretch for index, samples in enumerate(sounds) for stretch in _cut(index, samples, model.encoder.max_seconds)]
    results: dict[int, Hypothesis] = {}
    device = model.device
    for batch in batches([stretch.seconds for stretch in stretches], batch_seconds):
        audio = Audio.from_arrays([stretches[index].samples for index in batch]).to(device)
        with torch.inference_mode():
            frames = model.encode(audio)
        seconds = [stretches[index].seconds for index in batch]
        results.update(zip(batch, generate(model, frames, seconds, options), strict=True))
        if on_progress is not None:
            on_progress(sum(seconds))
    return [_join(index, stretches, results) for index in range(len(sounds))]


def batches(seconds: Sequence[float], batch_seconds: float) -> list[list[int]]:
    """Indices grouped by duration, longest first, each group at most ``batch_seconds`` with its padding."""
    groups: list[list[int]] = []
    for index in sorted(range(len(seconds)), key=lambda index: -seconds[index]):
        longest = seconds[groups[-1][0]] if groups else 0.0
        if groups and (len(groups[-1]) + 1) * longest <= batch_seconds:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _cut(index: int, samples: np.ndarray, max_seconds: float) -> list[_Stretch]:
    """A sound as stretches that fit the window."""
    if len(samples) <= max_seconds * SAMPLE_RATE_HZ:
        return [_Stretch(index, 0.0, samples)]
    pieces = segment.split(samples, max_seconds=min(CUT_SECONDS, max_seconds))
    return [_Stretch(index, piece.start, piece.cut(samples)) for piece in pieces]


def _join(sound: int, stretches: list[_Stretch], results: dict[int, Hypothesis]) -> Transcript:
    mine = [(stretch, results[index]) for index, stretch in enumerate(stretches) if stretch.sound == sound]
    heard = [hypothesis.ctc_text for _, hypothesis in mine if hypothesis.ctc_text is not None]
    return Transcript(
        text=" ".join(hypothesis.text for _, hypothesis in mine if hypothesis.text),
        segments=[TimedText(part.start, part.start + part.seconds, hypothesis.text) for part, hypothesis in mine],
        capped=any(hypothesis.capped for _, hypothesis in mine),
        ctc_text=" ".join(heard) if heard or not mine else None,
    )
