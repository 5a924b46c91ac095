"""Sound of any length -> text: cut at pauses where it exceeds the encoder's window, decoded in batches, joined again.

Evaluation and transcription both come through here, so that a score is of what a user gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stapes.audio import segment
from stapes.decoding.generate import Hypothesis, generate
from stapes.model import SpeechLLM
from stapes.recipe import Decoding
from stapes.tasks import Result
from stapes.types import SAMPLE_RATE_HZ, Audio, Entity

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
        text: all of it: a transcript, or a translation.
        segments: the stretches it was decoded in; one, unless the sound exceeds the encoder's window.
        capped: whether a stretch reached its cap of tokens, so that text may be missing.
        ctc_text: greedy CTC of the same stretches, without the LLM; None for a model without a CTC head.
        entities: spans of ``text``; None where the task does not name them.
        sentiment: of the whole: what most of its time is; None where the task does not ask.
        repairs: how many places of the answers were malformed and had to be mended.
    """

    text: str
    segments: list[TimedText]
    capped: bool
    ctc_text: str | None
    entities: tuple[Entity, ...] | None = None
    sentiment: str | None = None
    repairs: int = 0

    @property
    def result(self) -> Result:
        """The same as a task's result."""
        return Result(self.text, self.entities, self.sentiment, self.repairs)


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
    task: str = "",
) -> list[Transcript]:
    """Transcribe waveforms, or do another task on them.

    Args:
        model: in evaluation mode.
        sounds: (N,) float32 each, 16 kHz.
        options: of decoding.
        batch_seconds: sound in one batch, padding included.
        on_progress: told the seconds of sound that each batch has finished.
        task: the key of what is asked; the model's first if empty.
    """
    stretches = [stretch for index, samples in enumerate(sounds) for stretch in _cut(index, samples, model.encoder.max_seconds)]
    results: dict[int, Hypothesis] = {}
    device = model.device
    for batch in batches([stretch.seconds for stretch in stretches], batch_seconds):
        audio = Audio.from_arrays([stretches[index].samples for index in batch]).to(device)
        with torch.inference_mode():
            frames = model.encode(audio)
        seconds = [stretches[index].seconds for index in batch]
        results.update(zip(batch, generate(model, frames, seconds, options, task), strict=True))
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
    text, entities, names = "", list[Entity](), False
    feelings: Counter[str] = Counter()
    for stretch, hypothesis in mine:
        result = hypothesis.result
        text += " " if text and result.text else ""
        for entity in result.entities or ():
            listed = entity.start < 0  # in a list beside the text, and nowhere in it
            start, end = (-1, -1) if listed else (entity.start + len(text), entity.end + len(text))
            entities.append(Entity(entity.label, start, end, entity.phrase))
        names = names or result.entities is not None
        text += result.text
        if result.sentiment is not None:
            feelings[result.sentiment] += stretch.seconds  # type: ignore[assignment]
    return Transcript(
        text=text,
        segments=[TimedText(part.start, part.start + part.seconds, hypothesis.text) for part, hypothesis in mine],
        capped=any(hypothesis.capped for _, hypothesis in mine),
        ctc_text=" ".join(heard) if heard or not mine else None,
        entities=tuple(entities) if names else None,
        sentiment=feelings.most_common(1)[0][0] if feelings else None,
        repairs=sum(hypothesis.result.repairs for _, hypothesis in mine),
    )
