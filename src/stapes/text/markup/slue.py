"""Entities between special characters: ``the $ jane doe ] said``.

One character opens each of the seven combined tags and "]" closes them all, as in the baselines of SLUE (arXiv 2111.10367),
whose CTC models have these in their vocabulary. Which character stands for which tag is the official toolkit's choice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from stapes.errors import RecipeError
from stapes.text.markup.inline import CLOSING, Inline, Mark
from stapes.text.tags import COMBINED

CHARACTERS = {"LAW": "!", "NORP": "@", "ORG": "#", "PERSON": "$", "PLACE": "%", "QUANT": "^", "WHEN": "&"}


class Slue(Inline):
    """SLUE's own markup, for the combined tags. In a text, a character of the markup becomes a space ("10%" is "10").

    Raises:
        RecipeError: a tag that is not one of the seven.
    """

    name = "slue"
    replaced: ClassVar[dict[str, str]] = dict.fromkeys([*CHARACTERS.values(), CLOSING], " ")
    openings = "".join(CHARACTERS.values())
    space_before_closing = True

    def __init__(self, tags: Sequence[str] = tuple(COMBINED)) -> None:
        super().__init__(tags)
        for tag in tags:
            if tag not in CHARACTERS:
                fix = "write brackets, which have every tag"
                raise RecipeError("markup.tags", f"'{tag}'", f"a tag with a character: {', '.join(CHARACTERS)}", fix)
        self._tag_of = {CHARACTERS[tag]: tag for tag in tags}

    def _opening(self, tag: str) -> str:
        return CHARACTERS[tag]

    def _is_over(self, opening: str, letter: str) -> bool:
        return letter != " "

    def _opened(self, opening: str) -> tuple[Mark, str]:
        tag = self._tag_of.get(opening[0])
        return Mark(opens=True, well_formed=tag is not None and len(opening) == 2, tag=tag), ""

    def _opening_grammar(self) -> str:
        return f"[{''.join(map(re.escape, self._tag_of))}]"
