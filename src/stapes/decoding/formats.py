"""Transcripts as text, JSON and subtitles (SubRip ``.srt``, WebVTT ``.vtt``).

JSON has the segments as they were decoded. As a subtitle a segment of 25 seconds could not be read: one that holds more text
than a cue is divided into cues, and its time among them in proportion to their characters, which is close and not exact.
Entities are in brackets there as in text; what has no place in the words (a sentiment, entities in a list) is in text and JSON.
"""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from stapes.decoding.longform import TimedText, Transcript
from stapes.errors import RecipeError
from stapes.registry import nearest

LINE_CHARACTERS, CUE_LINES = 42, 2  # what television has settled on


def render(transcript: Transcript, form: str, name: str = "") -> str:
    """A transcript as text, without a newline at its end.

    Args:
        transcript: of one sound.
        form: "text", "json", "srt" or "vtt".
        name: of the sound; JSON has it as "file".

    Raises:
        RecipeError: there is no such format.
    """
    if form not in FORMATS:
        raise RecipeError("format", f"unknown format '{form}'", fix=nearest(form, FORMATS))
    return FORMATS[form](transcript, name)


def parts(transcript: Transcript) -> Iterator[tuple[str, str | None]]:
    """What a transcript says, in order: stretches of text, each with the label of the entity that it is or None; then, a line
    each, the entities that are not in the text, and the sentiment.
    """
    within = [entity for entity in transcript.entities or () if entity.start >= 0]
    done = 0
    for entity in within:
        if entity.start > done:
            yield transcript.text[done : entity.start], None
        yield entity.phrase, entity.label
        done = entity.end
    if done < len(transcript.text):
        yield transcript.text[done:], None
    lines = int(bool(transcript.text))
    for entity in transcript.entities or ():
        if entity.start < 0:
            yield from [("\n", None)] * lines
            yield entity.phrase, entity.label
            lines = 1
    if transcript.sentiment is not None:
        yield ("\n" * lines) + transcript.sentiment, None


def _text(transcript: Transcript, name: str) -> str:
    """Entities in brackets, as the default markup has them."""
    return "".join(text if label is None else f"[{label} {text}]" for text, label in parts(transcript))


def _json(transcript: Transcript, name: str) -> str:
    segments = [{**asdict(part), "start": round(part.start, 3), "end": round(part.end, 3)} for part in transcript.segments]
    found = {"file": name, "text": transcript.text, "segments": segments, "capped": transcript.capped}
    if transcript.entities is not None:
        found["entities"] = [asdict(entity) for entity in transcript.entities]
    if transcript.sentiment is not None:
        found["sentiment"] = transcript.sentiment
    if transcript.repairs:
        found["repairs"] = transcript.repairs
    return json.dumps(found, ensure_ascii=False)


def _srt(transcript: Transcript, name: str) -> str:
    cues = enumerate(_cues(transcript), 1)
    return "\n\n".join(f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n{cue.text}" for number, cue in cues)


def _vtt(transcript: Transcript, name: str) -> str:
    cues = [
        f"{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{html.escape(cue.text, quote=False)}" for cue in _cues(transcript)
    ]
    return "\n\n".join(["WEBVTT", *cues])


def _cues(transcript: Transcript) -> list[TimedText]:
    """The segments as cues of at most two lines; a segment without text has none."""
    cues = []
    for segment, marked in zip(transcript.segments, _marked(transcript), strict=True):
        lines = textwrap.wrap(marked, LINE_CHARACTERS, break_on_hyphens=False)
        texts = ["\n".join(lines[first : first + CUE_LINES]) for first in range(0, len(lines), CUE_LINES)]
        seconds_per_character = (segment.end - segment.start) / max(1, sum(map(len, texts)))
        start = segment.start
        for text in texts:
            end = start + len(text) * seconds_per_character
            cues.append(TimedText(start, end, text))
            start = end
    return cues


def _marked(transcript: Transcript) -> Iterator[str]:
    """The text of each segment, its entities in brackets."""
    start = 0
    for segment in transcript.segments:
        start = transcript.text.index(segment.text, start)
        end = start + len(segment.text)
        within = tuple(
            replace(entity, start=entity.start - start, end=entity.end - start)
            for entity in transcript.entities or ()
            if start <= entity.start and entity.end <= end
        )
        yield _text(replace(transcript, text=segment.text, entities=within, sentiment=None), "")
        start = end


def _time(seconds: float, point: str) -> str:
    """HH:MM:SS and milliseconds."""
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"


FORMATS: dict[str, Callable[[Transcript, str], str]] = {"text": _text, "json": _json, "srt": _srt, "vtt": _vtt}
SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
