"""Long audio to segments of bounded length, cut at pauses and covering all speech."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from stapes.errors import RecipeError
from stapes.types import SAMPLE_RATE_HZ

SPEECH_THRESHOLD = 0.3
"""Speech probability above which a frame counts as speech: below the detector's usual 0.5, for what is lost cannot be heard."""

MIN_SPEECH_MS = 100
MIN_PAUSE_MS = 200
ENERGY_WINDOW_SECONDS = 0.1
MIN_REST_SECONDS = 1.0
"""A stretch of unbroken speech is not cut closer than this to its end, where there is a choice."""

_vad_lock = threading.Lock()  # the detector carries its state from call to call

Span = tuple[int, int]
"""First sample, and the one after the last."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a sound, in seconds from its beginning."""

    start: float
    end: float

    def cut(self, samples: np.ndarray) -> np.ndarray:
        """This stretch of (N,) samples at 16 kHz, without copying."""
        return samples[round(self.start * SAMPLE_RATE_HZ) : round(self.end * SAMPLE_RATE_HZ)]


def split(
    samples: np.ndarray, *, max_seconds: float, max_pause_seconds: float = 2.0, padding_seconds: float = 0.2
) -> list[Segment]:
    """Cut a sound into segments of at most ``max_seconds`` that together hold all of its speech.

    What is short enough is one segment, whole and unexamined. Otherwise a voice activity detector (silero-vad) finds the
    speech, and a segment runs on until it is full; it then ends at the widest pause in its second half, or failing that at
    its last pause. Where speech runs on without a pause it ends at the quietest point of the second half. Segments neither
    overlap nor leave out speech; pauses between segments are left out.

    Args:
        samples: (N,) float32 at 16 kHz.
        max_seconds: the longest that a segment may be.
        max_pause_seconds: a longer pause always ends a segment.
        padding_seconds: what is kept on either side of speech.

    Returns:
        Segments in order of time; none if the sound is longer than ``max_seconds`` and holds no speech.

    Raises:
        RecipeError: ``max_seconds`` is less than 1.
    """
    if not max_seconds >= 1.0:
        raise RecipeError("max_seconds", f"{max_seconds}", "1 second or more")
    if len(samples) <= max_seconds * SAMPLE_RATE_HZ:
        return [Segment(0.0, len(samples) / SAMPLE_RATE_HZ)]
    runs = _pad(find_speech(samples), round(padding_seconds * SAMPLE_RATE_HZ), len(samples))
    spans = _fill(samples, runs, int(max_seconds * SAMPLE_RATE_HZ), round(max_pause_seconds * SAMPLE_RATE_HZ))
    return [Segment(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ) for start, end in spans]


def find_speech(samples: np.ndarray) -> list[Span]:
    """The stretches of (N,) float32 samples at 16 kHz in which somebody speaks, in order; the same for the same samples."""
    with _vad_lock, _one_thread():
        detect, model = _vad()
        found = detect(
            torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)),
            model,
            threshold=SPEECH_THRESHOLD,
            sampling_rate=SAMPLE_RATE_HZ,
            min_speech_duration_ms=MIN_SPEECH_MS,
            min_silence_duration_ms=MIN_PAUSE_MS,
            speech_pad_ms=0,
        )
    return [(speech["start"], speech["end"]) for speech in found]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread and then in as many as before.

    The detector's matrices are so small that a second thread slows it tenfold on a busy machine; and importing it sets the
    number of threads of the whole process to 1.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _vad() -> tuple[Callable[..., list[dict[str, int]]], Any]:
    """silero-vad's function that finds speech, and its model."""
    import silero_vad

    return silero_vad.get_speech_timestamps, silero_vad.load_silero_vad()


def _pad(speech: list[Span], padding: int, total: int) -> list[Span]:
    """Widen each stretch on both sides, and join those that then touch."""
    runs: list[Span] = []
    for start, end in speech:
        start, end = max(0, start - padding), min(total, end + padding)
        if runs and start <= runs[-1][1]:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def _fill(samples: np.ndarray, runs: list[Span], longest: int, longest_pause: int) -> list[Span]:
    """Join and cut runs of speech into spans of at most ``longest`` samples."""
    spans: list[Span] = []
    while runs:
        start, end = runs[0]
        count = _fitting(runs, longest, longest_pause)
        if count:
            spans.append((start, runs[count - 1][1]))
            runs = runs[count:]
        else:
            cut = _quietest(samples, start, end, longest)
            spans.append((start, cut))
            runs = [(cut, end), *runs[1:]]
    return spans


def _fitting(runs: list[Span], longest: int, longest_pause: int) -> int:
    """How many of the first runs make the next span; 0 if the first alone is too long."""
    start = runs[0][0]
    for count, (begin, end) in enumerate(runs):
        if count and begin - runs[count - 1][1] > longest_pause:
            return count
        if end - start > longest:
            late = [at for at in range(1, count + 1) if runs[at - 1][1] >= start + longest // 2]
            return max(late, key=lambda at: (runs[at][0] - runs[at - 1][1], at), default=count)
    return len(runs)


def _quietest(samples: np.ndarray, start: int, end: int, longest: int) -> int:
    """Where to cut unbroken speech ``start:end`` so that what comes before is at most ``longest``: at its energy's minimum."""
    window = min(round(ENERGY_WINDOW_SECONDS * SAMPLE_RATE_HZ), max(1, longest // 4))
    low = start + longest // 2
    high = max(low + window, min(start + longest, end - round(MIN_REST_SECONDS * SAMPLE_RATE_HZ)))
    high = min(high, start + longest)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples[low:high], dtype=np.float64))])
    sums = energy[window:] - energy[:-window]
    return low + int(np.argmin(sums)) + window // 2
