"""The labels of SLUE (arXiv 2111.10367) and what its benchmark makes of them: 18 entity tags become 7, 5 sentiments 3.

Where an utterance has one of the two sentiments that are none of the three, it counts as Neutral. SLUE's toolkit has that rule,
too, but leaves such utterances out of its manifests before it comes to it; so does ``data/corpora/slue_voxceleb.py``.
"""

from __future__ import annotations

from stapes.errors import DataError
from stapes.registry import nearest

# Combined tag -> the tags of OntoNotes that it stands for, as the official toolkit has them.
COMBINED: dict[str, tuple[str, ...]] = {
    "LAW": ("LAW",),
    "NORP": ("NORP",),
    "ORG": ("ORG",),
    "PERSON": ("PERSON",),
    "PLACE": ("GPE", "LOC"),
    "QUANT": ("CARDINAL", "ORDINAL", "QUANTITY", "MONEY", "PERCENT"),
    "WHEN": ("DATE", "TIME"),
}
DISCARDED = ("FAC", "EVENT", "WORK_OF_ART", "PRODUCT", "LANGUAGE")
RAW = (*(raw for raws in COMBINED.values() for raw in raws), *DISCARDED)
SENTIMENTS = ("Negative", "Neutral", "Positive")
UNSETTLED = ("mixed", "disagreement")

_COMBINED_OF = {raw: tag for tag, raws in COMBINED.items() for raw in (tag, *raws)}
_SENTIMENT_OF = {name.lower(): name for name in SENTIMENTS} | dict.fromkeys(UNSETTLED, "Neutral")


def combined(tag: str, where: object = "entity") -> str | None:
    """The combined tag of a raw one (or of one that is combined already); None where the benchmark discards it.

    Raises:
        DataError: not a tag of SLUE; ``where`` says in which line.
    """
    if tag in DISCARDED:
        return None
    if tag not in _COMBINED_OF:
        known = nearest(tag, [*_COMBINED_OF, *DISCARDED])
        raise DataError(where, f"entity tag {tag!r}", "a tag of SLUE", known)
    return _COMBINED_OF[tag]


def sentiment(label: str, where: object = "sentiment") -> str:
    """One of ``SENTIMENTS``; annotators who saw both sides, or did not agree, make a Neutral.

    Raises:
        DataError: not a label of SLUE; ``where`` says in which line.
    """
    name = _plain(label)
    if name not in _SENTIMENT_OF:
        raise DataError(where, f"sentiment {label!r}", "a label of SLUE", f"known: {', '.join([*SENTIMENTS, *UNSETTLED])}")
    return _SENTIMENT_OF[name]


def is_unsettled(label: str) -> bool:
    """Whether the annotators saw both sides, or did not agree."""
    return _plain(label) in UNSETTLED


def _plain(label: str) -> str:
    return label.lower().strip("<>")  # the tables write <mixed>
