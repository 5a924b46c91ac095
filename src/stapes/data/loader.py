"""Training batches: a mixture of manifests, filled by duration (lhotse), read from the feature cache or encoded on the fly.

Everything random is a function of (seed, epoch, utterance): which utterances a fractional weight takes, their order, masks,
speed and noise. So a resumed run needs no state of the loader but the step it has reached, and two processes see what one sees.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stapes import audio
from stapes.data.cache import FeatureCache, fill
from stapes.data.manifest import read_manifest
from stapes.data.reading import Planned, Sound, Waveforms, by_processes, by_thread, generator, own_readers
from stapes.encoders import Encoder
from stapes.errors import DataError
from stapes.recipe import Data, Source
from stapes.tasks import Example, Task, find_task
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded, Utterance

MOST_BUCKETS = 20  # ours
BATCHES_PER_BUCKET = 1.5  # more of them: more padding; fewer: more batches that are not full (ours, docs/results.md, "Speed")


@dataclass(frozen=True)
class Batch:
    """Utterances, read; ``TrainingData.frames`` makes frames of them.

    Attributes:
        examples: which utterances they are, and what is asked about each.
        sound: cached frames of each, or waveforms that are still to be encoded.
        seed, epoch: what masks are drawn from.
        masked: whether the recipe's masks are laid over the frames.
    """

    examples: list[Example]
    sound: Sound
    seed: int
    epoch: int
    masked: bool


class _Part(NamedTuple):
    """Utterances of a source that are drawn alike: what is asked, how often they are seen, how much their answers count."""

    rows: list[Utterance]
    task: Task
    weight: float
    emphasis: float


def _kinds(rows: list[Utterance], task: Task, source: Source) -> list[tuple[list[Utterance], float]]:
    """The utterances of a source and their weight; those of every kind apart, if they are to be balanced."""
    if not source.balance:
        return [(rows, source.weight)]
    kinds: dict[str, list[Utterance]] = {}
    for row in rows:
        kinds.setdefault(task.kind(row), []).append(row)
    return [(same, source.weight * len(rows) / (len(kinds) * len(same))) for _, same in sorted(kinds.items())]


class TrainingData:
    """The training mixture of a stage.

    Args:
        data: the recipe's section.
        encoder: gives the frames.
        tasks: of the model, by their keys.
        mixture: of the stage, in place of ``data.train``.
        progress: show a bar while the cache is filled.

    Attributes:
        utterances: all that take part.
        too_long: those left out for ``max_seconds`` or the encoder's window.
        unlabelled: those left out because they lack the labels of the task that their source is for.
        cache: where frames are read from; None encodes each utterance when its turn comes (see ``attach``).
        readers: processes that read sound, where it is not cached; with none, a thread does.

    Raises:
        DataError: nothing is left to train on, of all sources or of one.
    """

    def __init__(
        self,
        data: Data,
        encoder: Encoder,
        tasks: Mapping[str, Task],
        mixture: Sequence[Source] | None = None,
        progress: bool = True,
    ) -> None:
        self.data, self.encoder, self.progress = data, encoder, progress
        most = min(data.max_seconds, encoder.max_seconds)
        self.too_long: list[Utterance] = []
        self.unlabelled: list[Utterance] = []
        self._parts: list[_Part] = []
        for source in data.train if mixture is None else mixture:
            task = find_task(tasks, source.task)
            rows = read_manifest(source.path)
            self.too_long += [row for row in rows if row.duration > most]
            fitting = [row for row in rows if row.duration <= most]
            labelled = [row for row in fitting if task.has_target(row)]
            if fitting and not labelled:
                raise DataError(source.path, "no utterance has labels", f"what the task '{task.key}' is trained on")
            self.unlabelled += [row for row in fitting if not task.has_target(row)]
            self._parts += [_Part(rows, task, weight, source.emphasis) for rows, weight in _kinds(labelled, task, source)]
        self.utterances = list({(row.source, row.id): row for part in self._parts for row in part.rows}.values())
        if not self.utterances:
            raise DataError("data.train", "no utterance to train on", f"manifests with utterances of at most {most:g} s")
        self.noise = read_manifest(data.noise.path) if data.noise else []
        self.cache: FeatureCache | None = None
        self.readers = 0

    @property
    def asked(self) -> list[str]:
        """The keys of the tasks that are trained."""
        return list(dict.fromkeys(part.task.key for part in self._parts))

    def mixture(self) -> Iterator[tuple[Utterance, float]]:
        """Every utterance, and how often it is seen in an epoch; for each of its tasks."""
        return ((row, part.weight) for part in self._parts for row in part.rows)

    def attach(self, cache: bool, device: torch.device | None = None) -> None:
        """Read the frames of the encoder as it now is from a cache (see ``fill``), or encode every batch.

        A GPU trains faster than one core decodes and resamples, so there the other cores read for it, as processes: a script of
        one's own needs Python's guard (``if __name__ == "__main__"``) where those are not forked.

        Args:
            cache: whether there is to be one.
            device: where the model is trained.

        Raises:
            RecipeError: a cache is wanted of an encoder that is being trained.
        """
        self.cache = FeatureCache(self.encoder) if cache else None
        self.readers = own_readers() if device is not None and device.type == "cuda" else 0

    def fill(self, wanted: Collection[Utterance]) -> None:
        """Encode what the cache, if there is one, lacks of the utterances that are about to be read."""
        if self.cache is not None:
            fill(self.cache, wanted, self.progress)

    def epoch(self, seed: int, epoch: int, batch_seconds: float) -> list[list[Example]]:
        """The micro-batches of an epoch, in order: the same for the same arguments."""
        from lhotse import CutSet
        from lhotse.dataset import DynamicBucketingSampler

        drawn: list[Example] = []
        for number, (rows, task, weight, emphasis) in enumerate(self._parts):
            order = generator(seed, epoch, "mixture", number).permutation(len(rows))
            whole, part = divmod(weight, 1)
            seen = rows * int(whole) + [rows[index] for index in sorted(order[: round(part * len(rows))])]
            templates = generator(seed, epoch, "templates", number).integers(len(task.instructions), size=len(seen))
            drawn += [Example(row, task.key, int(which), emphasis) for row, which in zip(seen, templates, strict=True)]
        if len(drawn) == 1:
            return [drawn]  # lhotse makes no fewer than two buckets
        seconds = sum(example.utterance.duration for example in drawn)
        cuts = CutSet.from_cuts(_cut(number, example.utterance) for number, example in enumerate(drawn))
        rng_seed = int(generator(seed, epoch, "order").integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the cuts are in memory already, and few
            warnings.simplefilter("ignore", RuntimeWarning)  # two cuts are too few to draw a line between
            sampler = DynamicBucketingSampler(
                cuts,
                constraint=_at_most(batch_seconds, count_padding=self.cache is None),
                num_buckets=_buckets(len(drawn), seconds / batch_seconds),
                buffer_size=len(drawn),
                shuffle=True,
                seed=rng_seed,
                world_size=1,
                rank=0,
            )
            return [[drawn[int(cut.id)] for cut in batch] for batch in sampler]

    def batches(self, plan: Iterable[Planned], seed: int, masked: bool = True) -> Iterator[Batch]:
        """Read the micro-batches of ``plan``, ahead of the caller; ``masked`` if they are to get the recipe's masks."""
        read = self._read_cached if self.cache is not None else Waveforms(self.data, self.noise, self.encoder.max_seconds, seed)
        ahead = by_processes(read, plan, self.readers) if self.readers and self.cache is None else by_thread(read, plan)
        for (epoch, examples), sound in ahead:
            yield Batch(examples, sound, seed, epoch, masked)

    def _read_cached(self, planned: Planned) -> list[Tensor]:
        assert self.cache is not None
        return [self.cache.get(example.utterance) for example in planned.examples]

    def frames(self, batch: Batch) -> Padded:
        """The frames (B, T, E) of a batch, float32: encoded, where that has not been done, and masked.

        The encoder's part of the graph is kept where it is being trained.
        """
        if isinstance(batch.sound, Audio):
            with torch.inference_mode(not self.encoder.is_trained):
                frames = self.encoder(batch.sound.to(self.encoder.device)).to(dtype=torch.float32)
            frames = Padded(frames.values.clone(), frames.lengths.clone())  # of inference mode, they could not be trained on
        else:
            frames = Padded.from_rows(batch.sound)
        masking = self.data.masking
        if batch.masked and masking is not None and batch.epoch >= masking.from_epoch:
            rngs = [generator(batch.seed, batch.epoch, example.utterance.id, "mask") for example in batch.examples]
            frames = audio.mask_features(frames, rngs, **masking.model_dump(exclude={"from_epoch"}))
        return frames


def _buckets(utterances: int, batches: float) -> int:
    """Into how many buckets of like durations some utterances go, who would fill so many batches; lhotse makes two or more."""
    return max(2, min(MOST_BUCKETS, utterances // 2, round(batches / BATCHES_PER_BUCKET)))


def _at_most(seconds: float, count_padding: bool):  # type: ignore[no-untyped-def]
    """How much goes into a batch, for lhotse; one utterance always does.

    An encoder takes as long for padding as for speech. What is cached has been encoded, and the LLM, which then costs most,
    reads no padding (``llms/packing.py``).
    """
    from lhotse.dataset.sampling.base import TimeConstraint

    class Speech(TimeConstraint):
        def exceeded(self) -> bool:
            return self.current > self.max_duration

        def close_to_exceeding(self) -> bool:
            return self.current + self.longest_seen > self.max_duration

    return (TimeConstraint if count_padding else Speech)(max_duration=seconds)


def _cut(number: int, row: Utterance):  # type: ignore[no-untyped-def]
    """What lhotse's samplers need of an utterance: its duration. The file is not opened."""
    from lhotse import MonoCut, Recording
    from lhotse.audio import AudioSource

    samples = max(1, round(row.duration * SAMPLE_RATE_HZ))
    duration = samples / SAMPLE_RATE_HZ
    recording = Recording(row.id, [AudioSource("file", [0], str(row.audio))], SAMPLE_RATE_HZ, samples, duration)
    return MonoCut(id=str(number), start=0.0, duration=duration, channel=0, recording=recording)
