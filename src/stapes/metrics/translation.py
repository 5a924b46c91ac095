"""Translations: BLEU and chrF by sacrebleu with its signatures (Post, WMT 2018), and COMET where it is installed.

Texts are compared as they are: case and punctuation count, and sacrebleu's tokeniser is all that is done to them. BLEU and chrF
are functions of sums over utterances, which is how their intervals and paired tests are computed (`bleu_of_sums`,
`chrf_of_sums`).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from importlib.util import find_spec
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stapes.errors import MissingDependency, RecipeError
from stapes.metrics import bootstrap
from stapes.metrics.paired import require_pairs
from stapes.registry import nearest
from stapes.types import Score

COMET_MODEL = "Unbabel/wmt22-comet-da"


def bleu(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    tokenize: str = "13a",
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Score:
    """Corpus BLEU against one reference an utterance, with sacrebleu's defaults.

    Args:
        references: translations, one an utterance.
        hypotheses: what was written, in the same order.
        tokenize: sacrebleu's tokeniser; other than its default for languages without spaces (``zh``, ``char``).
        resamples: bootstrap samples behind the interval; 0 for no interval.
        seed: of the bootstrap.

    Returns:
        BLEU, 0 to 100. Parts: ``precisions`` of 1- to 4-grams in percent, ``brevity_penalty``, ``hypothesis_tokens``,
        ``reference_tokens``; ``utterance_statistics``, what each utterance adds to sacrebleu's sums. The signature is
        sacrebleu's.

    Raises:
        DataError: the lists differ in length or are empty.
        RecipeError: sacrebleu has no such tokeniser.
    """
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        raise RecipeError("bleu.tokenize", f"unknown tokeniser '{tokenize}'", fix=nearest(tokenize, BLEU.TOKENIZERS))
    metric = BLEU(tokenize=tokenize)
    statistics = _statistics("bleu", metric, references, hypotheses)
    found = metric._aggregate_and_compute(statistics)
    return Score(
        value=float(found.score),
        parts={
            "precisions": [float(precision) for precision in found.precisions],
            "brevity_penalty": float(found.bp),
            "hypothesis_tokens": int(found.sys_len),
            "reference_tokens": int(found.ref_len),
            "utterance_statistics": statistics,
        },
        interval=bootstrap.interval_of(bleu_of_sums, statistics, resamples=resamples, seed=seed) if resamples else None,
        signature=f"bleu|{metric.get_signature()}|n:{len(references)}",
    )


def chrf(references: Sequence[str], hypotheses: Sequence[str], *, resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> Score:
    """Corpus chrF2 (of characters, without words) with sacrebleu's defaults; arguments and errors as for `bleu`.

    Returns:
        chrF2, 0 to 100. Part: ``utterance_statistics``.
    """
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    statistics = _statistics("chrf", metric, references, hypotheses)
    return Score(
        value=float(metric._aggregate_and_compute(statistics).score),
        parts={"utterance_statistics": statistics},
        interval=bootstrap.interval_of(chrf_of_sums, statistics, resamples=resamples, seed=seed) if resamples else None,
        signature=f"chrf2|{metric.get_signature()}|n:{len(references)}",
    )


def bleu_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(resamples, 10) sums of BLEU's statistics -> (resamples,) BLEU."""
    from sacrebleu.metrics.bleu import BLEU

    return _scores(BLEU(), sums)


def chrf_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(resamples, 18) sums of chrF2's statistics -> (resamples,) chrF2."""
    from sacrebleu.metrics.chrf import CHRF

    return _scores(CHRF(), sums)


def comet(
    sources: Sequence[str],
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    model: str = COMET_MODEL,
    batch_size: int = 8,
    gpus: int = 0,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Score:
    """COMET (Rei et al., WMT 2022), times 100. Not covered by our tests beyond its absence: the model is a download of 2 GB.

    Args:
        sources: transcripts of what was said, in its language.
        references, hypotheses: translations of it, in the same order.
        model: a COMET model of the hub; the default is the one behind arXiv 2409.17044's code.
        batch_size, gpus: as COMET's ``predict`` takes them.
        resamples: bootstrap samples behind the interval; 0 for no interval.
        seed: of the bootstrap.

    Returns:
        The mean of the utterances' scores, times 100. Part: ``utterance_scores``, as the model gives them.

    Raises:
        DataError: the lists differ in length or are empty.
        MissingDependency: ``unbabel-comet`` is not installed.
    """
    require_pairs("comet", sources, hypotheses)
    require_pairs("comet", references, hypotheses)
    checkpoint = fetch_comet(model)
    from comet import load_from_checkpoint

    rows = [
        {"src": source, "mt": hypothesis, "ref": reference}
        for source, reference, hypothesis in zip(sources, references, hypotheses, strict=True)
    ]
    predicted = load_from_checkpoint(checkpoint).predict(rows, batch_size=batch_size, gpus=gpus)
    scores = [float(score) for score in predicted.scores]
    return Score(
        value=100.0 * fmean(scores),
        parts={"utterance_scores": scores},
        interval=bootstrap.interval(scores, [1] * len(scores), resamples=resamples, seed=seed) if resamples else None,
        signature=f"comet|model:{model}|unbabel-comet:{importlib.metadata.version('unbabel-comet')}|n:{len(scores)}",
    )


def fetch_comet(model: str) -> str:
    """The path of a COMET model, downloaded if need be: to be done before there is anything to score.

    Raises:
        MissingDependency: ``unbabel-comet`` is not installed.
    """
    if find_spec("comet") is None:
        raise MissingDependency("COMET", "comet")
    from comet import download_model

    return str(download_model(model))


# The sums are not part of sacrebleu's public interface, but its own bootstrap and paired tests go through these methods.


def _statistics(name: str, metric: Any, references: Sequence[str], hypotheses: Sequence[str]) -> list[list[int]]:
    require_pairs(name, references, hypotheses)
    found: list[list[int]] = metric._extract_corpus_statistics(hypotheses, [references])
    return found


def _scores(metric: Any, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([metric._compute_score_from_stats(row).score for row in sums.astype(np.int64).tolist()])
