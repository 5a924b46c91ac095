"""The model that is shipped, with its real weights, on real speech."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import stapes
from stapes.api import Stapes
from stapes.data.cache import encode, read_utterance
from stapes.data.manifest import read_manifest
from stapes.decoding.longform import recognise
from stapes.errors import RecipeError
from stapes.evaluation.probe import probe
from stapes.llms.base import LLM
from stapes.text.tags import SENTIMENTS
from stapes.types import Audio, Utterance

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def model(pack: Callable[[str], Path]) -> Stapes:
    for name in ("whisper-base", "smollm2-135m-instruct"):
        pack(name)
    return stapes.load("stapes-base", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def rows(examples: Path) -> list[Utterance]:
    return read_manifest(examples)


def test_it_transcribes_what_it_has_never_heard(model: Stapes, examples: Path):
    scores = model.evaluate(examples).scores
    assert scores["wer"] < 25
    assert scores["capped"] == 0


def test_it_does_what_its_card_says(model: Stapes, rows: list[Utterance]):
    """Each task on the first sentence, in which a person is named; and what it does not do is said in a line."""
    assert model.tasks == ["asr", "asr.written", "ner", "sentiment"]
    sound = rows[0].audio
    named, written = model.transcribe(sound, task="ner"), model.transcribe(sound, style="written").text
    assert "PERSON" in {entity.label for entity in named.entities or ()}
    assert named.text.islower() and named.repairs == 0
    assert written[0].isupper() and written[-1] in ".,;!?"
    assert model.transcribe(sound, task="sentiment").sentiment in SENTIMENTS
    with pytest.raises(
        RecipeError, match=r"task: 'translation\.fr', expected what stapes-base was trained for: asr, asr\.written"
    ):
        model.transcribe(sound, to="fr")


def test_it_listens(model: Stapes, rows: list[Utterance]):
    frames = [encode(model.module.encoder, [row]).rows()[0] for row in rows]
    texts = [model.module.task.target(row) for row in rows]
    found = probe(model.module, frames, texts)
    assert found.gap > 1.0
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(values.shape, generator=generator) for values in frames]
    assert probe(model.module, noise, texts).gap < 0.5, "noise in place of every sound"


def test_a_draft_changes_nothing_that_is_written(model: Stapes, rows: list[Utterance], monkeypatch: pytest.MonkeyPatch):
    sounds = [read_utterance(row) for row in rows]
    drafted = [found.text for found in recognise(model.module, sounds, model.recipe.decoding)]
    monkeypatch.setattr(LLM, "can_rewind", False)
    assert [found.text for found in recognise(model.module, sounds, model.recipe.decoding)] == drafted


@torch.inference_mode()
def test_alone_and_beside_longer_speech_it_is_the_same(model: Stapes, rows: list[Utterance]):
    """From waveform to log-probabilities and text; the shortest is a second long, the longest several sentences."""
    module = model.module
    whole = [read_utterance(row) for row in rows]
    sounds = [whole[0][:16_000], *whole, np.concatenate(whole[:2])]
    texts = [rows[0].text.split()[0], *(row.text for row in rows), f"{rows[0].text} {rows[1].text}"]
    answers = [module.answer(text.lower()) for text in texts]

    def log_probs(chosen: list[int]) -> torch.Tensor:
        speech = module.speech(module.encode(Audio.from_arrays([sounds[index] for index in chosen]))).embeddings
        return module.logits(speech, [answers[index] for index in chosen])[0].log_softmax(-1)

    every = list(range(len(sounds)))
    together = log_probs(every).split([len(answer) for answer in answers])
    for index in every:
        torch.testing.assert_close(log_probs([index]), together[index], rtol=0, atol=1e-3)
    written = model.transcribe(sounds, sample_rate=16_000)
    assert [found.text for found in written] == [model.transcribe(sound, sample_rate=16_000).text for sound in sounds]
