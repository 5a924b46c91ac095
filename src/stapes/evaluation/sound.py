"""The sound of an utterance as a data URI, so that a page can play it without any other file."""

from __future__ import annotations

import base64
import io

from stapes.data.cache import read_utterance
from stapes.errors import AudioError
from stapes.types import SAMPLE_RATE_HZ, Utterance

MAX_SECONDS = 30.0  # ours: some 120 kB


def data_uri(utterance: Utterance, max_seconds: float = MAX_SECONDS) -> str:
    """The first ``max_seconds`` of an utterance, 16 kHz mono, as Ogg/Opus in base64.

    Raises:
        AudioError: the sound cannot be read, or this libsndfile cannot write Opus.
    """
    import soundfile

    samples = read_utterance(utterance)[: round(max_seconds * SAMPLE_RATE_HZ)]
    written = io.BytesIO()
    try:
        soundfile.write(written, samples, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS")
    except (soundfile.LibsndfileError, ValueError) as error:
        raise AudioError(utterance.id, f"cannot be written as Ogg/Opus ({error})", "libsndfile 1.0.29 or newer") from error
    return f"data:audio/ogg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
