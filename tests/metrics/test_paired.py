import pytest

from stapes.errors import DataError
from stapes.metrics.paired import by_id, require_pairs


def test_runs_are_joined_by_id_in_the_order_of_the_first():
    assert by_id("runs", {"b": 1, "a": 2}, {"a": "x", "b": "y"}) == [(1, "y"), (2, "x")]


def test_ids_that_do_not_match_are_counted_and_some_are_shown():
    first, second = {"a": 0, "b": 0, "c": 0}, {"b": 0, "d": 0, "e": 0, "f": 0}
    with pytest.raises(DataError) as error:
        by_id("runs", first, second)
    assert str(error.value) == (
        "runs: 2 ids only in the first run and 3 only in the second ('a', 'c', 'd', ...), 1 in both, "
        "expected the same utterances in both"
    )
    with pytest.raises(DataError, match="no utterances"):
        by_id("runs", {}, {})


def test_lists_that_are_no_pairs_are_named():
    require_pairs("wer", ["a"], [None])
    for references, hypotheses, message in (
        (["a"], [], "1 references and 0"),
        ([], [], "no utterances"),
        ("a", ["a"], "string"),
    ):
        with pytest.raises(DataError, match=message):
            require_pairs("wer", references, hypotheses)
