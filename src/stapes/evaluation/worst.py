"""The utterances that cost an evaluation most, whatever its task counts, and what there is to say of each."""

from __future__ import annotations

import numpy as np

from stapes.evaluation.evaluate import Evaluation, Prediction
from stapes.evaluation.lost import entity_errors
from stapes.evaluation.word_errors import has_words
from stapes.metrics.translation import chrf, chrf_of_sums


def worst(evaluation: Evaluation, count: int) -> list[int]:
    """Positions of the worst utterances: by errors, then by word error rate; those without an error are left out.

    Errors are those of words, entities lost and entities invented, and a wrong sentiment, as far as the task has them. Of
    translations, the worst are those with the lowest chrF2.
    """
    if "chrf" in evaluation.scores:
        costs = [(100.0 - score, 0.0) for score in utterance_chrf(evaluation)]
    else:
        costs = [_cost(prediction, has_words(evaluation)) for prediction in evaluation.predictions]
    wrong = [position for position, (errors, _) in enumerate(costs) if errors > 0]
    return sorted(wrong, key=lambda position: costs[position], reverse=True)[:count]


def numbers(evaluation: Evaluation, position: int) -> str:
    """What can be counted of an utterance: its errors of every kind, its duration, and what went wrong."""
    prediction = evaluation.predictions[position]
    said: list[str] = []
    if has_words(evaluation):
        said.append(f"{_counted(prediction.errors, 'error')} in {_counted(prediction.counts.reference_words, 'word')}")
    if "chrf" in evaluation.scores:
        said.append(f"chrF2 {chrf([prediction.reference], [prediction.hypothesis], resamples=0).value:.1f}")
    found = entity_errors(prediction, has_words(evaluation))
    if found.lost:
        said.append(f"{_counted(len(found.lost), 'entity', 'entities')} lost")
    if found.invented:
        said.append(f"{_counted(len(found.invented), 'entity', 'entities')} invented")
    if _is_misjudged(prediction):
        said.append(f"{prediction.labels['reference_sentiment']} taken for {prediction.labels['sentiment'] or 'no label'}")
    said.append(f"{prediction.duration:.1f} s")
    if prediction.unreadable:
        said.append(f"unreadable: {prediction.unreadable}")
    elif prediction.capped:
        said.append("capped")
    return ", ".join(said)


def texts(evaluation: Evaluation, position: int) -> list[tuple[str, str]]:
    """What there is to read of an utterance whose words were not compared one by one, each text with what it is."""
    found = evaluation.predictions[position]
    said = [("said", evaluation.utterances[position].text)] if evaluation.utterances else []
    translated = [("reference", found.reference), ("hypothesis", found.hypothesis)] if "translation" in found.labels else []
    return [*said, *translated]


def utterance_chrf(evaluation: Evaluation) -> list[float]:
    """chrF2 of each translation, 0 to 100."""
    references, hypotheses = zip(*((found.reference, found.hypothesis) for found in evaluation.predictions), strict=True)
    statistics = chrf(references, hypotheses, resamples=0).parts["utterance_statistics"]
    return [float(score) for score in chrf_of_sums(np.array(statistics))]


def _cost(prediction: Prediction, words: bool) -> tuple[float, float]:
    found = entity_errors(prediction, words)
    labels = len(found.lost) + len(found.invented) + _is_misjudged(prediction)
    return (labels + prediction.errors, prediction.counts.rate) if words else (labels, 0.0)


def _is_misjudged(prediction: Prediction) -> bool:
    return prediction.labels.get("reference_sentiment") != prediction.labels.get("sentiment")


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
