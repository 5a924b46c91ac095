"""Paired tests: by hand, against a slow loop, and how often they call a difference real where there is none."""

import math
import random
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapes.errors import DataError
from stapes.metrics.bootstrap import interval, ratio
from stapes.metrics.significance import Difference, mapsswe, paired_bootstrap, segments
from stapes.metrics.translation import bleu, bleu_of_sums
from stapes.metrics.wer import wer

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=7).map(" ".join)
CORPORA = st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5)


def runs(seed: int, rates: tuple[float, float], count: int = 100) -> list[np.ndarray]:
    """Errors and words of two runs; how hard an utterance is, they share."""
    random = np.random.default_rng(seed)
    words = random.integers(5, 30, count)
    hard = random.uniform(0.3, 1.7, count)
    return [np.stack([random.binomial(words, rate * hard), words], axis=1) for rate in rates]


def test_agrees_with_plain_redrawing_of_indices():
    first, second = runs(0, (0.20, 0.18))
    found = paired_bootstrap(ratio, first, second, resamples=20_000)
    draw = np.random.default_rng(7)
    drawn = []
    for _ in range(20_000):
        rows = draw.integers(0, 100, 100)
        drawn.append(sum(100 * sign * run[rows, 0].sum() / run[rows, 1].sum() for sign, run in ((-1, first), (1, second))))
    difference = 100 * (second[:, 0].sum() / second[:, 1].sum() - first[:, 0].sum() / first[:, 1].sum())
    assert found.difference == pytest.approx(difference)
    assert found.interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.1)
    assert found.p == pytest.approx(np.mean(np.abs(np.array(drawn) - difference) >= abs(difference)), abs=0.02)
    assert found.utterances == 100
    assert 0.01 < found.p < 0.99


def test_is_narrower_than_two_intervals_apart():
    first, second = runs(1, (0.2, 0.2))
    paired = np.diff(paired_bootstrap(ratio, first, second).interval)[0]
    second[:, 0] = first[:, 0] + (np.arange(100) % 9 == 0)
    close = np.diff(paired_bootstrap(ratio, first, second).interval)[0]
    assert close < 0.3 * paired < paired < sum(np.diff(interval(*run.T))[0] for run in (first, second))


def test_equal_runs_do_not_differ_and_very_different_ones_do():
    first, second = runs(2, (0.2, 0.4))
    same = paired_bootstrap(ratio, first, first)
    assert (same.difference, same.interval, same.p) == (0.0, (0.0, 0.0), 1.0)
    assert paired_bootstrap(ratio, first, second, resamples=999).p == pytest.approx(1 / 1000)
    forth, back = paired_bootstrap(ratio, first, second), paired_bootstrap(ratio, second, first)
    assert forth.difference == -back.difference
    assert forth.p == back.p


def test_false_alarms_are_about_as_frequent_as_p_says():
    alarms = sum(paired_bootstrap(ratio, *runs(seed, (0.2, 0.2)), resamples=150, seed=seed).p < 0.1 for seed in range(150))
    assert 0.04 < alarms / 150 < 0.17


def test_scores_that_are_no_ratio():
    draw = random.Random(0)
    references = [" ".join(draw.choices("abcdef", k=9)) for _ in range(50)]
    hypotheses = [[" ".join(w for w in r.split() if draw.random() > loss) for r in references] for loss in (0.3, 0.05)]
    scores = [bleu(references, side, resamples=0) for side in hypotheses]
    found = paired_bootstrap(bleu_of_sums, *(score.parts["utterance_statistics"] for score in scores), resamples=200)
    assert (found.first, found.second) == pytest.approx([score.value for score in scores])
    assert found.interval[0] > 0.0
    assert found.p == pytest.approx(1 / 201)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [], r"shapes \(0,\) and \(0,\)"),
        ([[1, 2]], [[1, 2], [0, 3]], r"shapes \(1, 2\) and \(2, 2\)"),
        ([[1, 2]], [[1, 0]], "a run without a score"),
    ],
)
def test_runs_that_cannot_be_compared_are_named(first, second, message):
    with pytest.raises(DataError, match=message):
        paired_bootstrap(ratio, first, second)


# -- MAPSSWE ---------------------------------------------------------------------------------------------------------------


def places(*marks: str) -> list[int]:
    """Errors before, at and after each word, from one letter each: . right, x wrong, and digits for insertions between."""
    found = [0]
    for mark in "".join(marks):
        if mark.isdigit():
            found[-1] += int(mark)
        else:
            found += [int(mark == "x"), 0]
    return found


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("....", "....", []),
        ("", "", []),
        ("2", "", [(2, 0)]),
        ("x...", "....", [(1, 0)]),
        ("x.x...", "......", [(2, 0)]),  # one good word between: one segment
        ("x..x..", "......", [(1, 0), (1, 0)]),  # two: two segments
        ("x.....", "...x..", [(1, 0), (0, 1)]),
        ("x.....", "..x...", [(1, 1)]),
        (".x..x", ".xx.x", [(2, 3)]),
        ("x.1...", ".....", [(2, 0)]),  # an insertion between the good words parts them
        ("1..x..", ".....", [(1, 0), (1, 0)]),  # the word after an insertion is the first good one
        ("....1", "....3", [(1, 3)]),
        ("....", "....3", [(0, 3)]),  # after the last word, whichever run it is
        ("...x", "....", [(1, 0)]),
    ],
)
def test_segments_by_hand(first, second, expected):
    assert segments(places(first), places(second)) == expected


def test_a_case_done_by_hand():
    references = ["the cat sat on the mat", "so be it", "one two three four five six", "all is well"]
    first = ["the cat sat on the mat", "so be it", "won two three four five sics now", "all was well"]
    second = ["a bat sat on the hat", "so be it too", "one two three four fife six", "all was well"]
    # the|cat wrong in the second; then `sat on` end the segment; `mat` is another: (0, 2) (0, 1)
    # an insertion at the end: (0, 1); `one`: (1, 0), then `fife`, `sics`, `now` in one: (2, 1); `was`: (1, 1)
    found = mapsswe(references, first, second)
    differences = [2, 1, 1, -1, -1, 0]
    mean = sum(differences) / 6
    spread = math.sqrt(sum((each - mean) ** 2 for each in differences) / 5)
    assert found.segments == 6
    assert found.mean == pytest.approx(mean)
    assert found.z == pytest.approx(mean / (spread / math.sqrt(6)))
    assert found.p == pytest.approx(2 * (1 - NormalDist().cdf(abs(found.z))))
    assert found.z == pytest.approx(0.6742, abs=1e-4)
    assert found.p == pytest.approx(0.5002, abs=1e-4)


@settings(max_examples=60)
@given(CORPORA)
def test_every_error_is_in_one_segment_and_exchange_changes_the_sign(corpus):
    references, first, second = zip(*corpus, strict=True)
    found = mapsswe(references, first, second, normaliser="none")
    if any(references):
        errors = [
            sum(wer(references, run, normaliser="none", resamples=0).parts["utterance_errors"]) for run in (first, second)
        ]
        assert found.mean * found.segments == pytest.approx(errors[1] - errors[0])
    back = mapsswe(references, second, first, normaliser="none")
    assert (back.segments, back.mean, back.z, back.p) == (found.segments, -found.mean, -found.z, found.p)
    assert 0.0 <= found.p <= 1.0


def test_no_difference_and_a_clear_one():
    references = ["a b c d"] * 60
    worse = ["a x c d" if row % 3 else "a b c d" for row in range(60)]
    same = mapsswe(references, worse, worse)
    assert (same.segments, same.z, same.p) == (40, 0.0, 1.0)
    assert mapsswe(references, references, references).p == 1.0
    mixed = [text if row % 5 else "x b c d" for row, text in enumerate(references)]
    found = mapsswe(references, worse, mixed)
    assert found.z < -3
    assert found.p < 0.003


def test_the_normaliser_is_applied_to_all():
    assert mapsswe(["It is."], ["it is"], ["IT IS!"]).segments == 0
    assert mapsswe(["It is."], ["it is"], ["IT IS!"], normaliser="none").segments == 1
    with pytest.raises(DataError, match="2 references and 1 hypotheses"):
        mapsswe(["a", "b"], ["a", "b"], ["a"])


def test_the_difference_is_second_less_first():
    assert Difference(10.0, 8.5, (-3.0, 0.1), 0.2, 5).difference == pytest.approx(-1.5)
