"""The five sentences of ``examples/`` are a manifest like any other."""

from pathlib import Path

import pytest
import soundfile

from stapes.data.manifest import read_manifest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_examples_are_complete_and_small():
    utterances = read_manifest(EXAMPLES / "references.jsonl")
    assert sorted(found.audio for found in utterances) == sorted((EXAMPLES / "audio").iterdir())
    for found in utterances:
        info = soundfile.info(found.audio)
        assert (info.samplerate, info.channels) == (16_000, 1)
        assert found.duration == pytest.approx(info.duration)
        assert found.audio.name in (EXAMPLES / "README.md").read_text()
    assert sum(found.audio.stat().st_size for found in utterances) < 500_000


def test_the_reference_is_what_is_said():
    """The transcript beside the source has "a more a amiable woman"."""
    (found,) = [found for found in read_manifest(EXAMPLES / "references.jsonl") if found.id.endswith("0920")]
    assert found.text.startswith("had he married a more amiable woman")
