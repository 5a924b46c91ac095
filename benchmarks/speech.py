"""Utterances for the benchmarks: those of a manifest, or as many as one likes of the lengths that a real corpus has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from stapes import audio
from stapes.data.manifest import read_manifest, write_manifest
from stapes.data.reading import generator
from stapes.types import SAMPLE_RATE_HZ, Utterance

EXAMPLES = Path(__file__).parents[1] / "examples" / "references.jsonl"

# Log-normal fit to the 1753 utterances of SLUE-VoxPopuli dev (mean 10.2 s), cut to what an encoder of 30 s takes.
LOG_SECONDS_MEAN, LOG_SECONDS_DEVIATION = 2.114, 0.697
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 29.9


def utterances(count: int, folder: Path, manifest: str | None = None) -> list[Utterance]:
    """The utterances of a benchmark, and a manifest of them in ``folder / "utterances.jsonl"``.

    Args:
        count: how many.
        folder: for the manifest, and for made-up utterances' sound.
        manifest: to draw from at random (always the same ones); None makes utterances up: the lengths are drawn from the
            log-normal distribution above, the sound is that of ``examples/``, one sentence after the other, cut off there.
    """
    if manifest is None:
        chosen = [made_up(number, seconds, folder) for number, seconds in enumerate(lengths(count))]
    else:
        rows = [row for row in read_manifest(manifest) if row.duration <= LONGEST_SECONDS and row.text.strip()]
        order = generator("benchmark").permutation(len(rows))[:count]
        chosen = [rows[index] for index in order]
    write_manifest(folder / "utterances.jsonl", chosen)
    return chosen


def lengths(count: int) -> np.ndarray:
    """(count,) durations in seconds, evenly spread over the quantiles of the distribution, in random order.

    Quantiles and not independent draws, so that a few dozen utterances already have the corpus's mean and spread.
    """
    from scipy.stats import norm

    quantiles = (np.arange(count) + 0.5) / count
    seconds = np.exp(LOG_SECONDS_MEAN + LOG_SECONDS_DEVIATION * norm.ppf(quantiles))
    return generator("lengths").permutation(seconds.clip(SHORTEST_SECONDS, LONGEST_SECONDS))


def made_up(number: int, seconds: float, folder: Path) -> Utterance:
    """Example sentences in a row, beginning with another one each time, cut off after ``seconds``, as ``folder/NUMBER.flac``.

    The words of the sentence that is cut are kept in proportion.
    """
    samples, words = [np.zeros(0, np.float32)], []
    wanted = round(seconds * SAMPLE_RATE_HZ)
    for sentence in _sentences(number):
        left = wanted - sum(map(len, samples))
        if left <= 0:
            break
        sound = audio.read(sentence.audio)
        spoken = sentence.text.split()
        samples.append(sound[:left])
        words += spoken[: max(1, round(len(spoken) * min(1.0, left / len(sound))))]
    path = folder / f"{number}.flac"
    soundfile.write(path, np.concatenate(samples), SAMPLE_RATE_HZ)
    return Utterance(str(number), path, " ".join(words), wanted / SAMPLE_RATE_HZ)


def _sentences(first: int) -> Iterator[Utterance]:
    rows = read_manifest(EXAMPLES)
    while True:
        yield rows[first % len(rows)]
        first += 1
