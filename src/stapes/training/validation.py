"""What a stage is judged by while it trains: scores on held-out utterances, and whether the model listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from stapes.data.cache import FeatureCache, encode, fill
from stapes.data.manifest import read_manifest
from stapes.data.reading import generator
from stapes.decoding.generate import generate
from stapes.decoding.longform import BATCH_SECONDS, batches
from stapes.encoders import Encoder
from stapes.errors import DataError, RecipeError
from stapes.evaluation.probe import probe
from stapes.losses import READ_BY_LLM
from stapes.metrics.wer import wer
from stapes.model import SpeechLLM
from stapes.recipe import Decoding, HeldOut, Stage
from stapes.tasks import Example, Result, Task, find_task
from stapes.types import Padded, Utterance

PROBED = 32
ERROR = "error"  # the mean over tasks of 100 minus what is better high, or of the error rate


@dataclass(frozen=True)
class Part:
    """Held-out utterances, and what is asked about them.

    Attributes:
        label: of its scores.
        task: of the model.
        utterances: with the labels that the task needs.
    """

    label: str
    task: Task
    utterances: list[Utterance]

    @property
    def is_synthetic(self) -> bool:
        """Whether a synthesiser made some of the sound, which the names of its scores then say."""
        return any(utterance.synthetic for utterance in self.utterances)


@dataclass
class Validation:
    """A fixed random part of each held-out manifest.

    Attributes:
        parts: one or more.
        cache: where their frames are; None encodes them at every evaluation, as a trainable encoder needs (see ``attach``).
    """

    parts: list[Part]
    cache: FeatureCache | None = None

    @classmethod
    def load(cls, sources: Sequence[HeldOut], count: int, encoder: Encoder, tasks: Mapping[str, Task]) -> Validation:
        """Read the manifests and draw ``count`` utterances of each (the same ones for the same manifest).

        Raises:
            DataError: a manifest has nothing that its task can be scored on.
            RecipeError: a manifest is given twice for one task.
        """
        labels = _labels([(find_task(tasks, source.task).key, Path(source.path)) for source in sources])
        parts = []
        for source, label in zip(sources, labels, strict=True):
            task = find_task(tasks, source.task)
            rows = [row for row in read_manifest(source.path) if row.duration <= encoder.max_seconds and row.text.strip()]
            rows = [row for row in rows if task.has_target(row)]
            if not rows:
                found = "no utterance with a transcript" + (f" and labels for '{task.key}'" if task.key != "asr" else "")
                raise DataError(source.path, found, "at least one to choose checkpoints on")
            chosen = sorted(generator("validation").permutation(len(rows))[:count])
            parts.append(Part(label, task, [rows[index] for index in chosen]))
        return cls(parts)

    def attach(self, encoder: Encoder, cache: bool) -> None:
        """Keep the frames of the encoder as it now is in a cache, or encode at every evaluation."""
        self.cache = FeatureCache(encoder) if cache else None
        if self.cache is not None:
            fill(self.cache, [row for part in self.parts for row in part.utterances])

    def criterion(self, stage: Stage, trained: Collection[str] = ()) -> str | None:
        """The score that the best checkpoint has the lowest of: errors of what is written, or the losses where nothing is.

        None where nothing that the stage trains is held out. The error of its other tasks would not do in its place: a
        checkpoint that has learnt nothing has forgotten least.

        Args:
            stage: what is trained.
            trained: as for ``scores``.
        """
        if READ_BY_LLM & stage.losses.keys():
            if trained and not any(part.task.key in trained for part in self.parts):
                return None
            return self.parts[0].task.criterion if self._is_simple else ERROR
        return "ctc_wer" if "ctc" in stage.losses else "loss"

    @property
    def _is_simple(self) -> bool:
        """Whether there is one thing to score, by an error rate and on speech: its scores need no label."""
        return len(self.parts) == 1 and self.parts[0].task.lower_is_better and not self.parts[0].is_synthetic

    def scores(self, model: SpeechLLM, stage: Stage, decoding: Decoding, trained: Collection[str] = ()) -> dict[str, float]:
        """Scores of every part, those of the CTC head alone, and the listening probe (on the first part).

        In a stage that trains neither LLM nor CTC head, the stage's losses by their weights, each per target.

        Args:
            model: in evaluation mode.
            stage: what is trained, and so what can be judged.
            decoding: how text is generated.
            trained: the keys of the tasks whose errors are to be as few as possible; of all if there are none.
        """
        scores: dict[str, float] = {}
        errors: list[float] = []
        reading = bool(READ_BY_LLM & stage.losses.keys())
        for number, part in enumerate(self.parts):
            frames = [self._frames(model, row) for row in part.utterances]
            results, heard = self._results(model, part, frames, decoding if reading else None)
            references = [part.task.reference(row) for row in part.utterances]
            if model.ctc is not None and number == 0:
                texts = [row.text for row in part.utterances]
                scores["ctc_wer"] = wer(texts, heard, normaliser=model.transcription.normaliser, resamples=0).value
            if reading:
                found = part.task.scores(references, results, resamples=0)
                prefix = "" if self._is_simple else f"{part.label}{'(synthetic)' if part.is_synthetic else ''}."
                scores |= {f"{prefix}{name}": score.value for name, score in found.items()}
                if self._is_simple and "wer" in found:
                    scores |= {kind: found["wer"].parts[kind] for kind in ("substitutions", "deletions", "insertions")}
                best = found[part.task.criterion].value
                if part.task.key in trained or not trained:
                    errors.append(best if part.task.lower_is_better else 100 - best)
            if reading and number == 0 and len(frames) > 1:
                targets = [part.task.target(row) for row in part.utterances[:PROBED]]
                listening = probe(model, frames[:PROBED], targets, part.task.key)
                scores |= {
                    "loss_right_audio": listening.right,
                    "loss_other_audio": listening.other,
                    "loss_silence": listening.silence,
                }
            if number == 0 and self.criterion(stage, trained) == "loss":
                scores["loss"] = self.loss(model, stage, frames)
        if self.criterion(stage, trained) == ERROR:
            scores[ERROR] = sum(errors) / len(errors)
        return scores

    def loss(self, model: SpeechLLM, stage: Stage, frames: list[torch.Tensor]) -> float:
        """The weighted losses of a stage on the first part, each per target, whose frames (T, E) these are."""
        part, total = self.parts[0], 0.0
        examples = [Example(row, part.task.key) for row in part.utterances]
        counts = model.target_counts(model.targets(examples))
        for batch in batches([row.duration for row in part.utterances], BATCH_SECONDS):
            padded, targets = Padded.from_rows([frames[row] for row in batch]), model.targets([examples[row] for row in batch])
            with torch.inference_mode():
                losses = model(padded, targets, stage.losses)
            total += sum(stage.losses[name] * float(value) / max(1, counts[name]) for name, value in losses.items())
        return total

    def _results(
        self, model: SpeechLLM, part: Part, frames: Sequence[torch.Tensor], decoding: Decoding | None
    ) -> tuple[list[Result], list[str]]:
        """What the model answers, and what its CTC head alone hears, of each utterance; no answers without ``decoding``."""
        seconds = [row.duration for row in part.utterances]
        results, heard = [Result("")] * len(frames), [""] * len(frames)
        for batch in batches(seconds, BATCH_SECONDS):
            padded = Padded.from_rows([frames[index] for index in batch])
            if decoding is not None:
                found = generate(model, padded, [seconds[index] for index in batch], decoding, part.task.key)
                for index, hypothesis in zip(batch, found, strict=True):
                    results[index], heard[index] = hypothesis.result, hypothesis.ctc_text or ""
            else:
                with torch.inference_mode():
                    texts = model.heard(model.speech(padded))
                for index, text in zip(batch, texts, strict=True):
                    heard[index] = text or ""
        return results, heard

    def _frames(self, model: SpeechLLM, row: Utterance) -> torch.Tensor:
        found = self.cache.get(row) if self.cache is not None else encode(model.encoder, [row]).rows()[0]
        return found.to(model.device)


def _labels(sources: Sequence[tuple[str, Path]]) -> list[str]:
    """A label for each (key of a task, manifest): the key where it is there once, else with the folder's name.

    Where folders of manifests for one task have the same name, as much of the paths as tells them all apart.

    Raises:
        RecipeError: a manifest is given twice for one task.
    """
    for (key, path), count in Counter(sources).items():
        if count > 1:
            raise RecipeError("data.dev", f"{path} twice for the task '{key}'", "every manifest once for a task")
    paths: dict[str, list[Path]] = {}
    for key, path in sources:
        paths.setdefault(key, []).append(path)
    return [key if len(paths[key]) == 1 else f"{key}({_told_apart(path, paths[key])})" for key, path in sources]


def _told_apart(path: Path, paths: Sequence[Path]) -> str:
    """What tells one of several paths from the others: its folder's name, or the shortest ends of them that all differ."""
    if len({each.parent.name for each in paths}) == len(paths):
        return path.parent.name
    count = 1
    while len({each.parts[-count:] for each in paths}) < len(paths):
        count += 1
    return "/".join(path.parts[-count:])
