"""Two evaluations of the same utterances, score by score: is one better, and may chance have done it?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from stapes.errors import DataError
from stapes.evaluation.measures import MEASURES, Measure
from stapes.evaluation.predictions import PredictionLine, Predictions, setting
from stapes.metrics import bootstrap
from stapes.metrics.paired import by_id
from stapes.metrics.signature import facts
from stapes.metrics.significance import ENOUGH_SEGMENTS, Difference, MatchedPairs, mapsswe, paired_bootstrap

_SHOWN_IDS = 3
_SETTINGS = ("norm", "tags", "tok", "style", "to", "synthetic")  # versions are those installed here, for both runs


@dataclass(frozen=True)
class Comparison:
    """Every score that both runs have.

    Attributes:
        utterances: in both.
        differences: name of the score -> the two runs by it.
        matched_pairs: MAPSSWE on the word errors; None where no words are compared.
        signatures: name of the score -> how it was measured.
    """

    utterances: int
    differences: dict[str, Difference]
    matched_pairs: MatchedPairs | None
    signatures: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """For ``stapes compare --json``."""
        scores = {
            name: {
                "a": found.first,
                "b": found.second,
                "difference": found.difference,
                "interval": found.interval,
                "p": found.p,
                "utterances": found.utterances,
                "signature": self.signatures[name],
            }
            for name, found in self.differences.items()
        }
        matched = {"mapsswe": asdict(self.matched_pairs)} if self.matched_pairs else {}
        return {"utterances": self.utterances, "scores": scores} | matched


def compare(first: Predictions, second: Predictions, *, resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> Comparison:
    """Compare two runs by every score that both have.

    Args:
        first, second: of the same utterances, in any order.
        resamples: of the paired bootstrap.
        seed: of the bootstrap.

    Raises:
        DataError: ids, references or settings of the two are not the same, or there is no score that both have.
    """
    where = f"{first.folder} and {second.folder}"
    pairs = by_id(where, first.lines, second.lines)
    differences: dict[str, Difference] = {}
    signatures: dict[str, str] = {}
    for name, measure in MEASURES.items():
        if name not in first.signatures or name not in second.signatures:
            continue
        signature = _shared(where, measure.title, first.signatures[name], second.signatures[name])
        runs = _scored(where, measure, pairs)
        if runs:
            scores = [measure.of(lines, signature, resamples=0) for lines in runs]
            differences[name] = paired_bootstrap(
                measure.statistic, *map(measure.columns, scores), resamples=resamples, seed=seed
            )
            signatures[name] = scores[0].signature
    if not differences:
        raise DataError(where, "no score that both have", "references with words, entities, sentiments or translations")
    matched = None
    if "wer" in differences:
        references = [line.reference for line, _ in pairs]
        heard = ([line.hypothesis for line in lines] for lines in zip(*pairs, strict=True))
        matched = mapsswe(references, *heard, normaliser=setting(signatures["wer"], "norm"))
    return Comparison(len(pairs), differences, matched, signatures)


def _shared(where: str, title: str, first: str, second: str) -> str:
    """What the signatures of a score say of both runs; DataError where they were not measured in the same way."""
    said, other = facts(first), facts(second)
    for fact in _SETTINGS:
        if said.get(fact) != other.get(fact):
            found = " and ".join(f"{fact}:{each.get(fact, '(none)')}" for each in (said, other))
            raise DataError(where, f"{title} with {found}", "the same for both", "evaluate one of them again")
    return "|".join(part for part in first.split("|") if part in second.split("|"))


def _scored(
    where: str, measure: Measure, pairs: list[tuple[PredictionLine, PredictionLine]]
) -> tuple[list[PredictionLine], list[PredictionLine]] | None:
    """The lines of both runs that a score is about, in one order; None where a run has none."""
    runs = [measure.scored(lines) for lines in zip(*pairs, strict=True)]
    if not all(runs):
        return None
    common = by_id(f"{where}: {measure.title}", *({line.id: line for line in lines} for lines in runs))
    other = [line.id for line, same in common if getattr(line, measure.reference) != getattr(same, measure.reference)]
    if other:
        shown = ", ".join(map(repr, other[:_SHOWN_IDS])) + (", ..." if len(other) > _SHOWN_IDS else "")
        raise DataError(
            where, f"'{measure.reference}' differs in {len(other)} of {len(common)} utterances ({shown})", "the same references"
        )
    return [line for line, _ in common], [line for _, line in common]


def table(found: Comparison, title: str) -> Group:
    """A comparison for people: scores, differences and tests, to be printed by rich."""
    made = Table("", "A", "B", "B - A", "95 % interval", "p", "utterances", title=title, title_justify="left")
    for name, two in found.differences.items():
        interval = f"{two.interval[0]:+.2f} to {two.interval[1]:+.2f}"
        scores = f"{two.first:.2f}", f"{two.second:.2f}", f"{two.difference:+.2f}"
        made.add_row(MEASURES[name].title, *scores, interval, _p(two.p), str(two.utterances))
    for column in (1, 2, 3, 5, 6):
        made.columns[column].justify = "right"
    parts: list[Table | Text] = [made]
    if found.matched_pairs is not None:
        pairs = found.matched_pairs
        few = f" (few to go by: it wants some {ENOUGH_SEGMENTS})" if pairs.segments < ENOUGH_SEGMENTS else ""
        tested = f"{pairs.segments} segments, Z {pairs.z:+.2f}, p {_p(pairs.p)}"
        parts.append(Text(f"MAPSSWE on word errors: {tested}{few}"))
    parts += [Text(signature, style="dim") for signature in found.signatures.values()]
    return Group(*parts)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
