"""What ``Encoder`` promises, tried: size, frame rate, lengths, padding, and that every sound is heard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from stapes.decoding.longform import recognise
from stapes.doctor.base import Finding, Pair, difference, size
from stapes.errors import AudioError
from stapes.recipe import Decoding
from stapes.types import SAMPLE_RATE_HZ

SECONDS = (0.1, 0.11, 0.62, 1.0, 1.2345, 7.7, 15.0, 29.7, 30.0, 45.0, 60.0)
BESIDE_SECONDS = (0.3, 1.23, 3.7, 8.0)
RATE_TOLERANCE = 0.03
SAME = 1e-3  # relative; rounding of float32 in deep encoders stays well below
ROUNDING_SECONDS = 1e-6  # less than a sample: a model may leave out as much as a frame
BURST_SAMPLES = 320


@torch.inference_mode()
def sizes(pair: Pair) -> Iterator[Finding]:
    """Width and parameters."""
    encoder = pair.model.encoder
    found = encoder(pair.audio(pair.cut(1.0))).values
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    told = f"{encoder.source}: {encoder.dim} wide, {size(parameters)} parameters"
    if found.shape[-1] != encoder.dim:
        yield Finding("encoder", "wrong", f"{told}, but its frames are {found.shape[-1]} wide")
    elif not encoder.digest:
        yield Finding("encoder", "wrong", f"{told}; it has no digest, so that features would be cached under no name")
    else:
        yield Finding("encoder", "ok", told)


@torch.inference_mode()
def frame_rate(pair: Pair) -> Iterator[Finding]:
    """Frames of the longest sound it takes, against ``seconds_per_frame``."""
    encoder = pair.model.encoder
    seconds = min(encoder.max_seconds, 30.0)
    frames = int(encoder(pair.audio(pair.cut(seconds))).lengths[0])
    measured = seconds / frames
    told = f"{frames} frames of {seconds:g} s are {1000 * measured:.2f} ms each, it says {1000 * encoder.seconds_per_frame:.2f}"
    is_right = abs(measured / encoder.seconds_per_frame - 1) <= RATE_TOLERANCE + 1 / frames
    yield Finding("frame rate", "ok" if is_right else "wrong", told)


@torch.inference_mode()
def frame_counts(pair: Pair) -> Iterator[Finding]:
    """``output_lengths`` against what comes out, from 0.1 s to the longest sound it takes."""
    encoder = pair.model.encoder
    wrong, tried = [], [seconds for seconds in SECONDS if seconds <= encoder.max_seconds]
    for seconds in tried:
        audio = pair.audio(pair.cut(seconds))
        promised = int(encoder.output_lengths(audio.lengths)[0])
        found = encoder(audio)
        if int(found.lengths[0]) != promised or found.values.shape[1] != promised or promised < 1:
            wrong.append(f"{seconds:g} s give {found.values.shape[1]}, promised were {promised}")
        elif not bool(found.values.isfinite().all()):
            wrong.append(f"{seconds:g} s give values that are no numbers")
        elif (promised + 1) * encoder.seconds_per_frame < seconds - ROUNDING_SECONDS:
            wrong.append(f"{seconds:g} s give frames for {promised * encoder.seconds_per_frame:.2f} s only")
    told = "; ".join(wrong) or f"as promised for {len(tried)} lengths from {tried[0]:g} to {tried[-1]:g} s"
    yield Finding("numbers of frames", "wrong" if wrong else "ok", told)


@torch.inference_mode()
def too_long(pair: Pair) -> Iterator[Finding]:
    """What is longer than the window is refused by the encoder, and cut by the long-audio path."""
    longest = pair.model.encoder.max_seconds
    if longest >= SECONDS[-1]:
        yield Finding("long sound", "ok", f"takes {SECONDS[-1]:g} s at once (at most {longest:g})")
        return
    try:
        pair.model.encoder(pair.audio(pair.cut(longest + 0.1)))
        is_refused = False
    except AudioError:
        is_refused = True
    if not is_refused:
        yield Finding(
            "long sound", "wrong", f"{longest + 0.1:g} s are taken without an error, where {longest:g} s are the most"
        )
        return
    shortest_answer = Decoding(tokens_per_second=0.01, tokens_spare=1)
    (transcript,) = recognise(pair.model, [pair.cut(SECONDS[-1])], shortest_answer)
    told = f"more than {longest:g} s is refused; {SECONDS[-1]:g} s are cut into {len(transcript.segments)} pieces"
    yield Finding("long sound", "ok", told)


@torch.inference_mode()
def padding(pair: Pair) -> Iterator[Finding]:
    """The frames of an utterance alone, in a batch and beside a longer one; zeros behind them."""
    encoder = pair.model.encoder
    seconds = [each for each in BESIDE_SECONDS if each <= encoder.max_seconds]
    sounds = [pair.cut(each, start=2 * each) for each in seconds]
    told = "it says that padding is safe"
    if not encoder.padding_is_safe:
        sounds += [pair.cut(seconds[1], start=start) for start in (5.0, 11.0)]  # only these go through the layers together
        told = "it says that padding is not safe, and is given one length at a time"
    batch = encoder(pair.audio(*sounds))
    alone = [encoder(pair.audio(sound)).rows()[0] for sound in sounds]
    worst = max(difference(found, wanted) for found, wanted in zip(batch.rows(), alone, strict=True))
    told += f"; alone and in a batch differ by {worst:.1e}"
    is_same = worst <= SAME
    told += "" if is_same else f", at most {SAME:g} is rounding"
    yield Finding("encoder's padding", "ok" if is_same else "wrong", told)
    behind = batch.values[~batch.mask]
    if bool(behind.isnan().any()) or bool(behind.any()):
        yield Finding("behind the frames", "wrong", "the padding of a batch holds other values than zero")


@torch.inference_mode()
def hearing(pair: Pair) -> Iterator[Finding]:
    """A burst in the first, the middle and the last 20 ms changes the frames."""
    encoder = pair.model.encoder
    sound = pair.cut(min(1.01, encoder.max_seconds))
    still = encoder(pair.audio(sound)).values
    burst = 0.5 * np.sin(np.arange(BURST_SAMPLES)).astype(np.float32)
    deaf = []
    for start in (0, len(sound) // 2, len(sound) - BURST_SAMPLES):
        changed = sound.copy()
        changed[start : start + BURST_SAMPLES] += burst
        if difference(encoder(pair.audio(changed)).values, still) < 1e-5:
            deaf.append(f"{start / SAMPLE_RATE_HZ:.2f} s")
    told = f"a burst at {' and '.join(deaf)} of {len(sound) / SAMPLE_RATE_HZ:.2f} s changes nothing"
    yield Finding("hearing", "wrong" if deaf else "ok", told if deaf else "a burst in the first and in the last 20 ms is heard")
