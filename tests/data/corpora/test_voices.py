"""The voices of synthesisers: which are there, what they say, and what they cannot."""

import shutil

import numpy as np
import pytest

from stapes.data.corpora.voices import PROGRAMS, Unspeakable, Voice, choose, say
from stapes.errors import MissingDependency, RecipeError

EXAMPLES = {"flite": "flite:slt", "festival": "festival:kal_diphone", "espeak-ng": "espeak-ng:en-us+f3"}


@pytest.fixture(params=EXAMPLES)
def voice(request: pytest.FixtureRequest) -> Voice:
    """A voice of each program, or a skip where that is not installed."""
    if missing := [name for name in PROGRAMS[request.param].needs if not shutil.which(name)]:
        pytest.skip(f"{' and '.join(missing)} not installed")
    (found,) = choose([EXAMPLES[request.param]])
    return found


def test_a_voice_says_a_text(voice):
    samples = say(voice, "good morning everybody")
    assert samples.dtype == np.float32
    assert 0.8 < len(samples) / 16_000 < 4
    assert np.abs(samples).max() > 0.05


def test_a_longer_text_takes_longer(voice):
    assert len(say(voice, "good morning everybody, how are you today?")) > 1.3 * len(say(voice, "good morning"))


@pytest.mark.parametrize("text", ["- what? \u2018quoted\u2019 caf\u00e9", "$(rm -rf /) ; `ls` | -o x", "line\none", "<b>&amp;"])
def test_odd_texts_are_said_and_never_run(voice, text):
    assert len(say(voice, text)) > 0.3 * 16_000


@pytest.mark.parametrize("text", ["...", "\u2014 \u2026 !"])
def test_a_text_without_a_letter_is_not_said(voice, text):
    with pytest.raises(Unspeakable, match="no letter that it knows"):
        say(voice, text)


def test_a_program_that_fails_says_why(voice):
    """A voice that is not there, past the check of its name; Flite would quietly take another."""
    if voice.program == "flite":
        pytest.skip("flite never fails")
    with pytest.raises(Unspeakable, match=r"unbound variable|does not exist"):
        say(Voice(voice.program, "nobody"), "hello there")


def test_an_unknown_voice_is_an_error(voice):
    """It has to be looked up: Flite takes another voice in silence, and eSpeak NG leaves a variant out."""
    with pytest.raises(RecipeError, match=rf"--voices: {voice.program} has no voice '\w+x'; (did you mean|known)"):
        choose([f"{voice}x"])


def test_a_voice_needs_its_program(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"voice flite:slt: an optional package is missing; run `apt install flite`"):
        choose(["flite:slt"])
    with pytest.raises(MissingDependency, match=r"spoken-text: .* run `apt install flite festival .* espeak-ng`"):
        choose()


@pytest.mark.parametrize("name", ["slt", "flit:slt", ""])
def test_a_name_that_is_none(name):
    with pytest.raises(RecipeError, match=rf"--voices: '{name}', expected PROGRAM:VOICE, such as flite:slt; "):
        choose([name])


def test_languages():
    assert [Voice("flite", "slt").language, Voice("espeak-ng", "en-us+f3").language, Voice("espeak-ng", "cmn").language] == [
        "en",
        "en",
        "zh",
    ]


def test_default_voices_are_those_that_are_there(voice, monkeypatch, tmp_path):
    """With a single program installed, its voices; eSpeak NG's only where it is the only one."""
    for name in PROGRAMS[voice.program].needs:
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = choose()
    assert {found.program for found in chosen} == {voice.program}
    assert str(voice) in {str(found) for found in chosen}


def test_formants_come_last():
    if not all(shutil.which(name) for name in ("flite", "espeak-ng")):
        pytest.skip("flite and espeak-ng not installed")
    assert "espeak-ng" not in {found.program for found in choose()}
