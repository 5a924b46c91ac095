"""Labelled text, spoken by synthesisers: for labels whose sound cannot be had. Always marked ``synthetic``.

    {"id": "a_1", "text": "like i said less manicured in a good way", "sentiment": "Positive"}

The source is a manifest without sound, or a folder of such, each a split of its name. Its labels are kept; ``speaker`` is the
voice. Every text is said by as many of the voices as wanted, drawn by its id: the same on every machine that has the same
voices, and a voice that is added takes over its share and changes nothing else. With several voices a text, ids are
``<id>_<voice>``, so that a text stays together when a part is held out by session.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stapes.data.corpora.base import Row, language_code, require
from stapes.data.corpora.jsonl import DROPPED_NAME
from stapes.data.corpora.voices import Unspeakable, Voice, choose, say
from stapes.data.manifest import read_texts, replacing
from stapes.errors import RecipeError
from stapes.types import SAMPLE_RATE_HZ, Utterance

OPUS_COMPRESSION = 0.93
"""About 24 kbit/s at 16 kHz, in libsndfile's scale from 256 (0) to 6 kbit/s (1)."""


@dataclass(frozen=True)
class Speaking:
    """How text becomes sound.

    Attributes:
        voices: names such as "flite:slt"; the good ones among those installed, if empty.
        voices_per_text: how many of them say each text.
        jobs: how many texts are said at a time; one for each core, if 0.
    """

    voices: Sequence[str] = ()
    voices_per_text: int = 1
    jobs: int = 0


def spoken_text(source: Path) -> Iterator[Row]:
    """Read a file of texts, or all files of a folder, as rows whose sound is yet to be made.

    Raises:
        DataError: there is none, or one has a bad line.
    """
    paths = sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
    paths = [path for path in paths if path.name != DROPPED_NAME]
    require(bool(paths) and source.exists(), source, "texts with labels, one JSON object a line, or a folder with SPLIT.jsonl")
    for path in paths:
        for utterance in read_texts(path):
            yield Row(path.stem, utterance)


def speak(
    rows: Sequence[Row], folder: Path, how: Speaking, watch: Callable[[list[Row], str], Iterable[Row]] = lambda rows, _: rows
) -> list[Row]:
    """Make the sound of texts, as Ogg/Opus at 16 kHz. What is there already is not made again.

    Args:
        rows: as ``spoken_text`` reads them.
        folder: for ``<split>/<voice>/<id>-<hash of voice and text>.ogg``.
        how: voices and jobs.
        watch: wraps the iteration over all rows (a progress bar).

    Returns:
        A row for each text and voice; a text that a voice cannot say has that as its problem.

    Raises:
        RecipeError: no such voice, or more voices a text than there are.
        MissingDependency: a program is not installed.
    """
    voices = choose(how.voices)
    if not 1 <= how.voices_per_text <= len(voices):
        raise RecipeError("--voices-per-text", str(how.voices_per_text), f"1 to {len(voices)}, the number of voices")
    spoken, unspoken = [], []
    for row in rows:
        drawn = draw(row.utterance, voices, how.voices_per_text)
        spoken += [(_planned(row, voice, folder, how.voices_per_text > 1), voice) for voice in drawn]
        unspoken += [] if drawn else [replace(row, problem=f"no voice for its language: {row.utterance.language}")]
    with ThreadPoolExecutor(how.jobs or os.cpu_count() or 1) as pool:
        futures = [pool.submit(_spoken, row, voice) for row, voice in spoken]
        try:
            done = zip(futures, watch([row for row, _ in spoken], "speaking texts"), strict=True)
            return [future.result() for future, _ in done] + unspoken
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def draw(utterance: Utterance, voices: Sequence[Voice], count: int) -> list[Voice]:
    """The first ``count`` of the voices of its language, in the order of the SHA-256 of id and voice."""
    language = utterance.language and language_code(utterance.language)
    able = [voice for voice in voices if language in (None, voice.language)]
    return sorted(able, key=lambda voice: hashlib.sha256(f"{utterance.id}\n{voice}".encode()).digest())[:count]


def _planned(row: Row, voice: Voice, folder: Path, several: bool) -> Row:
    """The row as it will be when its sound is there."""
    utterance = row.utterance
    content = hashlib.sha256(f"{voice}\n{utterance.text}".encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.-]+", "-", utterance.id)[:80]
    spoken = replace(
        utterance,
        id=f"{utterance.id}_{voice}" if several else utterance.id,
        audio=folder / row.split / str(voice).replace(":", "-") / f"{name}-{content}.ogg",
        speaker=str(voice),
        language=utterance.language or voice.language,
        synthetic=True,
    )
    return replace(row, utterance=spoken, problem="" if utterance.text.strip() else "no text")


def _spoken(row: Row, voice: Voice) -> Row:
    """Make the sound of a row unless it is there."""
    if row.problem or row.utterance.audio.is_file():
        return row
    try:
        write_opus(row.utterance.audio, say(voice, row.utterance.text))
    except Unspeakable as error:
        return replace(row, problem=f"cannot be spoken: {voice}: {error}")
    return row


def write_opus(path: Path, samples: np.ndarray) -> None:
    """Write (N,) samples at 16 kHz as Ogg/Opus in one step: half of a sound never counts."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    opus = {"format": "OGG", "subtype": "OPUS", "compression_level": OPUS_COMPRESSION}
    with replacing(path) as file:
        soundfile.write(file, samples, SAMPLE_RATE_HZ, **opus)
