"""Sound files to mono samples at their own rate: libsndfile first, FFmpeg (through PyAV) for what it cannot open.

libsndfile is quick and seeks exactly; FFmpeg reads the containers of telephones and browsers (m4a, mp4, webm, aac, amr, wma).
Both are given the same duties: mix the channels, read only the stretch that is asked for, and refuse a file that holds less
than its header promises.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stapes.errors import AudioError
from stapes.types import SAMPLE_RATE_HZ

TOLERANCE_SECONDS = 0.25
"""How much less than promised a compressed file may hold: encoders round up to frames and pad."""

# Without this list, FFmpeg would take a text file for a picture, and a playlist for leave to open other files and addresses.
FFMPEG_FORMATS = "aac,ac3,aiff,amr,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,w64,wav,wv"
RUN_UP_SECONDS = 1.0
"""How long before a stretch FFmpeg begins to decode: the frames just after a seek are not what they are in one go."""

FFMPEG_EXACT = ("mov", "matroska", "flac", "wav")
"""Containers whose stated duration is a fact; in the others FFmpeg estimates it from the bit rate."""


@dataclass(frozen=True)
class Stretch:
    """The part of a sound that is wanted: ``duration`` seconds from ``start``, or everything from there on if None."""

    start: float = 0.0
    duration: float | None = None

    def frames(self, rate: int) -> tuple[int, int | None]:
        """First sample, and the one after the last (None: the end of the file), at ``rate`` Hz."""
        first = round(self.start * rate)
        return first, None if self.duration is None else first + max(1, round(self.duration * rate))


@dataclass(frozen=True)
class Sound:
    """An encoded sound: a file on disk, or the bytes of one.

    Attributes:
        name: what error messages call it.
        path: the file; None for bytes.
        content: the bytes; empty for a file.
    """

    name: str
    path: Path | None = None
    content: bytes = field(default=b"", repr=False)

    def open(self) -> BinaryIO:
        """A fresh, seekable, binary file object at the beginning of the sound."""
        return io.BytesIO(self.content) if self.path is None else self.path.open("rb")


def decode(sound: Sound, stretch: Stretch) -> tuple[np.ndarray, int]:
    """Decode a stretch of a sound.

    Returns:
        (N,) float32, the mean over the channels, and the rate in Hz. N is shorter than asked for where the file ends before.

    Raises:
        AudioError: the file is damaged, cut short, not a sound, or in a codec that neither library knows.
    """
    _check_last_ogg_page(sound)
    try:
        return _decode_libsndfile(sound, stretch)
    except (RuntimeError, TypeError, OSError):  # TypeError: soundfile asks for the rate of a file called .raw
        return _decode_ffmpeg(sound, stretch)


def header_seconds(sound: Sound) -> float | None:
    """The duration of a sound as its header states it; None where it has to be decoded to know."""
    import soundfile

    _check_last_ogg_page(sound)
    try:
        with sound.open() as stream, soundfile.SoundFile(stream) as file:
            _check_promised_bytes(sound, file.extra_info)
            return file.frames / file.samplerate if file.frames else None
    except (RuntimeError, TypeError, OSError):
        with _ffmpeg_stream(sound) as (container, track):
            return _stated_seconds(container, track)


def _decode_libsndfile(sound: Sound, stretch: Stretch) -> tuple[np.ndarray, int]:
    import soundfile

    with sound.open() as stream, soundfile.SoundFile(stream) as file:
        _check_promised_bytes(sound, file.extra_info)
        if not file.frames and file.format == "OGG":
            raise OSError("libsndfile finds no end in this stream")
        rate, end = file.samplerate, file.frames
        first, stop = stretch.frames(rate)
        first, stop = min(first, end), min(end if stop is None else stop, end)
        # libsndfile's position in an MP3 is off after a seek, so what lies before the stretch is decoded and dropped.
        begin = 0 if file.format in ("MP3", "MPEG") else first
        file.seek(begin)
        parts, left = [], stop - begin
        while left > 0 and len(block := file.read(min(left, 1 << 18), dtype="float32", always_2d=True)):
            parts.append(block.mean(axis=1))
            left -= len(block)
    samples = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    if left > TOLERANCE_SECONDS * rate:
        raise _truncated(sound, (stop - left) / rate, end / rate)
    return samples[first - begin :], rate


def _check_promised_bytes(sound: Sound, log: str) -> None:
    """Compare the size of the samples in a WAV or AIFF header with the file's, both as libsndfile logs them.

    A writer to a pipe cannot go back to fill in the size and leaves 0 or nearly 2 or 4 GiB there: that is not a promise.
    A few writers count their own header in; 64 bytes are let pass for them.
    """
    found = re.search(r"^\s*(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if not found:
        return
    promised, held = int(found[1]), int(found[2])
    if held + 64 < promised < 0x7FFF_0000:
        raise AudioError(sound.name, f"truncated, {held} of {promised} bytes of samples", fix="copy the file again")


def _check_last_ogg_page(sound: Sound) -> None:
    """Refuse an Ogg stream whose last page is cut: both libraries would quietly return what comes before it."""
    with sound.open() as stream:
        if stream.read(4) != b"OggS":
            return
        size = stream.seek(0, io.SEEK_END)
        stream.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
        tail = stream.read()
    at = tail.rfind(b"OggS")
    header = tail[at : at + 27] if at >= 0 else b""
    table = tail[at + 27 : at + 27 + header[26]] if len(header) == 27 else b""
    if len(header) < 27 or len(table) < header[26] or at + 27 + len(table) + sum(table) > len(tail):
        raise AudioError(sound.name, "truncated, its last Ogg page is incomplete", fix="copy the file again")


@contextmanager
def _ffmpeg_stream(sound: Sound) -> Iterator[tuple[Any, Any]]:
    """Open a sound with FFmpeg, as its container and its first audio stream; what FFmpeg raises becomes AudioError."""
    import av

    try:
        with sound.open() as file, av.open(file, options={"format_whitelist": FFMPEG_FORMATS}) as container:
            if not container.streams.audio:
                raise AudioError(sound.name, "no sound in this file", "an audio track")
            if container.streams.audio[0].codec_context is None:
                raise AudioError(sound.name, "its codec is not supported", fix="convert the file to wav or flac")
            yield container, container.streams.audio[0]
    except (av.FFmpegError, ValueError, RuntimeError, OSError) as error:
        raise _undecodable(sound, error) from None


def _decode_ffmpeg(sound: Sound, stretch: Stretch) -> tuple[np.ndarray, int]:
    rate, position, parts = 0, 0, []
    with _ffmpeg_stream(sound) as (container, track):
        stated = _stated_seconds(container, track)
        if stated is not None and stretch.start >= stated:
            return np.zeros(0, dtype=np.float32), SAMPLE_RATE_HZ
        # Only MP4 keeps time in samples (WebM: milliseconds), so all else is decoded from its beginning.
        sought = container.format.name.startswith("mov") and stretch.start > RUN_UP_SECONDS
        if sought:
            container.seek(int((stretch.start - RUN_UP_SECONDS) * 1e6))
        for seconds, frame_rate, part in _mono_frames(container, track):
            if not rate:
                rate, position = frame_rate, round(seconds * frame_rate) if sought else 0
            first, stop = stretch.frames(rate)
            parts.append(part[max(0, first - position) : None if stop is None else max(0, stop - position)])
            position += len(part)
            if frame_rate != rate:
                raise ValueError(f"its rate changes from {rate} to {frame_rate} Hz")
            if stop is not None and position >= stop:
                break
    samples = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    rate = rate or SAMPLE_RATE_HZ
    if stated is None:
        return samples, rate
    first, stop = stretch.frames(rate)
    wanted = min(stop or math.inf, round(stated * rate))
    if position < wanted - TOLERANCE_SECONDS * rate:
        raise _truncated(sound, position / rate, stated)
    return samples[: int(wanted) - first], rate  # an encoder's last frame is padded beyond the stated end


def _mono_frames(container: Any, track: Any) -> Iterator[tuple[float, int, np.ndarray]]:
    """The decoded frames as (seconds from the beginning of the track, rate in Hz, (N,) float32)."""
    from av.audio.resampler import AudioResampler

    planar = AudioResampler(format="fltp")  # FFmpeg's own mixing to mono does not take the mean
    begin = float((track.start_time or 0) * track.time_base)
    for frame in container.decode(track):
        seconds = 0.0 if frame.pts is None else float(frame.pts * frame.time_base) - begin
        for converted in planar.resample(frame):
            yield seconds, frame.sample_rate, converted.to_ndarray().mean(axis=0)


def _stated_seconds(container: Any, track: Any) -> float | None:
    """The duration of the audio track, where the container states it as a fact."""
    if not container.format.name.startswith(FFMPEG_EXACT):
        return None
    if track.duration:
        return float(track.duration * track.time_base)
    clock = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", track.metadata.get("DURATION", ""))
    return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]) if clock else None


def _truncated(sound: Sound, held: float, promised: float) -> AudioError:
    return AudioError(sound.name, f"truncated or damaged, ends after {held:.2f} of {promised:.2f} s", fix="copy the file again")


def _undecodable(sound: Sound, error: BaseException) -> AudioError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return AudioError(
        sound.name, f"cannot be decoded ({reason})", "a sound file such as wav, flac, ogg, opus, mp3, m4a or webm"
    )
