"""Plots: well-formed, described, without colours, names or files of their own."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from stapes.evaluation import plots
from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.word_errors import duration_bins

Draw = Callable[[str], str]


@pytest.fixture(params=["bars", "confusion", "lengths", "by_duration"])
def draw(request: pytest.FixtureRequest, made: Callable[..., Evaluation]) -> Draw:
    """draw(name): a plot of every kind."""
    rows = [{"text": text, "duration": seconds} for text, seconds in (("a b c", 1.0), ("a b", 1.5), ("a", 3.0))]
    found = made({"name": "asr"}, rows, ["a x", "a b", "a"], capped=[1]).predictions
    alt = 'A "plot" <of> what & which'
    counts = {"Negative": {"Negative": 2, "none": 0}, "Positive": {"Negative": 1, "none": 0}}
    return {
        "bars": lambda name: plots.bars(name, alt, {"a<b": 1, "$c$": 2}, {"a<b": "1 of 3", "$c$": "2 of 3"}, "words"),
        "confusion": lambda name: plots.confusion(name, alt, counts),
        "lengths": lambda name: plots.lengths(name, alt, found),
        "by_duration": lambda name: plots.by_duration(name, alt, duration_bins(found)),
    }[request.param]


def test_it_is_well_formed_and_described(draw: Draw):
    (svg,) = ElementTree.fromstring(draw("one"))
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == 'A "plot" <of> what & which'


def test_the_page_gives_colours_and_letters(draw: Draw):
    found = draw("one")
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", found)) <= {
        "none",
        "currentColor",
        "var(--faint)",
        "var(--accent)",
        "var(--warning)",
    }
    assert "var(--accent)" in found
    assert "<style" not in found
    assert "font-family" not in found


def test_names_within_are_of_this_plot_alone(draw: Draw):
    one, other = draw("one"), draw("other")
    assert one == draw("one"), "the same twice"
    assert one.replace("one-", "other-") != one
    names = [set(re.findall(r'\bid="([^"]+)"', each)) for each in (one, other)]
    assert not names[0] & names[1]
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', one))
    assert {first or second for first, second in used} <= names[0]


def test_what_the_bars_say():
    found = plots.bars("x", "", {"a<b": 1.0, "$c$": 2.0}, {"a<b": "1 of 3", "$c$": "2 of 3"}, "words", limit=10.0)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", found)
    assert {"a&lt;b", "$c$", "1 of 3", "2 of 3", "words", "10"} <= set(texts)
    assert "12" not in texts, "no tick beyond the limit"


def test_a_heat_map_has_counts_and_shares_and_no_empty_answer():
    counts = {"Negative": {"Negative": 3, "Positive": 1, "none": 0}, "Positive": {"Negative": 0, "Positive": 0, "none": 0}}
    texts = re.findall(r"<tspan[^>]*>([^<]*)</tspan>|<text[^>]*>([^<]*)</text>", plots.confusion("x", "", counts))
    flat = [first or second for first, second in texts]
    assert {"3", "75 %", "1", "25 %"} <= set(flat)
    assert "none" not in flat
    assert flat.count("Positive") == 1, "as an answer; no reference has it"
