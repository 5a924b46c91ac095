"""Word and character error rate of a corpus, by jiwer, with the normaliser named and a bootstrap interval.

    rate = (substitutions + deletions + insertions) / (units of the references)

summed over the corpus before dividing, in percent; a unit is a word, or a character (spaces between words included). An empty
reference is legal and means non-speech: every unit of its hypothesis is an insertion.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from stapes.errors import DataError
from stapes.metrics import bootstrap
from stapes.metrics.paired import require_pairs
from stapes.text import normalise
from stapes.types import Score

WORDS, CHARACTERS = "words", "characters"


@dataclass(frozen=True)
class UtteranceErrors:
    """How one hypothesis differs from its reference, counted in words (or in characters, where the rate asked for is CER).

    Attributes:
        substitutions, deletions, insertions: of an alignment with the fewest errors.
        reference_words: length of the normalised reference.
    """

    substitutions: int
    deletions: int
    insertions: int
    reference_words: int

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together: the edit distance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def hits(self) -> int:
        """Words of the reference that the hypothesis has, in their place."""
        return self.reference_words - self.substitutions - self.deletions

    @property
    def rate(self) -> float:
        """Error rate in percent; infinite where words were put into an empty reference, 0 where both are empty."""
        if self.reference_words:
            return 100.0 * self.errors / self.reference_words
        return float("inf") if self.errors else 0.0


def wer(
    references: Sequence[str], hypotheses: Sequence[str], *, normaliser: str = "slue", resamples: int = 1000, seed: int = 0
) -> Score:
    """Word error rate of a corpus.

    Args:
        references: transcripts, one an utterance; empty for non-speech.
        hypotheses: recognised texts, in the same order.
        normaliser: name of what is done to both before they are compared, see `stapes.text.normalise`.
        resamples: bootstrap samples behind the interval; 0 for no interval.
        seed: of the bootstrap.

    Returns:
        The rate in percent. Parts: ``substitutions``, ``deletions``, ``insertions``, ``hits``, ``reference_words``;
        ``utterance_errors`` and ``utterance_words``, lists in the order given.

    Raises:
        DataError: the lists differ in length or are empty, or no reference holds a word.
        RecipeError: there is no such normaliser.
    """
    return _score("wer", WORDS, references, hypotheses, normaliser, resamples, seed)


def cer(
    references: Sequence[str], hypotheses: Sequence[str], *, normaliser: str = "slue", resamples: int = 1000, seed: int = 0
) -> Score:
    """Character error rate of a corpus, spaces between words included; arguments and errors as for `wer`.

    Returns:
        The rate in percent; parts as for `wer`, with ``reference_characters`` and ``utterance_characters``.
    """
    return _score("cer", CHARACTERS, references, hypotheses, normaliser, resamples, seed)


def sentence_mean_wer(
    references: Sequence[str], hypotheses: Sequence[str], *, normaliser: str = "slue", resamples: int = 1000, seed: int = 0
) -> Score:
    """The unweighted mean of the utterances' own word error rates, which the code of arXiv 2409.17044 reports as WER.

    A short utterance weighs as much as a long one, so this is not comparable with `wer`. An utterance with an empty reference
    has no rate and is left out. Arguments and errors as for `wer`.

    Returns:
        The mean in percent. Part: ``utterance_rates``, in percent, those left out being None.
    """
    utterances = per_utterance(references, hypotheses, normaliser)
    _require_units("wer_sentence_mean", WORDS, utterances, normaliser)
    rates = [utterance.rate if utterance.reference_words else None for utterance in utterances]
    known = [rate for rate in rates if rate is not None]
    return Score(
        value=fmean(known),
        parts={"utterance_rates": rates},
        interval=bootstrap.interval([rate / 100 for rate in known], [1] * len(known), resamples=resamples, seed=seed)
        if resamples
        else None,
        signature=_signature("wer_sentence_mean", normaliser, len(known)),
    )


def per_utterance(references: Sequence[str], hypotheses: Sequence[str], normaliser: str = "slue") -> list[UtteranceErrors]:
    """Word errors of each utterance, in the order given; raises as `wer` does, but lets all references be empty."""
    return _errors(align(references, hypotheses, normaliser, WORDS))


def alignment(reference: str, hypothesis: str, normaliser: str = "slue", line_width: int | None = None) -> str:
    """Reference above hypothesis above a line of S, D and I, for people to read; wrapped at ``line_width`` characters."""
    import jiwer

    output = align([reference], [hypothesis], normaliser, WORDS)
    drawn = jiwer.visualize_alignment(output, show_measures=False, skip_correct=False, line_width=line_width)
    lines = drawn.splitlines()[2:]  # without the heading, which numbers sentences
    return "\n".join(line.rstrip() for line in lines).rstrip()


def align(references: Sequence[str], hypotheses: Sequence[str], normaliser: str, unit: str) -> Any:
    """Normalise both and align them with jiwer."""
    import jiwer

    require_pairs("error rate", references, hypotheses)
    clean = normalise.get(normaliser)
    process = jiwer.process_words if unit == WORDS else jiwer.process_characters
    return process([clean(text) for text in references], [clean(text) for text in hypotheses])


def _errors(output: Any) -> list[UtteranceErrors]:
    """Count jiwer's alignments, one utterance after the other."""
    counted = []
    for reference, chunks in zip(output.references, output.alignments, strict=True):
        counts = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
        for chunk in chunks:
            counts[chunk.type] += max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        counted.append(UtteranceErrors(counts["substitute"], counts["delete"], counts["insert"], len(reference)))
    return counted


def _score(
    name: str,
    unit: str,
    references: Sequence[str],
    hypotheses: Sequence[str],
    normaliser: str,
    resamples: int,
    seed: int,
) -> Score:
    """The corpus rate in ``unit``, its parts, its interval and its signature."""
    utterances = _errors(align(references, hypotheses, normaliser, unit))
    errors = [utterance.errors for utterance in utterances]
    lengths = [utterance.reference_words for utterance in utterances]
    _require_units(name, unit, utterances, normaliser)
    return Score(
        value=100.0 * sum(errors) / sum(lengths),
        parts={
            "substitutions": sum(utterance.substitutions for utterance in utterances),
            "deletions": sum(utterance.deletions for utterance in utterances),
            "insertions": sum(utterance.insertions for utterance in utterances),
            "hits": sum(utterance.hits for utterance in utterances),
            f"reference_{unit}": sum(lengths),
            "utterance_errors": errors,
            f"utterance_{unit}": lengths,
        },
        interval=bootstrap.interval(errors, lengths, resamples=resamples, seed=seed) if resamples else None,
        signature=_signature(name, normaliser, len(utterances)),
    )


def _require_units(name: str, unit: str, utterances: Sequence[UtteranceErrors], normaliser: str) -> None:
    if not any(utterance.reference_words for utterance in utterances):
        inserted = sum(utterance.insertions for utterance in utterances)
        raise DataError(
            name,
            f"none of the {len(utterances)} references holds a word after normaliser '{normaliser}'",
            "at least one that does",
            f"they have {inserted} inserted {unit}, but a rate of no {unit} is undefined",
        )


def _signature(name: str, normaliser: str, utterances: int) -> str:
    versions = f"norm:{normaliser}.{normalise.version(normaliser)}|jiwer:{importlib.metadata.version('jiwer')}"
    return f"{name}|{versions}|n:{utterances}"
