"""What a stage is judged by while it trains: WER on held-out utterances, and whether the model listens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stapes.data.cache import FeatureCache, encode, fill
from stapes.data.loader import generator
from stapes.data.manifest import read_manifest
from stapes.decoding.generate import generate
from stapes.decoding.longform import BATCH_SECONDS, batches
from stapes.encoders import Encoder
from stapes.errors import DataError
from stapes.evaluation.probe import probe
from stapes.losses import READ_BY_LLM
from stapes.metrics.wer import wer
from stapes.model import SpeechLLM
from stapes.recipe import Decoding, Stage
from stapes.types import Padded, Utterance

PROBED = 32


@dataclass
class Validation:
    """A fixed random part of a held-out manifest.

    Attributes:
        utterances: at most the number asked for, none longer than the encoder's window.
        cache: where their frames are; None encodes them at every evaluation, as a trainable encoder needs (see ``attach``).
    """

    utterances: list[Utterance]
    cache: FeatureCache | None = None

    @classmethod
    def load(cls, path: str, count: int, encoder: Encoder) -> Validation:
        """Read the manifest and draw ``count`` utterances (the same ones for the same manifest)."""
        rows = [row for row in read_manifest(path) if row.duration <= encoder.max_seconds and row.text.strip()]
        if not rows:
            raise DataError(path, "no utterance with a transcript", "at least one to choose checkpoints on")
        chosen = sorted(generator("validation").permutation(len(rows))[:count])
        return cls([rows[index] for index in chosen])

    def attach(self, encoder: Encoder, cache: bool) -> None:
        """Keep the frames of the encoder as it now is in a cache, or encode at every evaluation."""
        self.cache = FeatureCache(encoder) if cache else None
        if self.cache is not None:
            fill(self.cache, self.utterances)

    def criterion(self, stage: Stage) -> str:
        """The score that the best checkpoint has the lowest of: a word error rate, or the losses where nothing writes words."""
        return "wer" if READ_BY_LLM & stage.losses.keys() else "ctc_wer" if "ctc" in stage.losses else "loss"

    def scores(self, model: SpeechLLM, stage: Stage, decoding: Decoding) -> dict[str, float]:
        """WER of the whole model and of its CTC head alone (those that the stage trains), and the listening probe.

        In a stage that trains neither, the stage's losses by their weights, each per target.
        """
        reading = bool(READ_BY_LLM & stage.losses.keys())
        references = [model.task.target(row) for row in self.utterances]
        frames = [self._frames(model, row) for row in self.utterances]
        seconds = [row.duration for row in self.utterances]
        texts, heard = [""] * len(frames), [""] * len(frames)
        for batch in batches(seconds, BATCH_SECONDS):
            padded = Padded.from_rows([frames[index] for index in batch])
            if reading:
                found = generate(model, padded, [seconds[index] for index in batch], decoding)
                results = [(hypothesis.text, hypothesis.ctc_text) for hypothesis in found]
            else:
                with torch.inference_mode():
                    results = [("", text) for text in model.heard(model.speech(padded))]
            for index, (text, ctc_text) in zip(batch, results, strict=True):
                texts[index], heard[index] = text, ctc_text or ""
        scores: dict[str, float] = {}
        if model.ctc is not None:
            scores["ctc_wer"] = wer(references, heard, normaliser=model.task.normaliser, resamples=0).value
        if reading:
            score = wer(references, texts, normaliser=model.task.normaliser, resamples=0)
            scores |= {"wer": score.value} | {name: score.parts[name] for name in ("substitutions", "deletions", "insertions")}
            if len(frames) > 1:
                listening = probe(model, frames[:PROBED], references[:PROBED])
                scores |= {
                    "loss_right_audio": listening.right,
                    "loss_other_audio": listening.other,
                    "loss_silence": listening.silence,
                }
        if self.criterion(stage) == "loss":
            scores["loss"] = self.loss(model, stage, frames)
        return scores

    def loss(self, model: SpeechLLM, stage: Stage, frames: list[torch.Tensor]) -> float:
        """The weighted losses of a stage, each per target of all utterances, whose frames (T, E) these are."""
        answers = [model.answer(model.task.target(row)) for row in self.utterances]
        counts, total = model.target_counts(answers, self.utterances), 0.0
        for batch in batches([row.duration for row in self.utterances], BATCH_SECONDS):
            padded, rows = Padded.from_rows([frames[index] for index in batch]), [self.utterances[index] for index in batch]
            with torch.inference_mode():
                losses = model(padded, [answers[index] for index in batch], stage.losses, rows)
            total += sum(stage.losses[name] * float(value) / max(1, counts[name]) for name, value in losses.items())
        return total

    def _frames(self, model: SpeechLLM, row: Utterance) -> torch.Tensor:
        found = self.cache.get(row) if self.cache is not None else encode(model.encoder, [row]).rows()[0]
        return found.to(model.device)
