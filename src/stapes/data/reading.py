"""Sound for training, read ahead of it: by a thread, or where a GPU is waiting by processes.

Speed and noise are a function of (seed, epoch, utterance), so that whoever reads an utterance, and beside which others, changes
nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stapes import audio
from stapes.data.ahead import ahead
from stapes.data.cache import read_utterance
from stapes.errors import StapesError, TrainingError
from stapes.recipe import Data
from stapes.tasks import Example
from stapes.types import Audio, Utterance

MOST_READERS = 16  # processes that read for one that trains
READERS_AHEAD = 2  # batches that each of them has ready

Sound = list[Tensor] | Audio  # cached frames (T, E) of each utterance, or waveforms that are still to be encoded


def generator(*parts: object) -> np.random.Generator:
    """A random generator that depends on its arguments only."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


class Planned(NamedTuple):
    """A micro-batch that is still to be read, and the epoch that it belongs to."""

    epoch: int
    examples: list[Example]


@dataclass(frozen=True)
class Waveforms:
    """Reads micro-batches of sound, with the epoch's speed and noise; light enough to go to another process.

    Attributes:
        data: the recipe's section.
        noise: clips to draw from.
        max_seconds: what the encoder takes at most.
        seed: of what is drawn.
    """

    data: Data
    noise: list[Utterance]
    max_seconds: float
    seed: int

    def __call__(self, planned: Planned) -> Audio:
        """The samples of a micro-batch (B, N)."""
        return Audio.from_arrays([self._waveform(example.utterance, planned.epoch) for example in planned.examples])

    def _waveform(self, row: Utterance, epoch: int) -> np.ndarray:
        samples, rng = read_utterance(row), generator(self.seed, epoch, row.id, "waveform")
        if self.data.speed:
            fitting = [factor for factor in self.data.speed if row.duration / factor <= self.max_seconds]
            samples = audio.speed(samples, float(rng.choice(fitting or [1.0])))
        if self.data.noise and rng.random() < self.data.noise.probability:
            noise = read_utterance(self.noise[int(rng.integers(len(self.noise)))])
            samples = audio.add_noise(samples, noise, float(rng.uniform(*self.data.noise.snr_db)), rng)
        return samples


def by_thread(read: Callable[[Planned], Sound], plan: Iterable[Planned]) -> Iterator[tuple[Planned, Sound]]:
    """What is planned and what was read, one ahead of the caller; on one thread of torch's, as in the processes."""
    return ahead(read, plan, workers=1, threads=1, waiting=1)


def by_processes(read: Callable[[Planned], Sound], plan: Iterable[Planned], count: int) -> Iterator[tuple[Planned, Sound]]:
    """The same by ``count`` processes, each some ahead; in the order of the plan.

    Raises:
        TrainingError: one of them was killed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else each process says that it was forked, and does just this
    waiting: deque[Planned] = deque()

    def noted() -> Iterator[Planned]:
        for planned in plan:
            waiting.append(planned)
            yield planned

    readers = DataLoader(
        _Reader(read),
        batch_size=None,
        sampler=noted(),
        collate_fn=_as_it_is,
        num_workers=count,
        prefetch_factor=READERS_AHEAD,
        generator=torch.Generator(),  # else it draws from the one that a resumed run has to find as it was
    )
    try:
        for sound in readers:
            if isinstance(sound, StapesError):
                raise sound
            yield waiting.popleft(), sound
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        fix = "give the container more shared memory (docker run --shm-size=8g), or set smaller train.batch_seconds"
        raise TrainingError("data", f"one of {count} reading processes was killed", fix=fix) from error


class _Reader(Dataset[Sound | StapesError]):
    """What torch's ``DataLoader`` asks in each of its processes. It would wrap an error in a text of its own."""

    def __init__(self, read: Callable[[Planned], Sound]) -> None:
        self.read = read

    def __getitem__(self, planned: Planned) -> Sound | StapesError:
        try:
            return self.read(planned)
        except StapesError as error:
            return error


def _as_it_is(read: Sound | StapesError) -> Sound | StapesError:
    return read


def own_readers() -> int:
    """How many processes may read for this one: its share of the cores, but for one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_READERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))
