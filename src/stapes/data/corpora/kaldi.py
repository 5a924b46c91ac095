"""Kaldi data folders, and with them speechocean762 (arXiv 2104.01378, openslr.org/101), which is published as such.

    train/wav.scp      000010011 WAVE/SPEAKER0001/000010011.WAV
    train/text         000010011 WE CALL IT BEAR
    train/utt2spk      000010011 0001                               (optional)
    train/segments     utterance recording start end, in seconds    (optional; wav.scp then names recordings)

Every folder with a wav.scp becomes a split of its name. Paths are looked for from the source, then from the split's folder.
Transcripts all in capitals, which say nothing, are lower-cased.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stapes.data.corpora.base import UNMEASURED, Row, read_text, require
from stapes.errors import DataError
from stapes.types import Utterance


def kaldi(source: Path) -> Iterator[Row]:
    """Read the data folders in ``source`` (or the one that it is).

    Yields:
        A row for every line of ``text``; an entry of wav.scp that is a command instead of a file is that row's problem.

    Raises:
        DataError: no wav.scp with a ``text`` beside it, or a malformed line.
    """
    tables = sorted(path for path in [source / "wav.scp", *source.glob("*/wav.scp")] if (path.parent / "text").is_file())
    require(bool(tables), source, "SPLIT/wav.scp and SPLIT/text in it")
    for table in tables:
        yield from _rows(source, table.parent)


def _rows(source: Path, folder: Path) -> Iterator[Row]:
    recordings, texts = _columns(folder / "wav.scp"), _columns(folder / "text")
    speakers, segments = _columns(folder / "utt2spk"), _columns(folder / "segments")
    for name, text in texts.items():
        recording, start, end = _segment(folder / "segments", name, segments[name]) if name in segments else (name, 0.0, 0.0)
        path = recordings.get(recording, "")
        candidates = [base / path for base in (source, folder)]
        utterance = Utterance(
            id=name,
            audio=next((candidate for candidate in candidates if candidate.is_file()), candidates[0]),
            text=text.lower() if text.isupper() else text,
            duration=end - start if name in segments else UNMEASURED,
            start=start,
            speaker=speakers.get(name),
        )
        problem = "not in wav.scp" if not path else "wav.scp has a command, not a file" if path.endswith("|") else ""
        yield Row(folder.resolve().name, utterance, problem)


def _columns(path: Path) -> dict[str, str]:
    """First field -> the rest of the line; empty where the file is missing."""
    if not path.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip())
    return {fields[0]: fields[1].strip() if len(fields) == 2 else "" for fields in pairs}


def _segment(path: Path, name: str, written: str) -> tuple[str, float, float]:
    try:
        recording, start, end = written.split()
        return recording, float(start), float(end)
    except ValueError:
        raise DataError(path, f"'{name} {written}'", "utterance recording start end") from None
