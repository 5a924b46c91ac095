"""Any sound to one kind of array: mono float32 at 16 kHz."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stapes.audio.decode import Sound, Stretch, decode, header_seconds
from stapes.errors import AudioError
from stapes.types import SAMPLE_RATE_HZ

SILENCE_PEAK = 0.5 / 32768
"""Half of the least step of 16-bit sound: what stays below it everywhere is silence."""

MAX_CHANNELS = 16
LOUDEST = 32.0
BEYOND_END_SECONDS = 0.1
"""How far a stretch may reach beyond the end of its file: manifests round durations."""

MOST_PHASES, TURNS = 1000, 1024
"""Up to which resampling is one convolution, since the filters of all phases grow with the square; and its unit of size."""

Source = str | Path | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Tensor


def read(
    source: Source,
    *,
    sample_rate: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
    allow_silent: bool = False,
) -> np.ndarray:
    """Read a sound as mono float32 at 16 kHz.

    Files are decoded by libsndfile, or by FFmpeg where that fails (m4a, mp4, webm and others). Channels are averaged, none is
    dropped; of several tracks the first is taken. Integers are scaled by their range. Of a stretch, only it is decoded where
    the format can be entered exactly (all that libsndfile reads but MP3, and MP4); else what comes before it, too.

    A file that holds less than its header promises is refused. This cannot be seen where nothing is promised: MP3 without a
    Xing header, bare AAC, WAV written to a pipe, WebM of a browser's recorder, Ogg cut exactly between two pages.

    Args:
        source: path, bytes of a sound file, binary file object (read from its position to its end), or samples: NumPy array
            or tensor, (N,), (channels, N) or (N, channels), float in [-1, 1] or integer.
        sample_rate: of an array, in Hz; 16000 if not given. Files carry their own.
        start: where to begin, in seconds.
        duration: how much to read, in seconds; to the end if None.
        allow_silent: accept a sound that is digital silence from beginning to end.

    Returns:
        (N,) float32, nominally in [-1, 1]: lossy codecs and resampling may exceed it by a little, and are not clipped.

    Raises:
        AudioError: missing, empty, truncated, not a sound, NaN or infinite, silent, or shorter than the stretch asked for.
    """
    stretch = _checked_stretch(source, start, duration)
    if isinstance(source, (np.ndarray, Tensor)):
        name = _name(source)
        rate = _checked_rate(name, SAMPLE_RATE_HZ if sample_rate is None else sample_rate)
        samples = _from_array(name, source)[slice(*stretch.frames(rate))]
    else:
        sound = _open(source)
        name = sound.name
        if sample_rate is not None:
            raise AudioError(name, f"sample_rate={sample_rate} for a file", "a rate for arrays only", "leave it out")
        samples, rate = decode(sound, stretch)
        _checked_rate(name, rate)
    _check_reach(name, len(samples) / rate, stretch)
    _check_values(name, samples, allow_silent)
    return resample(samples, rate, SAMPLE_RATE_HZ)


def duration_seconds(source: str | Path | bytes | BinaryIO) -> float:
    """The duration of a sound file in seconds, from its header where that states it and by decoding where not.

    Raises:
        AudioError: as in ``read``, as far as the header shows it.
    """
    sound = _open(source)
    seconds = header_seconds(sound)
    if seconds is None:
        samples, rate = decode(sound, Stretch())
        seconds = len(samples) / rate
    if not seconds:
        raise AudioError(sound.name, "holds no samples")
    return seconds


def resample(samples: np.ndarray, rate: int, to_rate: int) -> np.ndarray:
    """Change the rate of (N,) float32 samples from ``rate`` to ``to_rate`` Hz; N becomes ceil(N * to_rate / rate).

    Polyphase filter with a Kaiser window: flat to 90 % of the lower Nyquist frequency, 80 dB down at it. All rates in use go
    through one convolution that has a channel for each phase, several times as fast as SciPy, which does the odd ones. How many
    threads torch has may change the last bit.
    """
    if rate == to_rate or not len(samples):
        return samples
    # Exact for all rates in use. The bound is for odd ones above 20 kHz, whose filters would fill the memory.
    ratio = Fraction(to_rate, rate).limit_denominator(20_000)
    up, down = ratio.numerator, ratio.denominator
    if max(up, down) > MOST_PHASES:
        from scipy.signal import resample_poly

        return resample_poly(samples, up, down, window=_low_pass(max(up, down))).astype(np.float32, copy=False)
    phases, before = _phases(up, down)
    count = -(-len(samples) * up // down)
    # Of the phases, each of which moves on by ``down`` samples; in round numbers, since every new size has to be prepared.
    turns = -(-count // (up * TURNS)) * TURNS
    after = max(0, (turns - 1) * down + phases.shape[2] - before - len(samples))
    padded = torch.from_numpy(np.pad(np.asarray(samples, dtype=np.float32), (before, after)))
    with torch.autocast("cpu", enabled=False):
        resampled: np.ndarray = F.conv1d(padded[None, None], phases, stride=down)[0].T.flatten()[:count].numpy()
    return resampled


@lru_cache(maxsize=8)
def _phases(up: int, down: int) -> tuple[Tensor, int]:
    """The filter of each phase, (up, 1, taps), and how many samples before its first one a phase reads.

    The sample n = q up + p of the output is the sum over j of h[p down - j up] x[q down + j], with h centred at 0.
    """
    low_pass = _low_pass(max(up, down)) * up
    half = len(low_pass) // 2
    first, last = -(half // up), (half + (up - 1) * down) // up
    places = half + np.arange(up)[:, None] * down - np.arange(first, last + 1) * up
    inside = (places >= 0) & (places < len(low_pass))
    taps = np.where(inside, low_pass[np.where(inside, places, 0)], 0.0)
    return torch.from_numpy(taps.astype(np.float32))[:, None], -first


@lru_cache(maxsize=8)
def _low_pass(ratio: int) -> np.ndarray:
    from scipy.signal import firwin, kaiser_beta

    # 100 samples of the lower rate and 80 dB make a transition of a tenth of its Nyquist frequency, here centred at 0.95.
    return firwin(2 * 50 * ratio + 1, 0.95 / ratio, window=("kaiser", kaiser_beta(80.0))).astype(np.float32)


def _open(source: Any) -> Sound:
    """Check what can be checked before decoding."""
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        try:
            if path.is_dir():
                raise AudioError(path, "is a folder", "a sound file")
            if path.is_fifo():  # such as /dev/stdin: can be read once only
                return _from_bytes(str(path), path.read_bytes())
            size = path.stat().st_size
            with path.open("rb"):
                pass
        except (OSError, ValueError) as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or str(error)
            raise AudioError(str(source)[:200], reason, "a sound file") from None
        if not size:
            raise AudioError(path, "empty file", "a sound file")
        return Sound(str(path), path)
    return _from_bytes(_name(source), source.read() if hasattr(source, "read") else source)


def _from_bytes(name: str, content: Any) -> Sound:
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise AudioError(name, f"gives {type(content).__name__}", "a path, bytes, a binary file or an array of samples")
    if not len(content):
        raise AudioError(name, "no bytes", "a sound file")
    return Sound(name, content=bytes(content))


def _name(source: Any) -> str:
    """What error messages call a source."""
    if isinstance(source, (np.ndarray, Tensor)):
        return f"array {tuple(source.shape)}"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else f"<{type(source).__name__}>"


def _checked_stretch(source: Any, start: float, duration: float | None) -> Stretch:
    if not (math.isfinite(start) and start >= 0):
        raise AudioError(_where(source), f"start is {start} s", "0 or more")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise AudioError(_where(source), f"duration is {duration} s", "more than 0")
    return Stretch(start, duration)


def _where(source: Any) -> str:
    return str(source) if isinstance(source, (str, Path)) else _name(source)


def _checked_rate(name: str, rate: int) -> int:
    if not 1000 <= rate <= 1_000_000:
        raise AudioError(name, f"sample rate {rate} Hz", "1000 to 1000000 Hz")
    return rate


def _from_array(name: str, source: np.ndarray | Tensor) -> np.ndarray:
    """Samples of any shape and type as (N,) float32, not scaled if they are floats."""
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        array = (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    else:
        array = source
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which is reported
            values = array.astype(np.float32)
    elif array.dtype.kind in "iu" and array.dtype.itemsize <= 4:
        half = 2.0 ** (8 * array.dtype.itemsize - 1)
        values = ((array.astype(np.float64) - (half if array.dtype.kind == "u" else 0.0)) / half).astype(np.float32)
    else:
        raise AudioError(name, f"samples of type {array.dtype}", "float, or integer of 8 to 32 bits")
    if values.ndim == 1:
        return values
    if values.ndim != 2 or 0 in values.shape:
        raise AudioError(name, "cannot be read as samples", "(N,), (channels, N) or (N, channels)")
    if (values.shape[0] <= MAX_CHANNELS) == (values.shape[1] <= MAX_CHANNELS):
        raise AudioError(
            name, "which axis is time cannot be told", f"one axis of at most {MAX_CHANNELS}: the channels", "mix first"
        )
    mixed: np.ndarray = values.mean(axis=0 if values.shape[0] <= MAX_CHANNELS else 1)
    return mixed


def _check_reach(name: str, seconds: float, stretch: Stretch) -> None:
    if not seconds and not stretch.start:
        raise AudioError(name, "holds no samples")
    missing = (stretch.duration or 0.0) - seconds
    if not seconds or missing > BEYOND_END_SECONDS:
        until = f" to {stretch.start + stretch.duration:.2f} s" if stretch.duration else ""
        end = f" at {stretch.start + seconds:.2f} s" if seconds else ""
        raise AudioError(name, f"the stretch from {stretch.start:.2f} s{until} lies beyond its end{end}")


def _check_values(name: str, samples: np.ndarray, allow_silent: bool) -> None:
    low, high = float(samples.min()), float(samples.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise AudioError(name, "holds NaN or infinite samples", "numbers")
    peak = max(-low, high)
    if peak > LOUDEST:
        raise AudioError(name, f"samples reach {peak:.0f}", "floats in [-1, 1]", "divide by the full scale, such as 32768")
    if peak < SILENCE_PEAK and not allow_silent:
        raise AudioError(name, "silent, every sample is zero", "sound")
