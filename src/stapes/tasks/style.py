"""The two styles of a text: "spoken", the words alone, and "written", as a person would write them."""

from __future__ import annotations

import re
from typing import Literal

from stapes.errors import RecipeError
from stapes.metrics.signature import with_facts
from stapes.registry import nearest
from stapes.types import Entity, Score, Utterance

Style = Literal["spoken", "written"]
NORMALISERS: dict[str, str] = {"spoken": "slue", "written": "none"}
LONGER: dict[str, float] = {"spoken": 1.0, "written": 1.5}  # tokens, against those of the words alone (ours)


def check_style(task: str, style: str) -> None:
    """Raise RecipeError unless there is such a style."""
    if style not in NORMALISERS:
        raise RecipeError(f"task '{task}'", f"unknown style '{style}'", fix=nearest(style, NORMALISERS))


def letter_class(style: str, reserved: str = "") -> str:
    """What words are made of, as a character class for grammars; ``reserved`` are those that belong to the markup."""
    return r"[\p{L}\p{M}\p{N}']" if style == "spoken" else rf"[^\s{re.escape(reserved)}]"


def is_said(utterance: Utterance, style: str) -> bool:
    """Whether an utterance has a transcript in a style.

    Any text can be spoken. Written is ``raw_text``, and ``text`` where there is no other and it has both capitals and small
    letters, so that someone wrote it.
    """
    return style == "spoken" or utterance.raw_text is not None or not (utterance.text.isupper() or utterance.text.islower())


def said(utterance: Utterance, style: str) -> str:
    """The transcript from which a text of that style is made."""
    return utterance.text if style == "spoken" or utterance.raw_text is None else utterance.raw_text


def named(utterance: Utterance, style: str) -> tuple[Entity, ...] | None:
    """The entities of ``said``; None where they are not known."""
    return utterance.entities if style == "spoken" or utterance.raw_text is None else utterance.raw_entities


def in_style(scores: dict[str, Score], style: str) -> dict[str, Score]:
    """Scores against references of a style: their signatures name it, where it is not the spoken one."""
    return {name: with_facts(score, style="" if style == "spoken" else style) for name, score in scores.items()}
