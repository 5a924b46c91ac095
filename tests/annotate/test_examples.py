from collections import Counter

import pytest

from stapes.annotate.examples import NONE, Pool, classes
from stapes.errors import DataError


@pytest.fixture
def labelled(said):
    """200 utterances: 120 with a GPE, 40 without anything, 30 with a GPE and a DATE, 7 with a LAW, 3 with two PERSONs."""
    rows = [said(f"in london {n}", ("GPE", "london"), name=f"g{n}") for n in range(120)]
    rows += [said(f"nothing {n}", name=f"n{n}") for n in range(40)]
    rows += [said(f"in london on monday {n}", ("GPE", "london"), ("DATE", "monday"), name=f"d{n}") for n in range(30)]
    rows += [said(f"the lisbon treaty {n}", ("LAW", "lisbon treaty"), name=f"l{n}") for n in range(7)]
    return rows + [said(f"jane and emma {n}", ("PERSON", "jane"), ("PERSON", "emma"), name=f"p{n}") for n in range(3)]


def test_a_pool_is_balanced_and_uses_rare_tags_up(labelled):
    pool = Pool.choose(labelled, "ner", total=60)
    assert len(pool.members) == len({each.id for each in pool.members}) == 60
    assert (pool.counts["LAW"], pool.counts["PERSON"]) == (7, 6)
    counts = [pool.counts[name] for name in ("GPE", "DATE", NONE)]
    assert max(counts) - min(counts) <= 1
    assert pool.level == min(counts) > 15
    assert pool.shortfall == {"LAW": pool.level - 7, "PERSON": pool.level - 6}
    assert pool.counts == Counter(name for each in pool.members for name in classes(each, "ner"))


def test_of_two_utterances_with_a_rare_tag_the_purer_one_is_taken(said):
    pure = said("on monday", ("DATE", "monday"), name="pure")
    mixed = [said(f"in london on monday {n}", ("DATE", "monday"), ("GPE", "london"), name=f"m{n}") for n in range(9)]
    plenty = [said(f"in london {n}", ("GPE", "london"), name=f"g{n}") for n in range(9)]
    assert pure in Pool.choose([*mixed, pure, *plenty], "ner", total=2).members


def test_a_pool_is_a_function_of_manifest_and_seed(labelled):
    first, same, other = (Pool.choose(labelled, "ner", 60, seed) for seed in (0, 0, 1))
    assert first == same and first.digest == same.digest
    assert {each.id for each in first.members} != {each.id for each in other.members}
    assert first.digest != other.digest


def test_everything_is_taken_where_there_is_too_little(labelled):
    pool = Pool.choose(labelled, "ner", total=1000)
    assert len(pool.members) == 200
    assert (pool.level, pool.shortfall["LAW"]) == (150, 143)


def test_shots_are_balanced_and_the_same_again(labelled, said):
    pool = Pool.choose(labelled, "ner", total=60)
    asked = [said(f"asked {n}", name=f"asked{n}") for n in range(40)]
    drawn = [pool.shots(each, 10) for each in asked]
    assert drawn == [pool.shots(each, 10) for each in asked]
    assert all(len({each.id for each in shots}) == 10 for shots in drawn)
    for shots in drawn:
        counts = Counter(name for each in shots for name in classes(each, "ner"))
        assert min(counts[name] for name in ("GPE", "DATE", "LAW", NONE)) >= 1
        assert max(counts.values()) <= 4
    assert len({tuple(each.id for each in shots) for shots in drawn}) > 30


def test_an_utterance_is_never_its_own_example(labelled):
    pool = Pool.choose(labelled, "ner", total=200)
    rare = next(each for each in pool.members if each.id == "p0")
    same_text = [pool.shots(each, 199) for each in (rare, labelled[0])]
    assert all(rare.text != each.text for each in same_text[0])
    assert [len(shots) for shots in same_text] == [199, 199]


def test_sentiments_are_balanced_as_slue_reads_them(said):
    rows = [said(f"{n}", name=f"{n}", sentiment="Neutral" if n < 80 else "Positive") for n in range(90)]
    rows += [said(f"{n}", name=f"{n}", sentiment="Negative" if n < 95 else "mixed") for n in range(90, 100)]
    pool = Pool.choose(rows, "sentiment", total=30)
    assert pool.counts == {"Negative": 5, "Neutral": 15, "Positive": 10}
    assert pool.shortfall == {"Negative": 10, "Positive": 5}


@pytest.mark.parametrize(("task", "fields"), [("ner", {"entities": None}), ("sentiment", {})])
def test_examples_without_labels_are_an_error(said, task, fields):
    with pytest.raises(DataError, match=r"x.jsonl:3: no (entities|sentiment), expected labelled examples"):
        Pool.choose([said("text", source="x.jsonl:3", **fields)], task)


def test_examples_with_tags_of_another_world_are_an_error(said):
    with pytest.raises(DataError, match="entity tag 'PLANET'"):
        Pool.choose([said("mars", ("PLANET", "mars"))], "ner")
