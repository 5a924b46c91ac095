import json
from collections import Counter

import pytest

from stapes.annotate.backends.base import Answer, Question, Usage
from stapes.annotate.journal import opened
from stapes.errors import DataError

SETTINGS = {"task": "ner", "model": "rules"}
FIRST, SECOND = Question("a", "one"), Question("b", "two")
ANSWER = Answer({"entities": []}, usage=Usage(2, 100, 0, 10), trouble=Counter({"429": 1}))


@pytest.fixture
def path(tmp_path):
    """A journal with the answer to ``FIRST``."""
    with opened(tmp_path / "journal.jsonl", SETTINGS) as journal:
        assert journal.answer(FIRST) is None
        journal.write(FIRST, ANSWER)
        # An answer is in the file before the journal is closed.
        assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 2
    return tmp_path / "journal.jsonl"


def test_answers_are_there_again(path):
    with opened(path, SETTINGS) as journal:
        assert journal.answer(FIRST) == ANSWER
        assert journal.answer(SECOND) is None
        assert (journal.usage, journal.trouble) == (ANSWER.usage, {"429": 1})
    assert [file.name for file in path.parent.iterdir()] == ["journal.jsonl"]


def test_an_answer_belongs_to_what_was_asked(path):
    with opened(path, SETTINGS) as journal:
        assert journal.answer(Question("a", "one, corrected")) is None
        assert journal.answer(Question("a", "one", ({"role": "user", "content": "other shots"},))) is None


def test_what_got_no_answer_is_asked_again_and_its_cost_still_counts(path):
    with opened(path, SETTINGS) as journal:
        journal.write(SECOND, Answer(failure="no answer (timeout)", final=False, usage=Usage(1, 100, 0, 10)))
    with opened(path, SETTINGS) as journal:
        assert journal.answer(SECOND) is None
        journal.write(SECOND, Answer(failure="refused", usage=Usage(3, 300, 0, 30)))
    with opened(path, SETTINGS) as journal:
        found = journal.answer(SECOND)
        assert found is not None and found.failure == "refused"
        assert journal.usage == Usage(6, 500, 0, 50)


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_last_line_that_was_half_written_is_cut_off(path, kept):
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "b", "question": "0123456789", "labels": {"entities": []}}'[:kept])
    with opened(path, SETTINGS) as journal:
        assert journal.answer(FIRST) == ANSWER
        journal.write(SECOND, ANSWER)
    assert path.read_bytes().startswith(whole)
    with opened(path, SETTINGS) as journal:
        assert journal.answer(SECOND) == ANSWER


def test_a_journal_of_which_not_even_the_first_line_was_written_is_begun_anew(path):
    path.write_bytes(b'{"sett')
    with opened(path, SETTINGS):
        assert json.loads(path.read_text()) == {"settings": SETTINGS}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SETTINGS, "model": "other"}, 'written with model "rules", expected "other", which is asked for now'),
        ({**SETTINGS, "shots": 4}, "written with shots null, expected 4"),
        ({"task": "ner"}, 'written with model "rules", expected null'),
    ],
)
def test_a_journal_of_other_settings_is_refused_and_left_as_it_is(path, settings, message):
    before = path.read_bytes()
    with pytest.raises(DataError, match=message), opened(path, settings):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(("line", "number"), [("nonsense", 2), ("[]", 2), ('{"id": "b"}', 3), ("\x00", 3)])
def test_a_damaged_line_within_is_an_error(path, line, number):
    lines = path.read_text().splitlines()
    lines.insert(number - 1, line)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"journal.jsonl:{number}: not a line of a journal"), opened(path, SETTINGS):
        pass


def test_two_processes_do_not_write_at_once(path):
    with opened(path, SETTINGS), pytest.raises(DataError, match="another process"), opened(path, SETTINGS):
        pass
