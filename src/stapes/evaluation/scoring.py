"""The scores of an evaluation, and what is written of them: values, intervals, parts, and signatures with the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stapes.data.manifest import data_digest
from stapes.decoding.longform import Transcript
from stapes.errors import RecipeError
from stapes.metrics.signature import facts, with_facts
from stapes.metrics.translation import comet, fetch_comet
from stapes.metrics.wer import sentence_mean_wer, wer
from stapes.tasks import Result, Task
from stapes.tasks.translation import Translation
from stapes.text import normalise
from stapes.types import Score, Utterance

_DIGITS = 3


def check_comet(task: Task, model: str) -> None:
    """Have the COMET model here before the work begins; raise where there is none, or nothing that it can score."""
    if not isinstance(task, Translation):
        raise RecipeError("comet", f"the task '{task.key}'", "a translation", "leave it out, or choose another task")
    fetch_comet(model)


def corpus_scores(
    utterances: Sequence[Utterance],
    references: Sequence[Result],
    heard: Sequence[Transcript],
    task: Task,
    normaliser: str,
    ctc_normaliser: str | None,
) -> dict[str, Score]:
    """Every score that needs no other model, with its interval; of the CTC head where a normaliser for it is given."""
    scores = task.scores(references, [transcript.result for transcript in heard], normaliser)
    texts, found = [reference.text for reference in references], [transcript.text for transcript in heard]
    if "wer" in scores:
        more = {"wer_sentence_mean": sentence_mean_wer(texts, found, normaliser=normaliser)}
        english = all((utterance.language or "en").lower().startswith("en") for utterance in utterances)
        if english and any(map(normalise.whisper_en, texts)):
            more["wer_whisper_en"] = wer(texts, found, normaliser="whisper-en")
        style = facts(scores["wer"].signature).get("style", "")  # of the references, which all of them share
        scores |= {rate: with_facts(score, style=style) for rate, score in more.items()}
    spoken = [utterance.text for utterance in utterances]
    if ctc_normaliser is not None and any(map(normalise.get(ctc_normaliser), spoken)):
        scores["ctc_wer"] = wer(spoken, [transcript.ctc_text or "" for transcript in heard], normaliser=ctc_normaliser)
    return scores


def comet_score(
    utterances: Sequence[Utterance],
    references: Sequence[Result],
    heard: Sequence[Transcript],
    task: Task,
    model: str,
    gpus: int,
) -> Score:
    """COMET of translations, given the transcripts of what was said."""
    sides = ([reference.text for reference in references], [transcript.text for transcript in heard])
    score = comet([utterance.text for utterance in utterances], *sides, model=model, gpus=gpus)
    return with_facts(score, to=task.to if isinstance(task, Translation) else "")


def data_facts(utterances: Sequence[Utterance]) -> dict[str, str]:
    """What the signature of a score over all these utterances says of them."""
    synthetic = {"synthetic": "yes"} if any(utterance.synthetic for utterance in utterances) else {}
    return {"n": str(len(utterances)), "data": data_digest(utterances)[:16], **synthetic}


def described(scores: dict[str, Score], utterances: Sequence[Utterance]) -> dict[str, Any]:
    """The scores as ``scores.json`` has them, and their signatures with the data that they are of."""
    data = data_facts(utterances)
    parts = {rate: {part: value for part, value in score.parts.items() if _is_small(part)} for rate, score in scores.items()}
    words = parts.get("wer", {})
    return {
        **{rate: round(score.value, _DIGITS) for rate, score in scores.items()},
        **{kind: words[kind] for kind in ("substitutions", "deletions", "insertions", "reference_words") if kind in words},
        "intervals": {
            rate: [round(end, _DIGITS) for end in score.interval]
            for rate, score in scores.items()
            if score.interval is not None
        },
        "parts": {
            rate: _rounded(found) for rate, found in parts.items() if found and rate not in ("wer_whisper_en", "ctc_wer")
        },
        "signatures": {rate: with_facts(score, **data).signature for rate, score in scores.items()},
    }


def _is_small(part: str) -> bool:
    """Whether a part of a score is a number or a table; lists with a number for each utterance are in the predictions."""
    return not part.startswith("utterance_")


def _rounded(value: Any) -> Any:
    """The same with fewer digits, at every depth."""
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, _DIGITS) if isinstance(value, float) else value
