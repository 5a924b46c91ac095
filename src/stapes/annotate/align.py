"""Two spellings of one transcript, word by word: where a span of the one lies in the other.

A corpus may have a text as people write it ("In 2008, the WTO") and as it was said ("in two thousand and eight the wto"). Words
are paired by ``difflib``; where several stand for several others, they are one block that maps only as a whole.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

_WORD = re.compile(r"\w+")
Span = tuple[int, int]


def words(text: str) -> list[tuple[str, int, int]]:
    """The words of a text in lower case, each with its offsets in characters; apostrophes and hyphens part words."""
    return [(found[0].lower(), found.start(), found.end()) for found in _WORD.finditer(text)]


class Alignment:
    """Maps spans of ``source`` to spans of ``target``."""

    def __init__(self, source: str, target: str) -> None:
        self._source, self._target = words(source), words(target)
        source_words, target_words = ([word for word, _, _ in side] for side in (self._source, self._target))
        self._blocks = SequenceMatcher(None, source_words, target_words, autojunk=False).get_opcodes()

    def map(self, start: int, end: int) -> Span | None:
        """Where the words of ``source[start:end]`` lie in the target; None if some of them cannot be told from others."""
        inside = [index for index, (_, first, last) in enumerate(self._source) if first < end and last > start]
        if not inside:
            return None
        first, last = inside[0], inside[-1] + 1
        found: list[int] = []
        for kind, source_start, source_end, target_start, target_end in self._blocks:
            if source_end <= first or source_start >= last:
                continue
            if kind == "equal":
                shift = target_start - source_start
                found += range(max(first, source_start) + shift, min(last, source_end) + shift)
            elif first <= source_start and source_end <= last:
                found += range(target_start, target_end)
            else:
                return None
        return (self._target[found[0]][1], self._target[found[-1]][2]) if found else None
