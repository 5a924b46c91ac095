"""The page: complete in itself, safe from what texts hold, with what each task has, and playable."""

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.html import page

VOID = {"meta", "br", "link", "img", "input"}


class Page(HTMLParser):
    """Checks that elements close in order, and collects elements, attributes and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]


def check_alone(found: Page) -> None:
    """No script, nothing fetched, every plot described, no name twice."""
    assert not {tag for tag, _ in found.found} & {"script", "link", "img", "iframe", "object"}
    for tag, attributes in found.found:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:audio/ogg;base64,")), (tag, name)
        assert not [name for name in attributes if name.startswith("on")]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in found.all("svg"))
    names = [attributes["id"] for _, attributes in found.found if "id" in attributes]
    assert len(names) == len(set(names))
    assert "url(http" not in found.text["style"][0] and "@import" not in found.text["style"][0]


def test_words(made: Callable[..., Evaluation]):
    rows = [{"text": "the cat sat"}, {"text": "the cat", "duration": 3.0}, {"text": "all is well"}, {"text": "yes"}]
    found = Page(page(made({"name": "asr"}, rows, ["the bat sat", "the bat", "uh is now well", "yes"]), "mine on dev.jsonl"))
    check_alone(found)
    assert found.text["h1"] == found.text["title"] == ["mine on dev.jsonl"]
    assert found.text["h2"] == ["Word errors", "Lengths", "Worst utterances"]
    assert found.text["h3"] == ["u2", "u1", "u0"]
    assert len(found.all("svg")) == 3
    assert found.text["code"][0].endswith("\nmade by: task:asr")
    assert found.text["caption"] == ["substitutions", "insertions"]
    kinds = [span["class"] for span in found.all("span") if (span.get("class") or "").startswith("column")]
    # u2: all/uh is/is (none)/now well/well; u1: the/the cat/bat; u0: the/the cat/bat sat/sat
    last = ["column substituted", "column", "column inserted", "column"]
    assert kinds == [*last, *["column", "column substituted"] * 2, "column"]
    assert any("10 words were heard where 9 were said" in text for text in found.text["p"])


def test_entities(made: Callable[..., Evaluation]):
    rows = [{"text": "on monday in Ghent", "entities": [("DATE", "monday"), ("GPE", "Ghent")]}]
    found = Page(page(made({"name": "ner"}, rows, ["on monday in [PLACE gent]"]), "t"))
    check_alone(found)
    assert "Named entities" in found.text["h2"]
    assert found.text["h3"] == ["Entities lost, by error", "Entities invented, by error", "u0"]
    labels = [svg["aria-label"] or "" for svg in found.all("svg")]
    assert "Bars of F1 by tag: PLACE 0.0 (n = 1), WHEN 0.0 (n = 1)" in labels
    assert "Bars, entities lost, by error: misheard 1 (50 %), right words, no tag 1 (50 %)" in labels
    at = found.text["td"].index("misheard")
    assert found.text["td"][at : at + 5] == ["misheard", "PLACE", "ghent", "gent", "PLACE"]


def test_a_list_of_entities_has_no_word_errors(made: Callable[..., Evaluation]):
    rows = [{"text": "on monday", "entities": [("DATE", "monday")]}]
    found = Page(page(made({"name": "ner", "markup": "json"}, rows, ["[]"]), "t"))
    assert found.text["h2"] == ["Named entities", "Worst utterances"]
    assert "not in the list" in found.text["td"]
    assert "on monday" in found.text["td"], "what was said"


def test_no_entity_anywhere(made: Callable[..., Evaluation]):
    found = Page(page(made({"name": "ner"}, [{"text": "yes"}], ["yes"]), "t"))
    assert "Named entities" in found.text["h2"]
    assert "h3" not in found.text


@pytest.mark.parametrize("task", ["sentiment", "asr+sentiment"])
def test_sentiment(made: Callable[..., Evaluation], task: str):
    rows = [{"text": "well", "sentiment": label} for label in ("Positive", "Negative")]
    first = "well\n" if "asr" in task else ""
    found = Page(page(made({"name": task}, rows, [f"{first}Positive", f"{first}Positive"]), "t"))
    check_alone(found)
    assert ("Word errors" in found.text["h2"]) == ("asr" in task)
    labels = [svg["aria-label"] or "" for svg in found.all("svg")]
    said = "Negative was answered by Positive 1 times; Positive was answered by Positive 1 times"
    assert f"Heat map of sentiments and answers: {said}" in labels
    assert {"sentiment, macro recall", "sentiment, weighted F1"} <= set(found.text["td"])
    assert ("WER, mean over utterances" in found.text["td"]) == ("asr" in task)
    assert any("Negative taken for Positive" in text for text in found.text["p"])


def test_translations_have_no_word_errors(made: Callable[..., Evaluation]):
    rows = [{"text": "the cat", "translations": {"fr": "le chat"}}]
    found = Page(page(made({"name": "translation", "to": "fr"}, rows, ["la chat"]), "t"))
    check_alone(found)
    assert found.text["h2"] == ["Worst utterances"]
    assert [text for text in found.text["td"] if re.search(r"\bch?at", text)] == ["the cat", "le chat", "la chat"]
    assert not found.all("svg")


def test_transcript_and_entities(made: Callable[..., Evaluation]):
    rows = [{"text": "on monday", "entities": [("DATE", "monday")]}]
    found = Page(page(made({"name": "asr+ner"}, rows, ["on sunday\n[]"]), "t"))
    assert found.text["h2"] == ["Word errors", "Lengths", "Named entities", "Worst utterances"]
    assert found.text["td"][-4:] == ["misheard", "WHEN", "monday", "sunday"]


def test_texts_of_the_user_stay_texts(made: Callable[..., Evaluation]):
    nasty = "</style><script>alert(1)</script>\"'&"
    rows = [{"id": nasty, "text": f"{nasty} a"}]
    found = made({"name": "asr", "normaliser": "none"}, rows, [f'<img/src="http://x"onerror=alert(1)> {nasty} b'])
    found.scores["signatures"], found.scores["provenance"] = {"wer": nasty}, nasty
    source = page(found, nasty)
    check_alone(Page(source))
    assert "<script" not in source
    assert "<img" not in source
    assert Page(source).text["h1"] == Page(source).text["h3"] == [nasty]
    assert Page(source).text["code"] == [f"WER: {nasty}\nmade by: {nasty}"]


def test_the_worst_can_be_listened_to(made: Callable[..., Evaluation]):
    found = made(
        {"name": "asr"}, [{"text": "a b", "duration": 2.0}, {"text": "a"}, {"text": "a b c", "duration": 31.0}], ["", "a", ""]
    )
    sounds = Page(page(found, "t")).all("audio")
    assert [sound["aria-label"] for sound in sounds] == ["sound of u2, the first 30 s", "sound of u0"]
    for sound, seconds in zip(sounds, (30, 2), strict=True):
        content = base64.b64decode((sound["src"] or "").partition(",")[2])
        samples, rate = soundfile.read(io.BytesIO(content))
        assert (len(samples), rate) == (seconds * 16_000, 16_000)
        assert np.argmax(np.abs(np.fft.rfft(samples))) == 440 * seconds


def test_sound_that_is_not_there(made: Callable[..., Evaluation]):
    found = made({"name": "asr"}, [{"text": "a b"}, {"text": "c"}], ["", ""])
    found.utterances[0].audio.unlink()
    read = Page(page(found, "t"))
    assert len(read.all("audio")) == 1
    assert any(re.match(r"no sound: .*0\.wav", text) for text in read.text["p"])
    without = Evaluation(found.scores, found.predictions, found.normaliser)
    assert not Page(page(without, "t")).all("audio")


def test_nothing_wrong(made: Callable[..., Evaluation]):
    found = Page(page(made({"name": "asr"}, [{"text": "a b"}], ["a b"]), "t"))
    assert found.text["h2"] == ["Word errors", "Lengths"]
    assert not found.all("audio")


def test_loud_noise_of_half_a_minute_stays_small(made: Callable[..., Evaluation]):
    found = made({"name": "asr"}, [{"text": "a b c", "duration": 30.0}], ["x"])
    alone = len(page(found, "t", shown=0))
    soundfile.write(found.utterances[0].audio, 0.3 * np.random.default_rng(0).standard_normal(30 * 16_000), 16_000)
    assert alone < 100_000
    assert len(page(found, "t")) - alone < 250_000, "ten of them make less than 3 MB"
