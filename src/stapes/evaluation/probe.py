"""Does it listen? The loss on the right transcripts with the right audio, with another utterance's, and with silence.

A speech LLM that ignores its input still writes fluent text and has a falling loss. If the right audio makes the transcript
no likelier than the wrong one, the model does not listen, whatever the loss says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stapes.model import SpeechLLM
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded

LISTENS_NATS = 0.2  # ours: below this gap, a warning
BATCH = 16


@dataclass(frozen=True)
class Probe:
    """Loss per target token, in nats."""

    right: float
    other: float
    silence: float

    @property
    def gap(self) -> float:
        """How much likelier the right audio makes the transcript, in nats per token."""
        return min(self.other, self.silence) - self.right

    @property
    def listens(self) -> bool:
        """Whether the gap is worth the name."""
        return self.gap >= LISTENS_NATS


@dataclass(frozen=True)
class Losses:
    """What each utterance's target costs, in nats, summed over its tokens.

    Attributes:
        tokens: how many each target has.
        right, other, silence: with the utterance's own audio, with another's, with silence.
    """

    tokens: list[int]
    right: list[float]
    other: list[float]
    silence: list[float]


def probe(model: SpeechLLM, frames: Sequence[Tensor], texts: Sequence[str], task: str = "") -> Probe:
    """Probe a model on at least two utterances; see ``losses``."""
    found = losses(model, frames, texts, task)
    return Probe(*(sum(each) / sum(found.tokens) for each in (found.right, found.other, found.silence)))


def losses(model: SpeechLLM, frames: Sequence[Tensor], texts: Sequence[str], task: str = "") -> Losses:
    """The losses behind a probe, utterance by utterance.

    Args:
        model: in evaluation mode.
        frames: (T, E) of each utterance, of at least two; each is also given to its neighbour.
        texts: the target of each.
        task: the key of what is asked; the model's first if empty.
    """
    answers = [model.answer(text) for text in texts]
    shifted = [*frames[1:], frames[0]]
    silence = [_silent_frames(model, seconds=len(row) * model.encoder.seconds_per_frame) for row in frames]
    return Losses(list(map(len, answers)), *(_losses(model, rows, answers, task) for rows in (frames, shifted, silence)))


def _silent_frames(model: SpeechLLM, seconds: float) -> Tensor:
    samples = torch.zeros(1, max(1, int(min(seconds, model.encoder.max_seconds) * SAMPLE_RATE_HZ)))
    audio = Audio(samples, torch.tensor([samples.shape[1]])).to(model.device)
    with torch.inference_mode():
        return model.encode(audio).rows()[0]


def _losses(model: SpeechLLM, rows: Sequence[Tensor], answers: Sequence[Sequence[int]], task: str) -> list[float]:
    found: list[float] = []
    prompt = model.prompts[task or model.task.key][0]
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = answers[start : start + BATCH]
            frames = Padded.from_rows([row.to(model.device) for row in rows[start : start + BATCH]])
            logits, targets = model.logits(model.speech(frames).embeddings, batch, [prompt] * len(batch))
            each = F.cross_entropy(logits.float(), targets, reduction="none").split([len(answer) for answer in batch])
            found += [float(tokens.sum()) for tokens in each]
    return found
