"""An evaluation as Markdown: scores, counts, tables by class, lost entities, and the worst utterances."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.lost import INVENTED, LOST, all_entity_errors, example_rows, kind_rows
from stapes.evaluation.report import (
    CLASS_COLUMNS,
    class_rows,
    count_rows,
    full_title,
    per_class,
    provenance_line,
    score_rows,
    signature_lines,
)
from stapes.evaluation.word_errors import has_words, word_errors
from stapes.evaluation.worst import numbers, texts, worst
from stapes.metrics.wer import alignment

WORST = 10
FREQUENT = 10
EXAMPLES = 5
LINE_CHARACTERS = 100


def markdown(evaluation: Evaluation, title: str, shown: int = WORST) -> str:
    """The report.

    Args:
        evaluation: of a model on a manifest.
        title: its heading.
        shown: how many of the worst utterances.
    """
    title = full_title(evaluation, title)
    parts = [f"# {escaped(title)}", _table(("", "score", "95 % interval"), score_rows(evaluation), "lrr")]
    parts += [_fenced("\n".join([*signature_lines(evaluation), provenance_line(evaluation)]))]
    parts += [_table(("", "count"), count_rows(evaluation), "lr")]
    for heading, classes in per_class(evaluation).items():
        parts += [f"## {heading.capitalize()}", _table(CLASS_COLUMNS, class_rows(classes), "lrrrr")]
    parts += [*_confusion(evaluation), *_entities(evaluation), *_words(evaluation), *_worst(evaluation, shown)]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text that stands in Markdown for itself, on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#!|~])", r"\\\1", text)


def _confusion(evaluation: Evaluation) -> list[str]:
    confusion = evaluation.scores.get("parts", {}).get("sentiment_f1", {}).get("confusion")
    if confusion is None:
        return []
    rows = [(label, *map(str, answers.values())) for label, answers in confusion.items()]
    columns = ("reference \\ answer", *next(iter(confusion.values())))
    return ["## Sentiments and answers", _table(columns, rows, "l" + "r" * (len(columns) - 1))]


def _entities(evaluation: Evaluation) -> list[str]:
    found = all_entity_errors(evaluation)
    parts = []
    for heading, errors, names, other in (
        ("Entities lost, by error", found.lost, LOST, "heard"),
        ("Entities invented, by error", found.invented, INVENTED, "said"),
    ):
        if errors:
            columns = ("error", "tag", "phrase", other, "tagged there", "times")
            parts += [f"## {heading}", _table(("error", "entities"), kind_rows(errors, names), "lr")]
            parts.append(_table(columns, example_rows(errors, names, EXAMPLES), "lllllr"))
    return parts


def _words(evaluation: Evaluation) -> list[str]:
    if not has_words(evaluation):
        return []
    found = word_errors(evaluation)
    pairs = [(said, heard, str(count)) for (said, heard), count in found.substitutions.most_common(FREQUENT)]
    parts = ["## Words"]
    if pairs:
        parts.append(_table(("said", "heard", "times"), pairs, "llr"))
    for heading, counts in (("left out", found.deletions), ("put in", found.insertions)):
        if counts:
            parts.append(_table((heading, "times"), [(w, str(n)) for w, n in counts.most_common(FREQUENT)], "lr"))
    return parts if len(parts) > 1 else []


def _worst(evaluation: Evaluation, shown: int) -> list[str]:
    positions = worst(evaluation, shown)
    parts = ["## Worst utterances"] if positions else []
    for position in positions:
        found = evaluation.predictions[position]
        parts.append(f"**{escaped(found.id)}**: {escaped(numbers(evaluation, position))}")
        if has_words(evaluation):
            parts.append(_fenced(alignment(found.reference, found.hypothesis, evaluation.normaliser, LINE_CHARACTERS)))
        elif texts(evaluation, position):
            parts.append(_fenced("\n".join(f"{name + ':':11} {text}" for name, text in texts(evaluation, position))))
    return parts


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], sides: str) -> str:
    """A table whose columns are aligned to the left (l) or to the right (r)."""
    rule = ["---:" if side == "r" else "---" for side in sides]
    lines = [list(map(escaped, columns)), rule, *(list(map(escaped, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str) -> str:
    """A block of code whose fence is longer than any in the text."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text}\n{fence}"
