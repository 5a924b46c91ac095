"""Spans of a text: where they go when the text is normalised, and which of them can stand side by side."""

from __future__ import annotations

from collections.abc import Sequence

from stapes.errors import RecipeError
from stapes.text import normalise
from stapes.types import Entity

# What these leave of the beginning of a text is the beginning of what they leave of the whole, white space apart.
LETTER_BY_LETTER = ("none", "slue")


def normalise_marked(text: str, entities: Sequence[Entity], normaliser: str) -> tuple[str, tuple[Entity, ...]]:
    """Normalise a text together with its spans.

    A span goes where its letters went: from the first letter that is left of it to the last. White space and punctuation at its
    ends are left behind; a span of which no letter is left disappears. One that ends within a word still does so.

    Args:
        text: as the corpus wrote it.
        entities: spans of it, in any order; their phrases are not looked at.
        normaliser: "none" or "slue".

    Returns:
        What the normaliser makes of the whole text, and the spans in the order given.

    Raises:
        RecipeError: the normaliser rewrites words ("twenty five" to "25"), so that spans cannot be followed.
    """
    clean = normalise.get(normaliser)
    if normaliser not in LETTER_BY_LETTER:
        expected = " or ".join(f"'{name}'" for name in LETTER_BY_LETTER)
        raise RecipeError("normaliser", f"'{normaliser}' rewrites words, and no span of a text can follow", expected)
    whole = clean(text)
    places = [place for place, letter in enumerate(whole) if letter != " "]

    def letters_before(offset: int) -> int:
        # A letter and the accent behind it may become one: the prefix then has as many letters as the whole, never more.
        return min(len(clean(text[:offset]).replace(" ", "")), len(places))

    moved = []
    for entity in entities:
        first, behind = letters_before(entity.start), letters_before(entity.end)
        if first < behind:
            start, end = places[first], places[behind - 1] + 1
            moved.append(Entity(entity.label, start, end, whole[start:end]))
    return whole, tuple(moved)


def outermost(entities: Sequence[Entity]) -> list[Entity]:
    """The spans in order of appearance, without those that begin within another: of nested ones, the outer stays.

    Of two that cross, the one that begins first stays, and of two over the same letters, the one given first.
    """
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda each: (each.start, -each.end)):
        if not kept or entity.start >= kept[-1].end:
            kept.append(entity)
    return kept
