"""An evaluation for people to read: the table of scores, and the utterances that cost most."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stapes.evaluation.evaluate import Evaluation
from stapes.metrics.wer import alignment, worst

NAMES = {
    "wer": "WER",
    "cer": "CER",
    "wer_whisper_en": "WER, Whisper's English normaliser",
    "ctc_wer": "WER of the CTC head alone",
}
COUNTS = {
    "utterances": "utterances",
    "reference_words": "words in the references",
    "substitutions": "substitutions",
    "deletions": "deletions",
    "insertions": "insertions",
    "capped": "cut off by the cap on tokens",
    "unreadable": "unreadable, scored as empty",
}
SHOWN = 5
LINE_CHARACTERS = 78


def report(evaluation: Evaluation, title: str, shown: int = SHOWN) -> Group:
    """Scores, signature and worst utterances, to be printed by rich.

    Args:
        evaluation: of a model on a manifest.
        title: of the table.
        shown: how many of the worst utterances.
    """
    parts: list[Table | Text] = [table(evaluation, title), Text(evaluation.scores["signature"], style="dim")]
    positions = worst([found.counts for found in evaluation.predictions], shown)
    if positions:
        parts.append(Text("\nutterances with most errors", style="bold"))
    for found in (evaluation.predictions[position] for position in positions):
        note = f", unreadable: {found.unreadable}" if found.unreadable else ", capped" if found.capped else ""
        errors = "1 error" if found.errors == 1 else f"{found.errors} errors"
        words = found.counts.reference_words
        parts.append(Text(f"\n{found.id}: {errors} in {words} words, {found.duration:.1f} s{note}"))
        parts.append(Text(alignment(found.reference, found.hypothesis, evaluation.normaliser, LINE_CHARACTERS)))
    return Group(*parts)


def table(evaluation: Evaluation, title: str) -> Table:
    """Rates with their 95 % intervals, then the counts behind them."""
    scores = evaluation.scores
    made = Table("", "%", "95 % interval", title=title, title_justify="left")
    for rate, name in NAMES.items():
        if rate in scores:
            interval = scores["intervals"].get(rate)
            made.add_row(name, f"{scores[rate]:.2f}", f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "")
    made.add_section()
    for count, name in COUNTS.items():
        if count in scores:
            made.add_row(name, f"{scores[count]}", "")
    made.columns[1].justify = "right"
    return made
