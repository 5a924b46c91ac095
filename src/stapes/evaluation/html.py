"""An evaluation as one page: scores, errors by kind and by word, lost entities, lengths, the worst utterances with their sound.

The page needs nothing but itself: no network, no script. Every text that comes from data is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from stapes.errors import AudioError
from stapes.evaluation import plots
from stapes.evaluation.evaluate import Evaluation
from stapes.evaluation.lost import INVENTED, LOST, EntityError, all_entity_errors, by_kind, entity_errors, example_rows
from stapes.evaluation.report import (
    CLASS_COLUMNS,
    class_rows,
    count_rows,
    full_title,
    provenance_line,
    score_rows,
    signature_lines,
)
from stapes.evaluation.sound import MAX_SECONDS, data_uri
from stapes.evaluation.word_errors import aligned_words, duration_bins, has_words, word_errors
from stapes.evaluation.worst import numbers, texts, worst

WORST = 10
FREQUENT = 15
EXAMPLES = 8
BRIEF = 4


def page(evaluation: Evaluation, title: str, shown: int = WORST) -> str:
    """The page.

    Args:
        evaluation: of a model on a manifest; with its utterances, or there is no sound.
        title: its heading.
        shown: how many of the worst utterances.
    """
    title = full_title(evaluation, title)
    sections = [_scores(evaluation)]
    if has_words(evaluation):
        sections += [_words(evaluation), _lengths(evaluation)]
    parts = evaluation.scores.get("parts", {})
    if "ner_f1" in parts:
        sections.append(_entities(evaluation))
    if "sentiment_f1" in parts:
        sections.append(_sentiment(evaluation))
    sections.append(_worst(evaluation, shown))
    style = (resources.files("stapes.evaluation") / "report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _scores(evaluation: Evaluation) -> str:
    scores = _table(("", "score", "95 % interval"), score_rows(evaluation), "lrr")
    counts = _table(("", "count"), count_rows(evaluation), "lr")
    measured = "\n".join([*signature_lines(evaluation), provenance_line(evaluation)])
    return f'<div class="side">{scores}{counts}</div>\n<code>{escape(measured)}</code>'


def _words(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    counts = {kind: scores[kind] for kind in ("substitutions", "deletions", "insertions")}
    notes = {kind: f"{count} ({100 * count / scores['reference_words']:.1f} %)" for kind, count in counts.items()}
    alt = "Bars of word errors: " + ", ".join(f"{notes[kind]} {kind}" for kind in counts)
    drawn = plots.bars("errors", alt, counts, notes, "words, and in percent of the words in the references")
    found = word_errors(evaluation)
    pairs = [(said, heard, str(count)) for (said, heard), count in found.substitutions.most_common(FREQUENT)]
    tables = [_table(("said", "heard", "times"), pairs, "llr", "substitutions")] if pairs else []
    for caption, words in (("deletions", found.deletions), ("insertions", found.insertions)):
        if words:
            rows = [(word, str(count)) for word, count in words.most_common(FREQUENT)]
            tables.append(_table(("word", "times"), rows, "lr", caption))
    return f'<h2>Word errors</h2>\n{drawn}\n<div class="side">{"".join(tables)}</div>'


def _lengths(evaluation: Evaluation) -> str:
    bins = duration_bins(evaluation.predictions)
    said, heard = sum(each.reference_words for each in bins), sum(each.hypothesis_words for each in bins)
    ratio = f"{heard} words were heard where {said} were said: {heard / said:.3f} of them."
    alt = f"Words of each hypothesis against words of its reference, around the diagonal. {ratio}"
    rates = "Bars of the word error rate by duration: " + ", ".join(f"{each.label} {each.wer:.1f} %" for each in bins)
    return (
        f'<h2>Lengths</h2>\n<p class="note">{ratio} Below the line, fewer words were heard than said.</p>\n'
        + plots.lengths("lengths", alt, evaluation.predictions)
        + '\n<p class="note">Word error rate by duration, with 95 % intervals.</p>\n'
        + plots.by_duration("durations", rates, bins)
    )


def _entities(evaluation: Evaluation) -> str:
    classes = evaluation.scores["parts"]["ner_f1"]["per_tag"]
    found = all_entity_errors(evaluation)
    parts = ["<h2>Named entities</h2>"]
    if classes:
        f1 = {tag: rates["f1"] for tag, rates in classes.items()}
        notes = {tag: f"{rates['f1']:.1f} (n = {rates['reference']})" for tag, rates in classes.items()}
        alt = "Bars of F1 by tag: " + ", ".join(f"{tag} {note}" for tag, note in notes.items())
        parts.append(plots.bars("tags", alt, f1, notes, "F1, with the number of references", limit=100.0))
        parts.append(_table(CLASS_COLUMNS, class_rows(classes), "lrrrr"))
    parts.append(_entity_errors("lost", "Entities lost, by error", found.lost, LOST, "heard", EXAMPLES))
    parts.append(_entity_errors("invented", "Entities invented, by error", found.invented, INVENTED, "said", BRIEF))
    return "\n".join(parts)


def _entity_errors(name: str, heading: str, errors: Sequence[EntityError], names: dict[str, str], other: str, each: int) -> str:
    if not errors:
        return ""
    counts = {names[kind]: count for kind, count in by_kind(errors).items()}
    notes = {kind: f"{count} ({100 * count / len(errors):.0f} %)" for kind, count in counts.items()}
    alt = f"Bars, {heading.lower()}: " + ", ".join(f"{kind} {note}" for kind, note in notes.items())
    columns = ("error", "tag", "phrase", other, "tagged there", "times")
    table = _table(columns, example_rows(errors, names, each), "lllllr", "the most frequent of each kind")
    return f"<h3>{heading}</h3>\n{plots.bars(name, alt, counts, notes, 'entities')}\n{table}"


def _sentiment(evaluation: Evaluation) -> str:
    parts = evaluation.scores["parts"]["sentiment_f1"]
    alt = "Heat map of sentiments and answers: " + "; ".join(
        f"{label} was answered by " + ", ".join(f"{answer} {count} times" for answer, count in row.items() if count)
        for label, row in parts["confusion"].items()
        if any(row.values())
    )
    drawn = plots.confusion("sentiments", alt, parts["confusion"])
    return f"<h2>Sentiment</h2>\n{drawn}\n{_table(CLASS_COLUMNS, class_rows(parts['per_label']), 'lrrrr')}"


def _worst(evaluation: Evaluation, shown: int) -> str:
    positions = worst(evaluation, shown)
    if not positions:
        return ""
    key = (
        '<p class="note">The reference above, the hypothesis below: <span class="key substituted">substituted</span> '
        '<span class="key deleted"><span>deleted</span></span> <span class="key inserted"><span>inserted</span></span></p>'
    )
    parts = ["<h2>Worst utterances</h2>", key if has_words(evaluation) else ""]
    return "\n".join([*parts, *(_utterance(evaluation, position) for position in positions)])


def _utterance(evaluation: Evaluation, position: int) -> str:
    found = evaluation.predictions[position]
    parts = [f"<h3>{escape(found.id)}</h3>", f'<p class="note">{escape(numbers(evaluation, position))}</p>']
    if evaluation.utterances:
        parts.append(_sound(evaluation, position))
    if has_words(evaluation):
        parts.append(_aligned(found.reference, found.hypothesis, evaluation.normaliser))
    else:
        parts.append(_table(("", "text"), texts(evaluation, position), "ll"))
    errors = entity_errors(found, has_words(evaluation))
    rows = [("lost", *row[:5]) for row in example_rows(errors.lost, LOST, len(errors.lost))]
    rows += [("invented", *row[:5]) for row in example_rows(errors.invented, INVENTED, len(errors.invented))]
    if rows:
        parts.append(_table(("entity", "error", "tag", "phrase", "other side", "tagged there"), rows, "llllll"))
    return f'<article class="utterance">\n{"".join(parts)}\n</article>'


def _sound(evaluation: Evaluation, position: int) -> str:
    utterance = evaluation.utterances[position]
    try:
        source = data_uri(utterance)
    except AudioError as error:
        return f'<p class="note">no sound: {escape(str(error))}</p>'
    part = f", the first {MAX_SECONDS:.0f} s" if utterance.duration > MAX_SECONDS else ""
    label = escape(f"sound of {utterance.id}{part}")
    return f'<audio controls preload="metadata" aria-label="{label}" title="{label}" src="{source}"></audio>'


def _aligned(reference: str, hypothesis: str, normaliser: str) -> str:
    """Word above word, what differs marked."""
    columns = []
    for said, heard in aligned_words(reference, hypothesis, normaliser):
        kind = "inserted" if said is None else "deleted" if heard is None else "substituted" if said != heard else ""
        words = f"<span>{escape(said or '')}</span><span>{escape(heard or '')}</span>"
        columns.append(f'<span class="{f"column {kind}".strip()}">{words}</span>')
    return f'<div class="aligned">{"".join(columns)}</div>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], sides: str, caption: str = "") -> str:
    """A table whose columns are aligned to the left (l) or to the right (r)."""
    marks = [' class="right"' if side == "r" else "" for side in sides]
    head = "".join(f"<th{mark}>{escape(cell)}</th>" for mark, cell in zip(marks, columns, strict=True))
    body = [
        "<tr>" + "".join(f"<td{mark}>{escape(cell)}</td>" for mark, cell in zip(marks, row, strict=True)) + "</tr>"
        for row in rows
    ]
    heading = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{heading}<thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
