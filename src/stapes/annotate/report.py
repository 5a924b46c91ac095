"""What a run did, as a JSON object and as lines; and the quality of its labels as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from stapes.annotate.backends.base import Usage
from stapes.annotate.label import Labelled
from stapes.annotate.quality import STAGES, Quality, Rates

SHOWN_ERRORS = 20


def summary(labelled: Labelled, usage: Usage, trouble: Counter[str], prices: tuple[float, float] | None) -> dict[str, Any]:
    """Counts of a run: labels, rejections by stage and reason, failures, troubles, tokens and, given prices, cost.

    Args:
        labelled: what came of the manifest.
        usage: of all requests.
        trouble: what went wrong on the way.
        prices: for a million tokens of prompts and of answers, in any currency.
    """
    rejected = Counter((each.stage, each.reason) for each in labelled.rejected)
    facts: dict[str, Any] = {
        "utterances": len(labelled.utterances),
        "entities": sum(len(each.entities) for each in labelled.filtered.values()),
        "repaired": sum(each.repaired for each in labelled.filtered.values()),
        "unmapped": sum(each.unmapped for each in labelled.filtered.values()),
        "rejected": {f"{stage}: {reason}": count for (stage, reason), count in sorted(rejected.items())},
        "failures": dict(sorted(Counter(each["reason"] for each in labelled.failures).items())),
        "trouble": dict(sorted(trouble.items())),
        "usage": asdict(usage),
    }
    if prices is not None:
        facts["cost"] = (usage.prompt_tokens * prices[0] + usage.completion_tokens * prices[1]) / 1e6
    return facts


def lines(facts: dict[str, Any]) -> list[str]:
    """The same for people."""
    shown = [f"{facts['utterances']} utterances labelled, {facts['entities']} entities"]
    if facts["repaired"]:
        shown.append(f"{facts['repaired']} phrases repaired to what the transcript has")
    if facts["unmapped"]:
        shown.append(f"{facts['unmapped']} entities have no place in the raw text and are in `entities` only")
    for key, what in (("rejected", "rejected by filter"), ("failures", "failed"), ("trouble", "trouble on the way")):
        if facts[key]:
            counts = ", ".join(f"{reason} ({count})" for reason, count in facts[key].items())
            shown.append(f"{what} {counts}" if key == "rejected" else f"{what}: {counts}")
    if facts["usage"]["requests"]:
        cost = f", cost {facts['cost']:.2f}" if "cost" in facts else ""
        used = facts["usage"]
        shown.append(
            f"{used['requests']} requests, {used['prompt_tokens']} tokens in ({used['cached_tokens']} cached), "
            f"{used['completion_tokens']} out{cost}"
        )
    return shown


def scores(quality: Quality) -> dict[str, Any]:
    """The quality for the summary: rates of all tags and of each at every stage, and what the filters lost."""
    return {
        "utterances": quality.utterances,
        "unanswered": quality.unanswered,
        "rates": {f"{tag_set}, {stage}": _numbers(rates) for (stage, tag_set), rates in quality.rates.items()},
        "per_tag": {
            f"{tag_set}, {stage}": {tag: _numbers(rates) for tag, rates in per_tag.items()}
            for (stage, tag_set), per_tag in quality.per_tag.items()
        },
        "macro_f1": quality.macro_f1,
        "rejected": {
            f"{stage}: {reason}": {"rejected": count, "lost": lost} for stage, reason, count, lost in _losses(quality)
        },
    }


def markdown(quality: Quality, title: str) -> str:
    """The report on quality."""
    left_out = f"; {quality.unanswered} more that people labelled have no answer" if quality.unanswered else ""
    parts = [f"# {title}", f"{quality.utterances} utterances{left_out}. Percent."]
    head = ["stage", "tags", "precision", "recall", "F1", "right", "invented", "missed"]
    rows = [[stage, tag_set, *_row(rates)] for (stage, tag_set), rates in sorted(quality.rates.items(), key=_by_stage)]
    parts.append(_table(head, rows))
    if quality.macro_f1:
        parts.append("Macro F1: " + ", ".join(f"{value:.1f} {stage}" for stage, value in quality.macro_f1.items()) + ".")
    for tag_set in dict.fromkeys(tag_set for _, tag_set in quality.per_tag):
        parts.append(f"## By tag, {tag_set}")
        of_stages = [(stage, quality.per_tag.get((stage, tag_set), {})) for stage in STAGES]
        tags = sorted({tag for _, per_tag in of_stages for tag in per_tag})
        rows = [[_cell(tag), stage, *_row(per_tag[tag])] for tag in tags for stage, per_tag in of_stages if tag in per_tag]
        parts.append(_table(["tag", "stage", *head[2:]], rows))
    if losses := _losses(quality):
        parts.append("## Rejected")
        parts.append("Lost is what people have too, and none that was kept stands for.")
        rows = [[str(stage), reason, str(count), str(lost)] for stage, reason, count, lost in losses]
        parts.append(_table(["filter", "reason", "rejected", "lost"], rows))
    parts.append("## Errors")
    kinds = Counter(error["kind"] for error in quality.errors)
    parts.append(_table(["kind", "count"], [[kind, str(count)] for kind, count in kinds.most_common()]))
    frequent = Counter((error["kind"], _shown(error["human"]), _shown(error["annotator"])) for error in quality.errors)
    parts.append(f"The {SHOWN_ERRORS} most frequent; all of them, with their texts, are in the file of errors.")
    rows = [[*error, str(count)] for error, count in frequent.most_common(SHOWN_ERRORS)]
    parts.append(_table(["kind", "people", "annotator", "count"], rows))
    return "\n\n".join(parts) + "\n"


def _by_stage(item: tuple[tuple[str, str], Rates]) -> tuple[str, int]:
    (stage, tag_set), _ = item
    return tag_set, STAGES.index(stage)


def _losses(quality: Quality) -> list[tuple[int, str, int, int]]:
    """Filter, reason, how many labels of the compared utterances it dropped, and how many of them were lost."""
    compared = [each for each in quality.rejected if each["lost"] is not None]
    rejected = Counter((each["stage"], each["reason"]) for each in compared)
    lost = Counter((each["stage"], each["reason"]) for each in compared if each["lost"])
    return [(*key, count, lost[key]) for key, count in sorted(rejected.items())]


def _numbers(rates: Rates) -> dict[str, float]:
    return {"precision": rates.precision, "recall": rates.recall, "f1": rates.f1, **asdict(rates)}


def _row(rates: Rates) -> list[str]:
    scores = [f"{value:.1f}" for value in (rates.precision, rates.recall, rates.f1)]
    return [*scores, str(rates.hits), str(rates.invented), str(rates.missed)]


def _shown(label: dict[str, str] | None) -> str:
    return "" if label is None else _cell(f"{label['tag']} {label['phrase']}")


def _cell(text: str) -> str:
    """Text of an annotator as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
