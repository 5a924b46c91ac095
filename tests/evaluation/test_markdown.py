"""The Markdown report: what it says of each task, and that no text of the user's can break its tables."""

import re
from collections.abc import Callable

from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.markdown import escaped, markdown


def tables(text: str) -> list[list[list[str]]]:
    """Every table: its lines, their cells; as many in every line."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n?)+", text, flags=re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.splitlines()]
        assert len({len(line) for line in lines}) == 1, block
        assert all(re.fullmatch(r" ---:? ", cell) for cell in lines[1])
        found.append([[cell.strip() for cell in line] for line in lines])
    return found


def test_words(made: Callable[..., Evaluation]):
    rows = [{"text": "the cat sat"}, {"text": "the cat"}, {"text": "all is well"}]
    text = markdown(made({"name": "asr"}, rows, ["the bat sat", "the bat", "uh is well now"]), "mine on dev.jsonl")
    assert text.startswith("# mine on dev.jsonl\n\n|  | score | 95 % interval |\n| --- | ---: | ---: |\n| WER | 50.00 | ")
    scores, counts, *words = tables(text)
    assert [line[0] for line in scores[2:]] == ["WER", "WER, mean over utterances", "CER", "WER, Whisper's English normaliser"]
    assert ["substitutions", "3"] in counts
    assert [table[2:] for table in words] == [[["cat", "bat", "2"], ["all", "uh", "1"]], [["now", "1"]]]
    signatures = re.search(r"```text\n(.*?)\n```", text, flags=re.DOTALL)[1].splitlines()
    assert [line.split("|")[0] for line in signatures] == [
        "WER: wer",
        "WER, mean over utterances: wer_sentence_mean",
        "CER: cer",
        "WER, Whisper's English normaliser: wer",
        "made by: task:asr",
    ]
    assert "**u2**: 2 errors in 3 words, 1.0 s\n\n```text\nREF: all is well ***\nHYP:  uh is well now\n" in text
    assert text.index("**u2**") < text.index("**u1**") < text.index("**u0**")


def test_entities(made: Callable[..., Evaluation]):
    rows = [{"text": "on monday in Ghent", "entities": [("DATE", "monday"), ("GPE", "Ghent")]}]
    text = markdown(made({"name": "ner"}, rows, ["on monday in [PLACE gent]"]), "t")
    found = tables(text)
    assert ["PLACE", "0.00", "0.00", "0.00", "1"] in found[2]
    assert found[3][2:] == [["misheard", "1"], ["right words, no tag", "1"]]
    assert found[4][2:] == [
        ["misheard", "PLACE", "ghent", "gent", "PLACE", "1"],
        ["right words, no tag", "WHEN", "monday", "", "", "1"],
    ]
    assert found[6][2:] == [["other words said", "PLACE", "gent", "ghent", "PLACE", "1"]]


def test_sentiment(made: Callable[..., Evaluation]):
    rows = [{"text": "well", "sentiment": label} for label in ("Positive", "Negative")]
    text = markdown(made({"name": "sentiment"}, rows, ["Positive", "?"]), "t")
    assert ["sentiment, weighted F1", "50.00", ""] in tables(text)[0]
    assert tables(text)[3][2:] == [
        ["Negative", "0", "0", "0", "1"],
        ["Neutral", "0", "0", "0", "0"],
        ["Positive", "0", "0", "1", "0"],
    ]
    assert "**u1**: Negative taken for no label, 1.0 s\n\n```text\nsaid:       well\n```" in text
    assert "## Words" not in text


def test_translations_have_no_words(made: Callable[..., Evaluation]):
    rows = [{"text": "yes", "translations": {"fr": "le chat est là"}}]
    text = markdown(made({"name": "translation", "to": "fr"}, rows, ["le chat est ici"]), "t")
    assert [line[0] for line in tables(text)[0][2:]] == ["BLEU", "chrF2"]
    assert "said:       yes\nreference:  le chat est là\nhypothesis: le chat est ici\n" in text
    assert "WER" not in text
    assert "## Words" not in text


def test_texts_of_the_user_stay_texts(made: Callable[..., Evaluation]):
    rows = [{"id": "a|b_c", "text": "x"}]
    found = made({"name": "asr", "normaliser": "none"}, rows, ["<script>|`|```x"])
    text = markdown(found, "a|b <i> *c*")
    assert text.startswith("# a\\|b &lt;i&gt; \\*c\\*\n")
    assert tables(text)[-1][2:] == [["x", "&lt;script&gt;\\|\\`\\|\\`\\`\\`x", "1"]]
    assert "**a\\|b\\_c**" in text
    assert "````text\nREF: " in text
    assert escaped("a\nb") == "a b"


def test_nothing_wrong_nothing_listed(made: Callable[..., Evaluation]):
    text = markdown(made({"name": "asr"}, [{"text": "a b"}], ["a b"]), "t")
    assert "##" not in text
