"""An evaluation for people to read on a terminal: the tables of scores, and the utterances that cost most."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.word_errors import has_words
from stapes.evaluation.worst import numbers, worst
from stapes.metrics.wer import alignment

NAMES = {
    "ner_f1": "NER F1",
    "ner_f1_combined": "NER F1, combined tags",
    "ner_label_f1": "NER label-F1",
    "sentiment_f1": "sentiment, macro F1",
    "bleu": "BLEU",
    "chrf": "chrF2",
    "comet": "COMET",
    "wer": "WER",
    "wer_sentence_mean": "WER, mean over utterances",
    "cer": "CER",
    "wer_whisper_en": "WER, Whisper's English normaliser",
    "ctc_wer": "WER of the CTC head alone",
}
PARTS = {
    "ner_f1": {"precision": "NER precision", "recall": "NER recall"},
    "sentiment_f1": {
        "macro_precision": "sentiment, macro precision",
        "macro_recall": "sentiment, macro recall",
        "weighted_precision": "sentiment, weighted precision",
        "weighted_recall": "sentiment, weighted recall",
        "weighted_f1": "sentiment, weighted F1",
        "accuracy": "sentiment, accuracy",
    },
}
"""What is shown below a score, without an interval of its own."""

COUNTS = {
    "utterances": "utterances",
    "left_out": "left out, without labels for the task",
    "reference_words": "words in the references",
    "substitutions": "substitutions",
    "deletions": "deletions",
    "insertions": "insertions",
    "capped": "cut off by the cap on tokens",
    "repairs": "malformed places, mended",
    "unreadable": "unreadable, scored as empty",
    "synthetic": "said by a synthesiser",
}
SYNTHETIC = "synthetic speech"
CLASS_COLUMNS = ("", "F1", "precision", "recall", "in the references")
SHOWN = 5
LINE_CHARACTERS = 78


def report(evaluation: Evaluation, title: str, shown: int = SHOWN) -> Group:
    """Scores, signatures, provenance and worst utterances, to be printed by rich.

    Args:
        evaluation: of a model on a manifest.
        title: of the table.
        shown: how many of the worst utterances.
    """
    parts: list[Table | Text] = [table(evaluation, full_title(evaluation, title))]
    parts += [Text(line, style="dim") for line in (*signature_lines(evaluation), provenance_line(evaluation))]
    parts += [class_table(classes, heading) for heading, classes in per_class(evaluation).items()]
    positions = worst(evaluation, shown)
    if positions:
        parts.append(Text("\nutterances with most errors", style="bold"))
    for position in positions:
        found = evaluation.predictions[position]
        parts.append(Text(f"\n{found.id}: {numbers(evaluation, position)}"))
        if has_words(evaluation) or "translation" in found.labels:
            parts.append(Text(alignment(found.reference, found.hypothesis, evaluation.normaliser, LINE_CHARACTERS)))
    return Group(*parts)


def full_title(evaluation: Evaluation, title: str) -> str:
    """The title of an evaluation, with how much of its sound was made by a synthesiser if any was."""
    scores = evaluation.scores
    if "synthetic" not in scores:
        return title
    if scores["synthetic"] == scores["utterances"]:
        return f"{title} ({SYNTHETIC})"
    return f"{title} ({SYNTHETIC}: {scores['synthetic']} of {scores['utterances']} utterances)"


def score_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value and 95 % interval of every score, as people read them; below it what it is made of.

    What rests on synthetic speech is called so.
    """
    scores, rows = evaluation.scores, []
    said_by = f", {SYNTHETIC}" if "synthetic" in scores else ""
    for rate, name in NAMES.items():
        if rate in scores:
            interval = scores["intervals"].get(rate)
            rows.append((name + said_by, f"{scores[rate]:.2f}", f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else ""))
            found, titles = scores.get("parts", {}).get(rate, {}), PARTS.get(rate, {})
            rows += [(title + said_by, f"{found[part]:.2f}", "") for part, title in titles.items() if part in found]
    return rows


def signature_lines(evaluation: Evaluation) -> list[str]:
    """Name and signature of every score: numbers whose signatures are equal can be compared."""
    signatures = evaluation.scores["signatures"]
    return [f"{name}: {signatures[rate]}" for rate, name in NAMES.items() if rate in signatures]


def provenance_line(evaluation: Evaluation) -> str:
    """What made the answers."""
    return f"made by: {evaluation.scores['provenance']}"


def count_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Name and value of every count."""
    return [(name, f"{evaluation.scores[count]}") for count, name in COUNTS.items() if count in evaluation.scores]


def per_class(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """Heading -> class -> precision, recall, F1 and references: of the entities' tags and of the sentiments."""
    parts = evaluation.scores.get("parts", {})
    tables = {
        "named entities by tag": parts.get("ner_f1", {}).get("per_tag"),
        "sentiment by label": parts.get("sentiment_f1", {}).get("per_label"),
    }
    return {heading: classes for heading, classes in tables.items() if classes}


def class_rows(classes: dict[str, Any]) -> list[tuple[str, ...]]:
    """The lines of such a table, under ``CLASS_COLUMNS``."""
    return [
        (name, *(f"{rates[rate]:.2f}" for rate in ("f1", "precision", "recall")), str(rates["reference"]))
        for name, rates in classes.items()
    ]


def table(evaluation: Evaluation, title: str) -> Table:
    """Rates with their 95 % intervals, then the counts behind them."""
    made = Table("", "%", "95 % interval", title=title, title_justify="left")
    for row in score_rows(evaluation):
        made.add_row(*row)
    made.add_section()
    for name, count in count_rows(evaluation):
        made.add_row(name, count, "")
    made.columns[1].justify = "right"
    return made


def class_table(classes: dict[str, Any], title: str) -> Table:
    """F1, precision and recall of every tag or label."""
    made = Table(*CLASS_COLUMNS, title=title, title_justify="left")
    for row in class_rows(classes):
        made.add_row(*row)
    for column in made.columns[1:]:
        column.justify = "right"
    return made
