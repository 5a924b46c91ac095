from collections import Counter

from stapes.annotate import report
from stapes.annotate.backends.base import Usage
from stapes.annotate.filter import Filtered, Rejection
from stapes.annotate.label import Labelled
from stapes.annotate.quality import Quality, Rates
from stapes.types import Entity

USAGE = Usage(12, 3_000_000, 1_000_000, 200_000)


def test_a_summary_counts_and_costs(said):
    entity = Entity("GPE", 0, 4, "text")
    rejected = [Rejection("a", 1, "not in the transcript", "GPE", "x"), Rejection("a", 2, "unknown tag", "X", "text")]
    filtered = {"a": Filtered((entity,), (), ([], [], []), tuple(rejected), repaired=1, unmapped=1)}
    labelled = Labelled([said("text")], rejected, [{"id": "b", "text": "b", "reason": "refused"}], filtered)
    facts = report.summary(labelled, USAGE, Counter({"429": 3}), prices=(2.5, 10.0))
    assert facts["cost"] == 3 * 2.5 + 0.2 * 10
    shown = report.lines(facts)
    assert shown == [
        "1 utterances labelled, 1 entities",
        "1 phrases repaired to what the transcript has",
        "1 entities have no place in the raw text and are in `entities` only",
        "rejected by filter 1: not in the transcript (1), 2: unknown tag (1)",
        "failed: refused (1)",
        "trouble on the way: 429 (3)",
        "12 requests, 3000000 tokens in (1000000 cached), 200000 out, cost 9.50",
    ]


def test_what_costs_nothing_says_nothing_of_it():
    facts = report.summary(Labelled(), Usage(), Counter(), prices=None)
    assert "cost" not in facts
    assert report.lines(facts) == ["0 utterances labelled, 0 entities"]


def test_a_report_on_quality_is_markdown_with_every_number():
    rates = {("before", "raw"): Rates(3, 1, 2), ("after filter 2", "raw"): Rates(3, 0, 2)}
    error = {"id": "a", "kind": "other tag", "text": "x", "human": {"tag": "GPE", "phrase": "a|b"}, "annotator": None}
    per_tag = {
        ("before", "raw"): {"GPE": Rates(3, 0, 2), "A|B\nC": Rates(0, 1, 0)},
        ("after filter 2", "raw"): {"GPE": Rates(3, 0, 2)},
    }
    reasons = [(1, "absent", False), (1, "absent", True), (2, "unknown tag", False), (2, "unknown tag", None)]
    rejected = [{"id": "a", "stage": stage, "reason": reason, "lost": lost} for stage, reason, lost in reasons]
    quality = Quality("ner", 7, 1, rates, per_tag, {}, rejected, [error, error])
    text = report.markdown(quality, "A title")
    assert text.startswith("# A title\n\n7 utterances; 1 more that people labelled have no answer. Percent.\n")
    assert (
        "| before | raw | 75.0 | 60.0 | 66.7 | 3 | 1 | 2 |\n| after filter 2 | raw | 100.0 | 60.0 | 75.0 | 3 | 0 | 2 |" in text
    )
    assert "## By tag, raw\n" in text
    assert (
        "| A\\|B C | before | 0.0 | 0.0 | 0.0 | 0 | 1 | 0 |\n"
        "| GPE | before | 100.0 | 60.0 | 75.0 | 3 | 0 | 2 |\n"
        "| GPE | after filter 2 | 100.0 | 60.0 | 75.0 | 3 | 0 | 2 |\n" in text
    )
    assert "| 1 | absent | 2 | 1 |\n| 2 | unknown tag | 1 | 0 |" in text
    facts = report.scores(quality)
    assert facts["per_tag"]["raw, after filter 2"] == {"GPE": facts["rates"]["raw, after filter 2"]}
    assert facts["rates"]["raw, after filter 2"] == {
        **{"precision": 100.0, "recall": 60.0, "f1": 75.0},
        **{"hits": 3, "invented": 0, "missed": 2},
    }
    assert facts["per_tag"]["raw, before"]["A|B\nC"]["invented"] == 1
    assert facts["rejected"] == {"1: absent": {"rejected": 2, "lost": 1}, "2: unknown tag": {"rejected": 1, "lost": 0}}
    assert "| other tag | GPE a\\|b |  | 2 |" in text
