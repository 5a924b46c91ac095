"""Sound within a page: it decodes to what it was, is cut off, and fails in one line."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stapes.errors import AudioError
from stapes.evaluation.sound import data_uri
from stapes.types import Utterance

SECONDS = np.arange(3 * 16_000) / 16_000


def decoded(uri: str) -> tuple[np.ndarray, int]:
    header, _, content = uri.partition(",")
    assert header == "data:audio/ogg;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(content, validate=True)))


@pytest.fixture
def utterance(tmp_path: Path) -> Utterance:
    """A second of 400 Hz, then two of 1000 Hz."""
    tone = np.sin(2 * np.pi * np.where(SECONDS < 1, 400, 1000) * SECONDS)
    soundfile.write(tmp_path / "a.wav", 0.3 * tone, 16_000)
    return Utterance("a", tmp_path / "a.wav", "", duration=1.0, start=1.5)


def test_it_is_the_stretch_of_the_utterance(utterance: Utterance):
    samples, rate = decoded(data_uri(utterance))
    assert (len(samples), rate) == (16_000, 16_000)
    assert np.argmax(np.abs(np.fft.rfft(samples))) == 1000


def test_long_sound_is_cut_off(utterance: Utterance):
    assert len(decoded(data_uri(utterance, max_seconds=0.5))[0]) == 8_000


def test_what_cannot_be_read(utterance: Utterance):
    utterance.audio.write_bytes(b"RIFF")
    with pytest.raises(AudioError):
        data_uri(utterance)
