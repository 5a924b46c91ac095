import numpy as np
import pytest

from stapes.errors import DataError, RecipeError
from stapes.metrics.bootstrap import interval, interval_of, percentiles, ratio, resampled_sums


def utterances(count: int, seed: int, rate: float = 0.12) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    words = random.integers(1, 40, count)
    return random.binomial(words, rate), words


def test_agrees_with_plain_redrawing_of_indices():
    errors, words = utterances(200, seed=3)
    random = np.random.default_rng(5)
    ratios = []
    for _ in range(20_000):
        drawn = random.integers(0, len(words), len(words))
        ratios.append(100.0 * errors[drawn].sum() / words[drawn].sum())
    expected = np.percentile(ratios, [2.5, 97.5])
    assert interval(errors, words, resamples=20_000) == pytest.approx(expected, abs=0.05)


def test_covers_the_true_rate_about_as_often_as_it_claims():
    inside = 0
    for seed in range(400):
        low, high = interval(*utterances(150, seed), resamples=300, confidence=0.9, seed=seed)
        inside += low <= 12.0 <= high
    assert 0.85 < inside / 400 < 0.95


def test_width_shrinks_with_the_root_of_the_number_of_utterances():
    few, many = (np.diff(interval(*utterances(count, seed=1)))[0] for count in (400, 6400))
    assert few / many == pytest.approx(4.0, rel=0.2)


def test_is_independent_of_order_and_depends_on_the_seed():
    errors, words = utterances(100, seed=2)
    order = np.random.default_rng(0).permutation(100)
    assert interval(errors, words) == interval(errors[order], words[order])
    assert interval(errors, words) != interval(errors, words, seed=1)


def test_chunks_cover_all_resamples(monkeypatch):
    errors, words = utterances(100, seed=2)
    whole = interval(errors, words, resamples=101)
    monkeypatch.setattr("stapes.metrics.bootstrap._CELLS_AT_ONCE", 700)
    assert interval(errors, words, resamples=101) == whole


def test_wider_confidence_is_wider():
    errors, words = utterances(100, seed=2)
    narrow, wide = interval(errors, words, confidence=0.5), interval(errors, words, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_equal_utterances_have_no_spread():
    assert interval([1, 1, 1], [4, 4, 4]) == pytest.approx((25.0, 25.0))


def test_resamples_without_words_are_left_out():
    assert interval([1, 0, 0], [2, 0, 0]) == pytest.approx((50.0, 50.0))


@pytest.mark.parametrize(
    ("numerators", "denominators", "message"),
    [
        ([1, 2], [3], r"\(2,\) with denominators \(1,\)"),
        ([], [], "all zero"),
        ([1, 2], [0, 0], "all zero"),
        ([1, float("nan")], [1, 1], "not finite"),
        ([1, 1], [3, -1], "negative"),
    ],
)
def test_bad_counts_are_named(numerators, denominators, message):
    with pytest.raises(DataError, match=message):
        interval(numerators, denominators)


def test_bad_options_are_named():
    with pytest.raises(RecipeError, match="confidence: 95"):
        interval([1], [2], confidence=95)
    with pytest.raises(RecipeError, match="resamples: 0"):
        interval([1], [2], resamples=0)


# -- any function of sums ------------------------------------------------------------------------------------------------


def test_a_ratio_of_sums_is_one_such_function():
    errors, words = utterances(80, seed=4)
    assert interval_of(ratio, np.stack([errors, words], axis=1), seed=3) == interval(errors, words, seed=3)
    assert np.isnan(ratio(np.array([[1.0, 0.0], [1.0, 4.0]]))).tolist() == [True, False]


def test_another_function_agrees_with_plain_redrawing_of_indices():
    random = np.random.default_rng(0)
    counts = random.integers(0, 9, (150, 3))

    def geometric_mean(sums: np.ndarray) -> np.ndarray:
        return np.exp(np.log(sums).mean(axis=1))

    drawn = [counts[random.integers(0, 150, 150)].sum(axis=0) for _ in range(10_000)]
    expected = np.percentile(geometric_mean(np.array(drawn)), [2.5, 97.5])
    assert interval_of(geometric_mean, counts, resamples=10_000) == pytest.approx(expected, rel=0.01)


def test_sums_are_of_as_many_utterances_as_there_are():
    sums = resampled_sums([[1, 2], [1, 3], [1, 2]], resamples=50)
    assert (sums[:, 0] == 3).all()
    assert set(sums[:, 1]) <= {6, 7, 8, 9}
    assert len(set(sums[:, 1])) > 1
    assert (resampled_sums([[1, 2], [1, 3]], seed=(0, 1)) != resampled_sums([[1, 2], [1, 3]], seed=(0, 2))).any()


def test_resamples_without_a_score_are_left_out():
    assert percentiles(np.array([np.nan, 1.0, 3.0, np.nan]), confidence=0.5) == (1.5, 2.5)
    with pytest.raises(DataError, match="no resample has a denominator above zero"):
        percentiles(np.array([np.nan]))


@pytest.mark.parametrize(
    ("counts", "message"), [([], r"shape \(0,\)"), ([1, 2], r"shape \(2,\)"), ([[1.0, np.inf]], "not finite")]
)
def test_counts_that_are_no_table_are_named(counts, message):
    with pytest.raises(DataError, match=message):
        resampled_sums(counts)
