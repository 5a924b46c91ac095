"""Training batches: a mixture of manifests, filled by duration (lhotse), read from the feature cache or encoded on the fly.

Everything random is a function of (seed, epoch, utterance): which utterances a fractional weight takes, their order, masks,
speed and noise. So a resumed run needs no state of the loader but the step it has reached, and two processes see what one sees.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stapes import audio
from stapes.data.cache import FeatureCache, fill, read_utterance
from stapes.data.manifest import read_manifest
from stapes.encoders import Encoder
from stapes.errors import DataError, RecipeError
from stapes.recipe import Data
from stapes.types import SAMPLE_RATE_HZ, Audio, Padded, Utterance

BUCKETS = 20


@dataclass(frozen=True)
class Batch:
    """Utterances and their frames (B, T, E), in the same order."""

    utterances: list[Utterance]
    frames: Padded


def generator(*parts: object) -> np.random.Generator:
    """A random generator that depends on its arguments only."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


class TrainingData:
    """The training mixture of a recipe.

    Args:
        data: the recipe's section.
        encoder: gives the frames; frozen where they are cached.
        progress: show a bar while the cache is filled.

    Attributes:
        utterances: all that take part.
        too_long: those left out for ``max_seconds`` or the encoder's window.

    Raises:
        RecipeError: waveform augmentation together with the cache.
        DataError: nothing is left to train on.
    """

    def __init__(self, data: Data, encoder: Encoder, progress: bool = True) -> None:
        self.data, self.encoder = data, encoder
        if data.cache and (data.speed or data.noise):
            raise RecipeError(
                "data.cache", "cached features and waveform augmentation (speed, noise)", "one of them", "set data.cache: false"
            )
        most = min(data.max_seconds, encoder.max_seconds)
        self.too_long: list[Utterance] = []
        self._sources: list[tuple[list[Utterance], float]] = []
        for source in data.train:
            rows = read_manifest(source.path)
            self.too_long += [row for row in rows if row.duration > most]
            self._sources.append(([row for row in rows if row.duration <= most], source.weight))
        self.utterances = [row for rows, _ in self._sources for row in rows]
        if not self.utterances:
            raise DataError("data.train", "no utterance to train on", f"manifests with utterances of at most {most:g} s")
        self.noise = read_manifest(data.noise.path) if data.noise else []
        self.cache: FeatureCache | None = None
        if data.cache:
            self.cache = FeatureCache(encoder)
            fill(self.cache, self.utterances, progress)

    def epoch(self, seed: int, epoch: int, batch_seconds: float) -> list[list[Utterance]]:
        """The micro-batches of an epoch, in order: the same for the same arguments."""
        from lhotse import CutSet
        from lhotse.dataset import BucketingSampler, DynamicBucketingSampler

        drawn: list[Utterance] = []
        for number, (rows, weight) in enumerate(self._sources):
            order = generator(seed, epoch, "mixture", number).permutation(len(rows))
            whole, part = divmod(weight, 1)
            drawn += rows * int(whole) + [rows[index] for index in sorted(order[: round(part * len(rows))])]
        if len(drawn) == 1:
            return [drawn]  # lhotse makes no fewer than two buckets
        cuts = CutSet.from_cuts(_cut(number, row) for number, row in enumerate(drawn))
        rng_seed = int(generator(seed, epoch, "order").integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the cuts are in memory already, and few
            warnings.simplefilter("ignore", RuntimeWarning)  # two cuts are too few to draw a line between
            if self.encoder.padding_is_safe:
                sampler = DynamicBucketingSampler(
                    cuts,
                    max_duration=max(batch_seconds, max(row.duration for row in drawn)),
                    num_buckets=min(BUCKETS, max(2, len(drawn) // 2)),
                    buffer_size=len(drawn),
                    shuffle=True,
                    seed=rng_seed,
                    world_size=1,
                    rank=0,
                )
            else:
                sampler = BucketingSampler(cuts, num_buckets=len(drawn), max_cuts=1, shuffle=True, seed=rng_seed)
            return [[drawn[int(cut.id)] for cut in batch] for batch in sampler]

    def batches(self, plan: Sequence[Sequence[Utterance]], seed: int, epoch: int, masked: bool = True) -> Iterator[Batch]:
        """Read the micro-batches of ``plan``, one ahead of the caller, with the recipe's masks if ``masked``."""
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for rows in plan:
                following = pool.submit(self._read, list(rows), seed, epoch)
                if ahead is not None:
                    yield self._finish(*ahead.result(), seed, epoch, masked)
                ahead = following
            if ahead is not None:
                yield self._finish(*ahead.result(), seed, epoch, masked)

    def _read(self, rows: list[Utterance], seed: int, epoch: int) -> tuple[list[Utterance], list[Tensor] | Audio]:
        if self.cache is not None:
            return rows, [self.cache.get(row) for row in rows]
        return rows, Audio.from_arrays([self._waveform(row, seed, epoch) for row in rows])

    def _finish(self, rows: list[Utterance], read: list[Tensor] | Audio, seed: int, epoch: int, masked: bool) -> Batch:
        """Encode, where that has not been done, and mask."""
        if isinstance(read, Audio):
            device = next(self.encoder.buffers()).device
            frozen = not any(parameter.requires_grad for parameter in self.encoder.parameters())
            with torch.inference_mode(frozen):
                frames = self.encoder(read.to(device)).rows()
        else:
            frames = read
        masking = self.data.masking
        if masked and masking is not None and epoch >= masking.from_epoch:
            options = masking.model_dump(exclude={"from_epoch"})
            frames = [
                audio.mask_features(values, generator(seed, epoch, row.id, "mask"), **options)
                for row, values in zip(rows, frames, strict=True)
            ]
        return Batch(rows, Padded.from_rows([values.clone() for values in frames]))

    def _waveform(self, row: Utterance, seed: int, epoch: int) -> np.ndarray:
        """The samples of an utterance, with the epoch's speed and noise."""
        samples, rng = read_utterance(row), generator(seed, epoch, row.id, "waveform")
        if self.data.speed:
            fitting = [factor for factor in self.data.speed if row.duration / factor <= self.encoder.max_seconds]
            samples = audio.speed(samples, float(rng.choice(fitting or [1.0])))
        if self.data.noise and rng.random() < self.data.noise.probability:
            noise = read_utterance(self.noise[int(rng.integers(len(self.noise)))])
            samples = audio.add_noise(samples, noise, float(rng.uniform(*self.data.noise.snr_db)), rng)
        return samples


def _cut(number: int, row: Utterance):  # type: ignore[no-untyped-def]
    """What lhotse's samplers need of an utterance: its duration. The file is not opened."""
    from lhotse import MonoCut, Recording
    from lhotse.audio import AudioSource

    samples = max(1, round(row.duration * SAMPLE_RATE_HZ))
    duration = samples / SAMPLE_RATE_HZ
    recording = Recording(row.id, [AudioSource("file", [0], str(row.audio))], SAMPLE_RATE_HZ, samples, duration)
    return MonoCut(id=str(number), start=0.0, duration=duration, channel=0, recording=recording)
