import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from stapes.audio import Segment, find_speech, split
from stapes.audio.segment import _fill, _quietest
from stapes.errors import RecipeError

RATE = 16_000


@pytest.fixture(scope="module")
def talk(speech):
    """Half a minute: five sentences with faint noise for a second before, between and after them."""
    rng = np.random.default_rng(0)
    parts = [1e-4 * rng.standard_normal(RATE)]
    for sentence in speech:
        parts += [sentence, 1e-4 * rng.standard_normal(RATE)]
    return np.concatenate(parts).astype(np.float32)


def covered(segments, total):
    """(N,) bool: true where a segment is."""
    inside = np.zeros(total, dtype=bool)
    for segment in segments:
        inside[round(segment.start * RATE) : round(segment.end * RATE)] = True
    return inside


def test_what_fits_is_one_segment_over_everything():
    for seconds in (0.3, 9.9, 10.0):
        samples = np.zeros(round(seconds * RATE), dtype=np.float32)
        assert split(samples, max_seconds=10.0) == [Segment(0.0, seconds)]


@pytest.mark.parametrize("max_seconds", [1.0, 3.0, 10.0, 20.0])
def test_no_segment_is_too_long_and_no_speech_is_lost(talk, max_seconds):
    segments = split(talk, max_seconds=max_seconds)
    assert all(0 < segment.end - segment.start <= max_seconds for segment in segments)
    assert all(before.end <= after.start for before, after in pairwise(segments))
    inside = covered(segments, len(talk))
    assert inside[np.abs(talk) > 0.02].all()
    for start, end in find_speech(talk):
        assert inside[start:end].all()


def test_cuts_fall_into_pauses(talk, speech):
    begins = RATE + np.cumsum([0] + [len(sentence) + RATE for sentence in speech[:-1]])
    cuts = [round(edge * RATE) for segment in split(talk, max_seconds=10.0) for edge in (segment.start, segment.end)]
    assert len(cuts) >= 6
    for cut in cuts:
        inside = [
            begin + 0.25 * RATE < cut < begin + len(sentence) - 0.25 * RATE
            for begin, sentence in zip(begins, speech, strict=True)
        ]
        assert not any(inside) or np.abs(talk[cut - 800 : cut + 800]).max() < 0.01


def test_cut_out_samples_are_a_view(talk):
    piece = Segment(1.0, 2.5).cut(talk)
    assert np.array_equal(piece, talk[RATE : 5 * RATE // 2]) and piece.base is talk


def test_a_long_pause_ends_a_segment(speech):
    samples = np.concatenate([speech[1], np.zeros(3 * RATE, np.float32), speech[4]])
    assert len(split(samples, max_seconds=9.2)) == 2
    assert len(split(samples, max_seconds=9.2, max_pause_seconds=4.0)) == 1


def test_no_speech_no_segments():
    noise = 0.003 * np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    assert split(noise, max_seconds=10.0) == []


def test_the_detector_forgets_between_calls(talk, speech):
    first = find_speech(talk)
    find_speech(speech[2][: RATE + 77])
    assert find_speech(talk) == first


def test_number_of_threads_is_left_alone():
    code = (
        "import numpy, torch; from stapes.audio import find_speech; torch.set_num_threads(3); "
        "find_speech(numpy.zeros(1600)); print(torch.get_num_threads())"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "3"


@pytest.mark.parametrize("max_seconds", [0.0, -1.0, 0.5, float("nan")])
def test_bound_that_makes_no_sense(max_seconds):
    with pytest.raises(RecipeError, match="max_seconds"):
        split(np.zeros(RATE, np.float32), max_seconds=max_seconds)


def test_runs_of_any_shape_are_filled_without_loss():
    rng = np.random.default_rng(0)
    for _ in range(200):
        edges = np.cumsum(rng.choice([300, 3_000, 30_000, 200_000], size=2 * rng.integers(1, 12)) + rng.integers(1, 99))
        runs = [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
        samples = rng.standard_normal(runs[-1][1]).astype(np.float32)
        longest = int(rng.integers(RATE, 10 * RATE))
        spans = _fill(samples, runs, longest, 2 * RATE)
        assert all(0 < end - start <= longest for start, end in spans)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
        inside = covered([Segment(start / RATE, end / RATE) for start, end in spans], len(samples))
        assert all(inside[start:end].all() for start, end in runs)


def test_the_widest_pause_of_the_second_half_is_chosen():
    seconds = [(0, 2), (3, 5.5), (6.5, 7.5), (7.6, 9), (9.4, 14)]
    runs = [(round(start * RATE), round(end * RATE)) for start, end in seconds]
    spans = _fill(np.ones(14 * RATE, np.float32), runs, 10 * RATE, 2 * RATE)
    assert [(start / RATE, end / RATE) for start, end in spans] == [(0, 5.5), (6.5, 14)]


def test_unbroken_speech_is_cut_where_it_is_quietest():
    samples = np.random.default_rng(0).standard_normal(20 * RATE).astype(np.float32)
    samples[round(2.0 * RATE) : round(2.3 * RATE)] = 0.0  # in the first half: too early
    samples[round(7.4 * RATE) : round(7.6 * RATE)] *= 0.1
    assert 7.4 * RATE <= _quietest(samples, 0, len(samples), 10 * RATE) <= 7.6 * RATE
