"""Entities in brackets, with their tag in capitals: ``we met [PERSON jane doe] in [PLACE brussels]``. The form is ours."""

from __future__ import annotations

import re
from typing import ClassVar

from stapes.text.markup.inline import Inline, Mark


class Brackets(Inline):
    """The default: words that an LLM knows name the tags. Brackets in a text are written as round ones.

    In a malformed answer, the first word behind an opening bracket counts as a tag if it is in capitals or names one;
    otherwise it is a word like any other.
    """

    name = "brackets"
    replaced: ClassVar[dict[str, str]] = {"[": "(", "]": ")"}
    openings = "["
    space_before_closing = False

    def _opening(self, tag: str) -> str:
        return f"[{tag}"

    def _is_over(self, opening: str, letter: str) -> bool:
        if letter in self.replaced:
            return True
        head = opening[1:]
        return letter != " " and head.endswith(" ") and not head.isspace()

    def _opened(self, opening: str) -> tuple[Mark, str]:
        head = opening[1:].strip()
        tag = self._meant(head)
        if tag is None or (head != tag and not head.isupper() and head.upper() not in self.tags):
            words = "" if head.isupper() or not head else " " * opening.startswith("[ ") + head
            return Mark(opens=True, well_formed=False), words
        return Mark(opens=True, well_formed=opening == f"[{tag} ", tag=tag), ""

    def _opening_grammar(self) -> str:
        return rf"\[(?:{'|'.join(map(re.escape, self.tags))})"
