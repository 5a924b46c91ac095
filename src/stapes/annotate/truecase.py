"""Capitals for lower-case text: each word in the form that it mostly has in texts as people write them.

A table of single words, learnt from the ``raw_text`` of a manifest; words that open a sentence say nothing and are not counted.
Ours, for annotators that lean on case. Only case changes, so offsets into the text stay what they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"\w+")
_OPENS_A_SENTENCE = re.compile(r"(?:^|[.?!:]\s)\W*$")


class Truecaser:
    """Gives words their usual case.

    Args:
        forms: lower-case word -> how it is mostly written; words that are not in it stay as they are.
    """

    def __init__(self, forms: dict[str, str]) -> None:
        self.forms = forms

    @classmethod
    def learn(cls, texts: Iterable[str]) -> Truecaser:
        """Count the forms of every word in ``texts``; of equally frequent ones the first in the alphabet is taken."""
        counts: dict[str, Counter[str]] = {}
        for text in texts:
            for word in _WORD.finditer(text):
                if not _OPENS_A_SENTENCE.search(text[max(0, word.start() - 4) : word.start()] if word.start() else ""):
                    counts.setdefault(word[0].lower(), Counter())[word[0]] += 1
        forms = {word: min(found, key=lambda form: (-found[form], form)) for word, found in counts.items()}
        return cls({word: form for word, form in forms.items() if form != word})

    def __call__(self, text: str) -> str:
        """The text with capitals, of the same length."""
        return _WORD.sub(lambda word: self.forms.get(word[0], word[0]), text)
