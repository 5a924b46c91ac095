"""Values that belong together: references and hypotheses by position, the results of two runs by the utterance's id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from stapes.errors import DataError

SHOWN_IDS = 3
First = TypeVar("First")
Second = TypeVar("Second")


def require_pairs(where: str, references: Sequence[object], hypotheses: Sequence[object]) -> None:
    """Insist on two lists of one length, with something in them.

    Raises:
        DataError: one is a string, they differ in length, or they are empty; ``where`` names the metric.
    """
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise DataError(where, "a single string", "a list of references and a list of hypotheses")
    if len(references) != len(hypotheses):
        raise DataError(
            where, f"{len(references)} references and {len(hypotheses)} hypotheses", "as many of one as of the other"
        )
    if not references:
        raise DataError(where, "no utterances", "at least one")


def by_id(where: str, first: Mapping[str, First], second: Mapping[str, Second]) -> list[tuple[First, Second]]:
    """The values of two runs, utterance by utterance, in the first one's order.

    Raises:
        DataError: an id is in one of them alone; the message counts both kinds and shows some.
    """
    alone = [[name for name in one if name not in other] for one, other in ((first, second), (second, first))]
    if any(alone):
        shown = ", ".join(repr(name) for name in [*alone[0], *alone[1]][:SHOWN_IDS])
        raise DataError(
            where,
            f"{len(alone[0])} ids only in the first run and {len(alone[1])} only in the second ({shown}"
            f"{', ...' if sum(map(len, alone)) > SHOWN_IDS else ''}), {len(first) - len(alone[0])} in both",
            "the same utterances in both",
        )
    if not first:
        raise DataError(where, "no utterances", "at least one")
    return [(value, second[name]) for name, value in first.items()]
